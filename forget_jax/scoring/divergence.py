"""How far a fine-tuned model's predictions moved from the base's: five measures, one forward pass.

The measures are those of arXiv 2401.05605 (scaling.md §1) and their relatives; neither model's
logits are ever stored beyond one chunk.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.data import batches
from forget_jax.data.batches import Batch, Buckets
from forget_jax.data.tokenise import Encoded
from forget_jax.lm import decoder, logprob, lora
from forget_jax.scoring.scorer import over_adapters, plan

Tree = Any

# Sums over an example's target tokens, in nats: true-label NLL; cross-entropy to the base's
# distribution ("soft") and to its most likely token ("argmax"); KL(base || fine-tuned); and the
# number of tokens on whose most likely choice both agree.
MEASURES = ("nll", "soft", "argmax", "kl", "agree")


@functools.partial(jax.jit, static_argnames=("model", "adapter", "chunk_logits"))
def diverge_batch(
    model: decoder.DecoderConfig,
    adapter: lora.LoRAConfig,
    params: Tree,
    adapters_K: Tree,
    batch: Batch,
    chunk_logits: int = logprob.CHUNK_LOGITS,
) -> jax.Array:
    """Summed measures of every example of a batch under every adapter: KxBxSx5, fp32."""
    B, T = batch.at_BxT.shape
    S = batch.example_BxS.shape[1]
    head_DxV = decoder.head_kernel(params)
    C = max(1, min(T, chunk_logits // (2 * B * head_DxV.shape[1])))
    n = -(-T // C)

    def targets_nxBxCxD(tree: Tree | None) -> jax.Array:
        h_BxLxD = decoder.hidden(
            model, params, tree, batch.ids_BxL, batch.position_BxL, batch.segment_BxL
        )
        h_BxTxD = jnp.take_along_axis(h_BxLxD, batch.at_BxT[:, :, None], axis=1)
        return chunks(h_BxTxD)

    def chunks(x_BxT: jax.Array) -> jax.Array:
        pad = [(0, 0), (0, n * C - T)] + [(0, 0)] * (x_BxT.ndim - 2)
        x_BxT = jnp.pad(x_BxT, pad)
        return jnp.moveaxis(x_BxT.reshape(B, n, C, *x_BxT.shape[2:]), 1, 0)

    def compare(args: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        base_BxCxD, tuned_BxCxD, target_BxC = args
        p_BxCxV = jax.nn.log_softmax(logprob.logits(base_BxCxD, head_DxV))
        q_BxCxV = jax.nn.log_softmax(logprob.logits(tuned_BxCxD, head_DxV))
        probability_BxCxV = jnp.exp(p_BxCxV)
        best_BxC = jnp.argmax(p_BxCxV, -1)

        def at(index_BxC: jax.Array) -> jax.Array:
            return jnp.take_along_axis(q_BxCxV, index_BxC[..., None], -1)[..., 0]

        soft = -jnp.sum(probability_BxCxV * q_BxCxV, -1)
        kl = jnp.sum(probability_BxCxV * (p_BxCxV - q_BxCxV), -1)
        agree = (jnp.argmax(q_BxCxV, -1) == best_BxC).astype(jnp.float32)
        return jnp.stack([-at(target_BxC), soft, -at(best_BxC), kl, agree], -1)

    base_nxBxCxD = targets_nxBxCxD(None)
    target_nxBxC = chunks(batch.target_BxT)
    weight_BxTxS = jax.nn.one_hot(batch.slot_BxT, S) * batch.weight_BxT[:, :, None]

    def one(adapters: Tree) -> jax.Array:
        tuned_nxBxCxD = targets_nxBxCxD(lora.scaled(adapter, adapters))
        measured = jax.lax.map(compare, (base_nxBxCxD, tuned_nxBxCxD, target_nxBxC))
        measured_BxTx5 = jnp.moveaxis(measured, 0, 1).reshape(B, n * C, len(MEASURES))[:, :T]
        return jnp.einsum(
            "btm,bts->bsm", measured_BxTx5, weight_BxTxS, precision=jax.lax.Precision.HIGHEST
        )

    return over_adapters(one, adapters_K)


def diverge(
    model: decoder.DecoderConfig,
    adapter: lora.LoRAConfig,
    params: Tree,
    adapters_K: Tree,
    encoded: Sequence[Encoded],
    buckets: Buckets,
    rows: int = 8,
    on_batch: Callable[[int], None] = lambda examples: None,
) -> dict[str, np.ndarray]:
    """Each measure as a KxN array, summed over target tokens (nats; `agree`: tokens).

    Args:
      on_batch: called with the number of examples done so far.
    """
    K = jax.tree.leaves(adapters_K)[0].shape[0]
    sums_KxNx5 = np.full((K, len(encoded), len(MEASURES)), np.nan)
    done = 0
    for shape, chosen in plan(encoded, buckets, rows):
        batch = batches.assemble(encoded, shape, chosen)
        sums_KxBxSx5 = np.asarray(diverge_batch(model, adapter, params, adapters_K, batch))
        real_BxS = batch.example_BxS >= 0
        sums_KxNx5[:, batch.example_BxS[real_BxS]] = sums_KxBxSx5[:, real_BxS]
        done += int(real_BxS.sum())
        on_batch(done)
    return {name: sums_KxNx5[:, :, m] for m, name in enumerate(MEASURES)}
