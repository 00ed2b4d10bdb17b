"""How far a fine-tuned model's predictions moved from the base's: five measures, one forward pass.

The measures are those of arXiv 2401.05605 and their relatives; neither model's
logits are ever stored beyond one chunk.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.data.tokenise import Encoded
from forget_jax.lm import decoder, logprob, sharding
from forget_jax.lm.model import Adapters, Batch, Model
from forget_jax.scoring import likelihood
from forget_jax.scoring.stream import Layout, stream

# Sums over an example's target tokens, in nats: true-label NLL; cross-entropy to the base's
# distribution ("soft") and to its most likely token ("argmax"); KL(base || fine-tuned); and the
# number of tokens on whose most likely choice both agree.
MEASURES = ("nll", "soft", "argmax", "kl", "agree")


@functools.partial(jax.jit, static_argnames=("per_token", "chunk_logits"))
def diverge_batch(
    base: Model,
    model: Model,
    adapters_K: Adapters | None,
    batch: Batch,
    per_token: bool = False,
    chunk_logits: int = logprob.CHUNK_LOGITS,
) -> dict[str, jax.Array]:
    """Every measure of every example of a batch under every adapter: KxBxE, fp32.

    Args:
      base: what is compared with.
      model: what the adapters belong to, the base itself or a fine-tuned model.
      adapters_K: a stack of adapters, or None for `model` alone (K = 1).
      per_token: give every target's log-probability too, as `logp` (K, B, T).
      chunk_logits: how many logits may be alive at a time, over both models and all adapters.
    """
    B, T = batch.at_BxT.shape
    heads = [decoder.head(m.params) for m in (base, model)]
    most = max(1, min(T, chunk_logits // (2 * B * heads[0].vocab_size)))
    C = likelihood.chunk_logits(adapters_K, most)
    n = -(-T // C)

    def targets_nxBxCxD(model: Model, adapter: Adapters | None) -> jax.Array:
        h_BxLxD = decoder.hidden(model, adapter, batch)
        h_BxTxD = jnp.take_along_axis(h_BxLxD, batch.at_BxT[:, :, None], axis=1)
        return chunks(h_BxTxD)

    def chunks(x_BxT: jax.Array) -> jax.Array:
        pad = [(0, 0), (0, n * C - T)] + [(0, 0)] * (x_BxT.ndim - 2)
        x_BxT = jnp.pad(x_BxT, pad)
        return jnp.moveaxis(x_BxT.reshape(B, n, C, *x_BxT.shape[2:]), 1, 0)

    def compare(args: tuple[jax.Array, jax.Array, jax.Array]) -> dict[str, jax.Array]:
        base_BxCxD, tuned_BxCxD, target_BxC = args
        p_BxCxV = jax.nn.log_softmax(logprob.logits(base_BxCxD, heads[0]))
        q_BxCxV = jax.nn.log_softmax(logprob.logits(tuned_BxCxD, heads[1]))
        probability_BxCxV = jnp.exp(p_BxCxV)
        best_BxC = jnp.argmax(p_BxCxV, -1)

        def at(index_BxC: jax.Array) -> jax.Array:
            return jnp.take_along_axis(q_BxCxV, index_BxC[..., None], -1)[..., 0]

        soft = -jnp.sum(probability_BxCxV * q_BxCxV, -1)
        kl = jnp.sum(probability_BxCxV * (p_BxCxV - q_BxCxV), -1)
        agree = (jnp.argmax(q_BxCxV, -1) == best_BxC).astype(jnp.float32)
        return dict(zip(MEASURES, (-at(target_BxC), soft, -at(best_BxC), kl, agree), strict=True))

    base_nxBxCxD = targets_nxBxCxD(base, None)
    target_nxBxC = chunks(batch.target_BxT)

    def one(adapter: Adapters | None) -> dict[str, jax.Array]:
        tuned_nxBxCxD = targets_nxBxCxD(model, adapter)
        measured = jax.lax.map(compare, (base_nxBxCxD, tuned_nxBxCxD, target_nxBxC))
        measured_BxT = {
            name: jnp.moveaxis(x_nxBxC, 0, 1).reshape(B, -1)[:, :T]
            for name, x_nxBxC in measured.items()
        }
        sums = {name: likelihood.by_example(x_BxT, batch) for name, x_BxT in measured_BxT.items()}
        return sums | ({"logp": -measured_BxT["nll"]} if per_token else {})

    if adapters_K is None:
        measured = jax.tree.map(lambda x: x[None], one(None))
    else:
        measured = likelihood.over_adapters(one, adapters_K)
    return sharding.replicate(measured)


def diverge(
    model: Model,
    adapters_K: Adapters | None,
    encoded: Sequence[Encoded],
    layout: Layout,
    on_batch: Callable[[int], None] = lambda examples: None,
    tuned: Model | None = None,
) -> dict[str, np.ndarray]:
    """Each measure as a KxN array, summed over target tokens (nats; `agree`: tokens).

    Args:
      adapters_K: a stack of adapters, compared with the model alone; None where `tuned` is given.
      on_batch: called with the number of examples done so far.
      tuned: a whole model that is compared with the model (K = 1).
    """
    arrays = (model, model if tuned is None else tuned, adapters_K)
    ((_, found),) = stream(diverge_batch, arrays, [(0, encoded)], layout, on_batch)
    return found
