"""A minute of parity: what this machine computes against what it should.

The model is a Llama of 13,000 parameters whose figures transformers gave (fp32, `golden.json`);
its weights are drawn from a seed, so that no file holds them.
"""

import json
import pathlib
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.associations import matrix
from forget_jax.data.batches import Buckets
from forget_jax.data.encoded import Encoded
from forget_jax.lm import attention
from forget_jax.lm.hf import checkpoint, peft
from forget_jax.lm.model import Adapters, Model
from forget_jax.scoring import likelihood
from forget_jax.scoring.stream import Layout

GOLDEN = pathlib.Path(__file__).with_name("golden.json")
NATS = 1e-4  # a token: what fp32 may differ by from transformers and from float64


class Check(NamedTuple):
    """One figure of the self-test.

    Attributes:
      what: for people.
      value: what was measured; NaN where it could not be.
      most: what it may be at most.
      error: why there is no value; empty where there is one.
    """

    what: str
    value: float
    most: float
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether the value is there and within its limit."""
        return self.value <= self.most


def random_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight of the golden model by its name: norms off one, biases off zero."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) == 2:
        x *= 0.6 if shape[0] in (61, 64) else 1.3 / np.sqrt(max(shape))
    else:
        x = 0.3 * x + (1.0 if name.endswith("weight") else 0.0)
    return x.astype(np.float32)


def write(case: dict[str, Any], folder: pathlib.Path, name: str, scale: float = 1.0) -> str:
    """A golden checkpoint (`model`) or PEFT adapter (`adapter_model`) in a folder of its own."""
    from safetensors.numpy import save_file

    folder.mkdir()
    tensors = {key: scale * random_tensor(key, shape) for key, shape in case["tensors"].items()}
    save_file(tensors, folder / f"{name}.safetensors", {"format": "pt"})
    config = "config.json" if name == "model" else "adapter_config.json"
    (folder / config).write_text(json.dumps(case["config"]))
    return str(folder)


def checks() -> Iterator[Check]:
    """Every check, as it is made; one that fails does not stop those after it."""
    case = json.loads(GOLDEN.read_text())
    rows = [_encoded(i, ids) for i, ids in enumerate(case["prompts"]) if len(ids) > 1]
    tokens_N = np.array([row.tokens for row in rows])
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made)
        try:
            base = write(case, folder / "base", "model")
            model = checkpoint.load(base)
            adapted = write(case["adapter"], folder / "adapter", "adapter_model", 0.1)
            adapter = peft.load(pathlib.Path(adapted), model)
        except Exception as e:  # whatever is broken is what is asked
            yield Check("a checkpoint and an adapter are read", np.nan, 0.0, _line(e))
            return

        def scored(one: Model, packing: bool, stack: Adapters | None = None) -> np.ndarray:
            layout = Layout.of(rows, Buckets.of(rows, 2), 4, packing)
            return likelihood.score(one, stack, rows, layout) / tokens_N

        def against(wanted: dict[str, Any], stack: Adapters | None) -> float:
            given = [row for row in wanted["logp"] if row]
            exact = -np.array([sum(row) for row in given]) / tokens_N
            return float(np.abs(scored(model, False, stack)[-1] - exact).max())

        def exactly(one: Adapters | None) -> float:
            exact = -np.array([reference(model, one, row.ids).sum() for row in rows]) / tokens_N
            stack = None if one is None else _stack(one)
            return float(np.abs(scored(model, False, stack)[-1] - exact).max())

        def nothing() -> float:
            zeros = Adapters(both.config, jax.tree.map(jnp.zeros_like, both.tree))
            base_N, same_N = scored(model, False, zeros.with_base())
            return float(np.abs(same_N - base_N).max())

        both = _stack(adapter)
        yield _made("golden file of transformers, fp32, nats a token", NATS, against, case, None)
        yield _made("golden file with an adapter of PEFT's", NATS, against, case["adapter"], both)
        yield _made("fp32 here against float64 in numpy", NATS, exactly, None)
        yield _made("the same with the adapter", NATS, exactly, adapter)
        yield _made(
            "packed rows against rows of one example",
            NATS,
            lambda: np.abs(scored(model, True) - scored(model, False)).max(),
        )
        yield _made("forgetting by an adapter of zeros, exactly", 0.0, nothing)
        half = model.computing(dtype="bfloat16")
        yield _made(
            "bfloat16 against fp32, nats a token",
            0.1,
            lambda: np.abs(scored(half, False) - scored(model, False)).max(),
        )
    if attention.has_cudnn(jnp.bfloat16, 64):
        yield _made("cuDNN's attention against XLA's, bfloat16", 0.05, _kernels)
    yield _made("a matrix that is written and read again", 0.0, _matrix)


def _made(what: str, most: float, check: Callable[..., Any], *args: Any) -> Check:
    try:
        return Check(what, float(check(*args)), most)
    except Exception as e:  # whatever is broken is what is asked
        return Check(what, np.nan, most, _line(e))


def _line(e: Exception) -> str:
    return f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"


def _encoded(i: int, ids: list[int]) -> Encoded:
    is_target_L = np.arange(len(ids)) > 0
    return Encoded(f"golden#{i}", "golden", np.array(ids, np.int32), is_target_L, 0)


def _stack(adapter: Adapters) -> Adapters:
    """One adapter as a stack of one."""
    return Adapters(adapter.config, jax.tree.map(lambda x: x[None], adapter.tree))


def _kernels() -> float:
    """Largest difference of two kernels' outputs, of values of the size 1."""
    q, k, v = (
        jax.random.normal(jax.random.key(i), (2, 128, 4, 64), jnp.bfloat16) for i in range(3)
    )
    one = jnp.ones((2, 128), jnp.int32)
    difference = attention.attend(q, k, v) - attention.attend(q, k, v, one)
    return float(jnp.abs(difference.astype(jnp.float32)).max())


