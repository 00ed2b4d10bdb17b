"""Scores the same examples on each mesh given and writes the figures as .npz.

    python scoring_mesh_worker.py OUT MESH [MESH ...]

where a MESH is `1` (no mesh) or four numbers such as 2,1,2,2 for task, data, fsdp and tensor. All
is done `here`, and as on a `gpu`: adapters mapped side by side and attention cut by ourselves, as
for cuDNN.
"""

import sys

import jax
import numpy as np

from forget_jax.data.batches import Buckets
from forget_jax.data.tokenise import Encoded
from forget_jax.lm import attention, decoder, lora, sharding
from forget_jax.lm.model import Adapters, Model
from forget_jax.scoring import divergence, likelihood
from forget_jax.scoring.stream import Layout

CONFIG = decoder.DecoderConfig(
    vocab_size=64, width=32, layers=2, heads=8, kv_heads=8, head_dim=4, mlp_width=48, context=64
)
ADAPTER = lora.LoRAConfig(rank=2)


def examples():
    rng = np.random.default_rng(0)
    found = []
    for i, n in enumerate(rng.integers(3, 30, 20)):
        ids = rng.integers(0, 64, n).astype(np.int32)
        found.append(Encoded(f"e{i}", "s", ids, np.arange(n) >= n // 2))
    return found


def as_on_a_gpu():
    """Plain XLA's attention where cuDNN's would be."""
    plain = jax.nn.dot_product_attention
    jax.nn.dot_product_attention = lambda *x, implementation, **how: plain(*x, **how)
    attention.has_cudnn = lambda dtype, head_dim: True
    likelihood.at_a_time = lambda: False
    jax.clear_caches()


def main() -> None:
    params = jax.jit(decoder.init, static_argnums=0)(CONFIG, jax.random.key(0))
    params = jax.tree.map(lambda x: np.asarray(x) * 3, params)
    one = jax.tree.map(np.asarray, lora.init(ADAPTER, params, jax.random.key(1)))
    stack = jax.tree.map(lambda x: np.stack([0 * x, x + 0.2]), one)
    encoded = examples()
    buckets = Buckets.of(encoded, 1)
    found = {}
    for how in ("here", "gpu"):
        if how == "gpu":
            as_on_a_gpu()
        for text in sys.argv[2:]:
            shape = None if text == "1" else sharding.MeshShape(*map(int, text.split(",")))
            with sharding.entered(None if shape is None else sharding.make(shape)):
                model = Model(CONFIG, sharding.put(params))
                models = model, Adapters(ADAPTER, sharding.put(stack)), encoded
                bucketed, packed = (
                    Layout.of(encoded, buckets, 6, packing) for packing in (False, True)
                )
                found[f"{how} {text} bucketed"] = likelihood.score(*models, bucketed)
                found[f"{how} {text} packed"] = likelihood.score(*models, packed)
                found[f"{how} {text} kl"] = divergence.diverge(*models, bucketed)["kl"]
    np.savez(sys.argv[1], **found)


main()
