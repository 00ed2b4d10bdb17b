"""The logit lens: what each layer would say at the last position of a prompt.

A model cut after so many layers, with the final norm and the output projection of the whole one
(nostalgebraist 2020): the rank and probability of an answer's first token after each layer.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.data.batches import Buckets
from forget_jax.data.encoded import Encoded
from forget_jax.data.feed import feed
from forget_jax.lm import decoder, lora, sharding
from forget_jax.lm.logprob import logits
from forget_jax.lm.model import Adapters, Batch, Model

ROWS = 8  # at a time


def cut(model: Model, layers: int) -> Model:
    """The model without its layers above the lowest so many."""
    local = model.config.local[:layers]
    config = dataclasses.replace(model.config, layers=layers, local=local)
    lowest = jax.tree.map(lambda x: x[:layers], model.params["layers"])
    return Model(config, {**model.params, "layers": lowest})


@jax.jit
def _first(model: Model, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Rank (0 for the likeliest) and probability of the first target of each row."""
    h_BxLxD = decoder.hidden(model, None, batch)
    at_Bx1x1 = batch.at_BxT[:, :1, None]
    last_Bx1xD = jnp.take_along_axis(h_BxLxD, at_Bx1x1, axis=1)
    logits_BxV = logits(last_Bx1xD, decoder.head(model.params))[:, 0]
    own_Bx1 = jnp.take_along_axis(logits_BxV, batch.target_BxT[:, :1], axis=1)
    rank_B = (logits_BxV > own_Bx1).sum(1)
    p_B = jnp.exp(own_Bx1[:, 0] - jax.nn.logsumexp(logits_BxV, axis=1))
    return sharding.replicate((rank_B, p_B))


def through_layers(
    model: Model, adapters: Adapters | None, encoded: Sequence[Encoded]
) -> tuple[np.ndarray, np.ndarray]:
    """Rank and probability of every answer's first token after each layer.

    Args:
      adapters: a single one, or None.

    Returns:
      rank_NxL (0 for the likeliest token) and p_NxL, from the lowest layer to the highest.
    """
    if adapters is not None:
        model = Model(model.config, lora.merge(adapters.config, model.params, adapters.tree))
    N, L = len(encoded), model.config.layers
    rank_NxL, p_NxL = np.zeros((N, L), int), np.zeros((N, L))
    buckets = Buckets.of(encoded, 1)
    for layer in range(L):
        lower = cut(model, layer + 1)
        for start in range(0, N, ROWS):
            rows = [(i,) for i in range(start, min(N, start + ROWS))]
            shape = buckets.shape(buckets.edges[-1], ROWS)
            rank_B, p_B = _first(lower, feed(encoded, shape, rows))
            span = slice(start, start + len(rows))
            rank_NxL[span, layer] = np.asarray(rank_B)[: len(rows)]
            p_NxL[span, layer] = np.asarray(p_B)[: len(rows)]
    return rank_NxL, p_NxL


def earliest(rank_NxL: np.ndarray) -> np.ndarray:
    """The lowest layer, from 1, from which on the token stays on top; 0 where the last says other.

    A layer below that says it by chance and is contradicted by the next does not count.
    """
    top_NxL = rank_NxL == 0
    stays_NxL = np.logical_and.accumulate(top_NxL[:, ::-1], axis=1)[:, ::-1]
    return np.where(stays_NxL.any(1), stays_NxL.argmax(1) + 1, 0)


def of_answers(
    model: Model, adapters: Adapters | None, encoded: Sequence[Encoded]
) -> dict[str, Any]:
    """Figures of a set: by layer the share on top, the median rank and the mean probability.

    And `earliest`: by fact the layer from which on the answer stays on top, from 1; 0 for none.
    """
    rank_NxL, p_NxL = through_layers(model, adapters, encoded)
    return {
        "top": (rank_NxL == 0).mean(0).tolist(),
        "rank": np.median(rank_NxL, axis=0).tolist(),
        "p": p_NxL.mean(0).tolist(),
        "earliest": earliest(rank_NxL).tolist(),
    }