def _matrix() -> float:
    """Largest difference between a matrix and what its file holds."""
    z_MxN = np.outer(np.arange(1.0, 7.0), np.linspace(0.5, 1.5, 20))
    names = tuple(f"t{i}" for i in range(6)), tuple(f"e{j}" for j in range(20))
    with tempfile.TemporaryDirectory() as folder:
        matrix.save(f"{folder}/z.zarr", matrix.Matrix(z_MxN, *names))
        held_MxN = matrix.load(f"{folder}/z.zarr").z_MxN
    return float(np.abs(held_MxN - z_MxN).max())


def reference(model: Model, adapter: Adapters | None, ids_L: np.ndarray) -> np.ndarray:
    """Log-probability of each token after the first under a Llama, in float64 numpy.

    Args:
      model: of plain rotary embeddings, RMS norms, a gated SiLU and no biases.
      adapter: a single one, or None.
    """
    c = model.config
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), model.params)
    lo = jax.tree.map(lambda x: np.asarray(x, np.float64), adapter.tree) if adapter else {}
    H, G, Dh, L = c.heads, c.kv_heads, c.head_dim, len(ids_L)

    def norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + c.norm_eps) * scale)

    def linear(x: np.ndarray, block: str, name: str, layer: int) -> np.ndarray:
        y = x @ p["layers"][block][name]["kernel"][layer]
        if adapter is not None and name in lo["layers"].get(block, {}):
            ab = lo["layers"][block][name]
            scale = adapter.config.scale_of(f"layers/{block}/{name}")
            y = y + scale * (x @ ab["a"][layer] @ ab["b"][layer])
        return np.asarray(y)

    angle = np.arange(L)[:, None] * c.rope_theta ** (-np.arange(0, Dh, 2) / Dh)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]

    def rotate(x: np.ndarray) -> np.ndarray:
        x1, x2 = x[..., : Dh // 2], x[..., Dh // 2 :]
        return np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1)

    h = p["embed"][ids_L]
    for layer in range(c.layers):
        x = norm(h, p["layers"]["attn_norm"]["scale"][layer])
        q = rotate(linear(x, "attn", "q", layer).reshape(L, H, Dh))
        k = rotate(linear(x, "attn", "k", layer).reshape(L, G, Dh))
        v = linear(x, "attn", "v", layer).reshape(L, G, Dh)
        out = np.zeros((L, H, Dh))
        for head in range(H):
            group = head // (H // G)
            logit = q[:, head] @ k[:, group].T / np.sqrt(Dh)
            logit[np.triu_indices(L, 1)] = -np.inf
            weight = np.exp(logit - logit.max(-1, keepdims=True))
            out[:, head] = weight / weight.sum(-1, keepdims=True) @ v[:, group]
        h = h + linear(out.reshape(L, H * Dh), "attn", "o", layer)
        x = norm(h, p["layers"]["mlp_norm"]["scale"][layer])
        gate = linear(x, "mlp", "gate", layer)
        up = gate / (1 + np.exp(-gate)) * linear(x, "mlp", "up", layer)
        h = h + linear(up, "mlp", "down", layer)
    logits = norm(h, p["final_norm"]["scale"]) @ p.get("head", p["embed"].T)
    logits -= logits.max(-1, keepdims=True)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.asarray(logp[np.arange(L - 1), ids_L[1:]])
