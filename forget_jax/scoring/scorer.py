"""The scorer: summed negative log-likelihood of N examples under a base model and K adapters.

The base is scored as one more adapter whose update is zero, by the same compiled function, so that
an adapter which changes nothing gives a forgetting of exactly zero.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.data import batches
from forget_jax.data.batches import Batch, Buckets, Shape
from forget_jax.data.tokenise import Encoded
from forget_jax.lm import decoder, lora
from forget_jax.lm.logprob import target_logprobs

Tree = Any


def over_adapters(fn: Callable[[Tree], jax.Array], adapters_K: Tree) -> jax.Array:
    """Maps over the leading axis of a stack of adapters: the one place that decides how.

    On accelerators `vmap` shares the base's matrix products among adapters; on CPU one adapter
    after the other is faster.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.map(fn, adapters_K)
    return jax.vmap(fn)(adapters_K)


@functools.partial(jax.jit, static_argnames=("model", "adapter"))
def score_batch(
    model: decoder.DecoderConfig,
    adapter: lora.LoRAConfig | None,
    params: Tree,
    adapters_K: Tree | None,
    batch: Batch,
) -> jax.Array:
    """Summed NLL in nats of every example of a batch under every adapter.

    Args:
      adapters_K: a stack of adapters, or None for the model alone (K = 1).

    Returns:
      nll_KxBxS, fp32; zero in slots without an example.
    """
    S = batch.example_BxS.shape[1]
    chosen_BxTxS = jax.nn.one_hot(batch.slot_BxT, S) * batch.weight_BxT[:, :, None]

    def one(adapters: Tree | None) -> jax.Array:
        tree = None if adapters is None or adapter is None else lora.scaled(adapter, adapters)
        h_BxLxD = decoder.hidden(
            model, params, tree, batch.ids_BxL, batch.position_BxL, batch.segment_BxL
        )
        logp_BxT = target_logprobs(
            h_BxLxD, decoder.head_kernel(params), batch.at_BxT, batch.target_BxT
        )
        return -jnp.einsum(
            "bt,bts->bs", logp_BxT, chosen_BxTxS, precision=jax.lax.Precision.HIGHEST
        )

    return one(None)[None] if adapters_K is None else over_adapters(one, adapters_K)


def plan(
    encoded: Sequence[Encoded], buckets: Buckets, rows: int, packing: bool = False
) -> list[tuple[Shape, list[tuple[int, ...]]]]:
    """How a set of examples becomes batches.

    Args:
      rows: rows of a batch of the longest bucket; shorter ones hold more, up to as many tokens.
      packing: put several examples into a row (kernels must honour segment ids).
    """
    lengths = [len(e.ids) for e in encoded]
    if packing:
        return batches.packed(lengths, [e.tokens for e in encoded], buckets.edges[-1], rows)
    return batches.bucketed(lengths, buckets, rows, rows * buckets.edges[-1])


def score(
    model: decoder.DecoderConfig,
    adapter: lora.LoRAConfig | None,
    params: Tree,
    adapters_K: Tree | None,
    encoded: Sequence[Encoded],
    buckets: Buckets,
    rows: int = 8,
    packing: bool = False,
    on_batch: Callable[[int], None] = lambda examples: None,
) -> np.ndarray:
    """Scores all examples under all adapters.

    The next batch is dispatched before the last one is fetched.

    Args:
      on_batch: called with the number of examples done so far.

    Returns:
      nll_KxN, float64, in nats summed over each example's targets.
    """
    K = 1 if adapters_K is None else jax.tree.leaves(adapters_K)[0].shape[0]
    nll_KxN = np.full((K, len(encoded)), np.nan)
    waiting: list[tuple[jax.Array, np.ndarray]] = []
    done = 0

    def fetch() -> None:
        nonlocal done
        nll_KxBxS, example_BxS = waiting.pop(0)
        real = example_BxS >= 0
        nll_KxN[:, example_BxS[real]] = np.asarray(nll_KxBxS)[:, real]
        done += int(real.sum())
        on_batch(done)

    for shape, chosen in plan(encoded, buckets, rows, packing):
        batch = batches.assemble(encoded, shape, chosen)
        waiting.append((score_batch(model, adapter, params, adapters_K, batch), batch.example_BxS))
        if len(waiting) > 1:
            fetch()
    while waiting:
        fetch()
    return nll_KxN
