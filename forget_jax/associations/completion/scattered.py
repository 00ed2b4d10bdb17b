"""`auto` where entries are known here and there: candidates are weighed on entries held out.

No row can be left out and seen at a few probes there: every row knows few entries itself. So a
tenth of the known entries is hidden, the candidates (`variational` of three ranks, ALS, the
additive model) estimate them from the others, and are combined by the weights of `auto` with the
least squared error on them. Small matrices do so several times.
"""

import jax
import jax.numpy as jnp

from forget_jax.associations.completion import additive, als, variational
from forget_jax.associations.completion.weights import weigh

Array = jax.Array
SHARE = 0.1  # of the known entries, hidden at a time
FOLDS, LARGE = 5, 200_000  # folds of matrices of fewer entries; others have one
RANKS = (1, 4, 10)
ADDITIVE = additive.Settings(5.0, 5.0)


def _ranks(rank: int) -> list[int]:
    return sorted({min(r, rank) for r in RANKS})


def _estimates(z_MxN: Array, known_MxN: Array, key: Array, rank: int) -> Array:
    """C × M × N estimates by every candidate."""
    found = [
        *(variational.fill(z_MxN, known_MxN, key, variational.Settings(r)) for r in _ranks(rank)),
        als.fill(z_MxN, known_MxN, key, als.Settings(min(5, rank))),
        additive.fill(z_MxN, known_MxN, key, ADDITIVE),
    ]
    return jnp.stack(found)


def fill(z_MxN: Array, known_MxN: Array, key: Array, rank: int) -> Array:
    """Every entry, by the candidates' weighted mean.

    Args:
      rank: the most factors of a candidate.
    """
    folds = FOLDS if z_MxN.size < LARGE else 1
    order = jax.random.uniform(key, z_MxN.shape)

    def fold(_: Array, i: Array) -> tuple[Array, Array]:
        """Estimates with the i-th part hidden, and their errors' products; the last hides none."""
        hidden = known_MxN & (order >= i * SHARE) & (order < (i + 1) * SHARE) & (i < folds)
        estimates = _estimates(jnp.where(hidden, 0, z_MxN), known_MxN & ~hidden, key, rank)
        error_CxMxN = jnp.where(hidden, estimates - z_MxN, 0)
        error = error_CxMxN.reshape(error_CxMxN.shape[0], -1)
        return estimates, error @ error.T / jnp.maximum(hidden.sum(), 1)

    candidates = len(_ranks(rank)) + 2
    nothing = jnp.zeros((candidates, *z_MxN.shape), z_MxN.dtype)
    estimates, products = jax.lax.scan(fold, nothing, jnp.arange(folds + 1))
    weight_C = weigh(products[:-1], jnp.full(candidates, 1 / candidates))
    return jnp.where(weight_C[:, None, None] > 0, weight_C[:, None, None] * estimates, 0).sum(0)
