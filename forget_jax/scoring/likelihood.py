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

from forget_jax.data.batches import Buckets, Shape
from forget_jax.data.tokenise import Encoded
from forget_jax.lm import attention, causal, decoder, logprob, lora, sharding
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.cost import flops
from forget_jax.lm.model import Adapters, Batch, Model
from forget_jax.scoring.stream import Layout, stream


def at_a_time() -> bool:
    """Whether adapters are scored one after the other rather than side by side.

    On accelerators `vmap` shares the base's matrix products among adapters; on CPU one adapter
    after the other is faster (BENCHMARKS.md has the figures).
    """
    return jax.default_backend() == "cpu"


def merges(model: Model) -> bool:
    """Whether each adapter is added into a copy of the base and scored in a pass of its own.

    The fastest way on CPU, for one copy of the adapted kernels. Never where the base is kept or
    multiplied in half precision, which would round small updates away.
    """
    exact = model.config.dtype == "float32" and all(
        x.dtype == jnp.float32 for x in jax.tree.leaves(model.params)
    )
    return at_a_time() and exact


@jax.jit
def merged(model: Model, adapter: Adapters) -> Model:
    """The model with a single adapter added into its kernels."""
    return Model(model.config, lora.merge(adapter.config, model.params, adapter.tree))


def over_adapters(fn: Callable[[Adapters], Any], adapters_K: Adapters) -> Any:
    """Maps over the leading axis of a stack of adapters: the one place that decides how."""
    return jax.lax.map(fn, adapters_K) if at_a_time() else jax.vmap(fn)(adapters_K)


def chunk_logits(adapters_K: Adapters | None, most: int = logprob.CHUNK_LOGITS) -> int:
    """How many logits one adapter may have alive, so that all together keep within `most`."""
    return most if adapters_K is None or at_a_time() else max(1, most // adapters_K.count)


def by_example(values_BxT: jax.Array, batch: Batch) -> jax.Array:
    """Sums over the targets of each of a row's examples, BxE in fp32.

    A choice rather than a product with 0 and 1: what is not finite stays with its own example.
    """
    E = batch.example_BxE.shape[1]
    weight_BxT = jnp.where(batch.weight_BxT > 0, values_BxT, 0)
    if E == 1:
        return weight_BxT.sum(1, keepdims=True)
    mine_BxTxE = batch.slot_BxT[:, :, None] == jnp.arange(E)
    return jnp.where(mine_BxTxE, weight_BxT[:, :, None], 0).sum(1)


def nll_mean(nll_N: np.ndarray, tokens_N: np.ndarray) -> float:
    """Mean NLL in nats a token over the examples that have a finite one; NaN where none has.

    Args:
      nll_N: sums over each example's targets.
      tokens_N: how many targets those are.
    """
    known_N = np.isfinite(nll_N)
    return float(nll_N[known_N].sum() / tokens_N[known_N].sum()) if known_N.any() else np.nan


@functools.partial(jax.jit, static_argnames=("per_token",))
def score_batch(
    model: Model, adapters_K: Adapters | None, batch: Batch, per_token: bool = False
) -> dict[str, jax.Array]:
    """Summed NLL in nats of every example of a batch under every adapter.

    Args:
      adapters_K: a stack of adapters, or None for the model alone (K = 1).
      per_token: give every target's log-probability too.

    Returns:
      `nll_sum` (K, B, E), fp32, zero in slots without an example; with `per_token` also `logp`
      (K, B, T), fp32, in the order of `batch.target_BxT`.
    """
    many = chunk_logits(adapters_K)

    def one(adapter: Adapters | None) -> dict[str, jax.Array]:
        h_BxLxD = decoder.hidden(model, adapter, batch)
        logp_BxT = logprob.target_logprobs(
            h_BxLxD, decoder.head(model.params), batch.at_BxT, batch.target_BxT, many
        )
        found = {"nll_sum": by_example(-logp_BxT, batch)}
        return found | ({"logp": logp_BxT} if per_token else {})

    if adapters_K is None:
        scored = jax.tree.map(lambda x: x[None], one(None))
    else:
        scored = over_adapters(one, adapters_K)
    return sharding.replicate(scored)


def packs(
    packing: str,
    config: DecoderConfig,
    encoded: Sequence[Encoded],
    buckets: Buckets,
    rows: int,
) -> bool:
    """Whether rows hold several examples: as said, or (`auto`) where that takes less arithmetic.

    Packed rows have little padding, but all are as long as the longest example, and attention's
    work grows with the square. cuDNN's attention is fast but cannot keep the examples of a row
    apart, and that is worth more than the padding: there `auto` never packs.

    Args:
      packing: `true`, `false` or `auto`.
      config: the model's shape.
      encoded, buckets, rows: as for `Layout.of`.
    """
    if packing != "auto":
        return packing == "true"
    if attention.fused(config):
        return False
    apart, together = (_flops(config, plan(encoded, buckets, rows, p)) for p in (False, True))
    return together < apart


def _flops(
    config: DecoderConfig, planned: Sequence[tuple[Shape, Sequence[tuple[int, ...]]]]
) -> float:
    """Arithmetic of a plan's batches, padding and masked pairs included."""
    shapes = [shape for shape, _ in planned]
    tokens = sum(s.rows * s.length for s in shapes)
    pairs = sum(s.rows * causal.kept(s.length) for s in shapes)
    return flops.scoring(config, flops.Work(tokens, pairs, sum(s.rows * s.targets for s in shapes)))


def plan(
    encoded: Sequence[Encoded], buckets: Buckets, rows: int, packing: bool = False
) -> list[tuple[Shape, list[tuple[int, ...]]]]:
    """How a set of examples becomes batches; arguments as for `Layout.of`."""
    return Layout.of(encoded, buckets, rows, packing).plan(encoded)


def score(
    model: Model,
    adapters_K: Adapters | None,
    encoded: Sequence[Encoded],
    layout: Layout,
    on_batch: Callable[[int], None] = lambda examples: None,
    merge: bool = False,
) -> np.ndarray:
    """Scores all examples under all adapters, in memory.

    Args:
      adapters_K: a stack of adapters, or None for the model alone (K = 1).
      on_batch: called with the number of examples done so far, in each pass.
      merge: a pass for each adapter, merged into the parameters, rather than one for all.

    Returns:
      nll_KxN, float64, in nats summed over each example's targets.
    """

    def one_pass(model: Model, adapters_K: Adapters | None) -> Any:
        ((_, found),) = stream(score_batch, (model, adapters_K), [(0, encoded)], layout, on_batch)
        return found["nll_sum"]

    if not merge or adapters_K is None:
        return one_pass(model, adapters_K)
    return np.concatenate([one_pass(merged(model, one), None) for one in adapters_K])
