"""Nearest neighbours with baselines: the new task's residual is a mean of similar tasks' residuals.

ẑ[i, j] = baseline[i, j] + Σ s[i, k] (z[k, j] − baseline[k, j]) / Σ s[i, k] over the rows k nearest
to i, at most `neighbours`, among those that know column j; s = 1 / (width + mean squared difference
over the columns both know). Width 1 is scikit-surprise's `KNNBaseline`, the paper's own; since
squared differences of forgetting are far below 1 that is nearly a plain mean, and smaller widths
tell tasks apart.
"""

import jax
import jax.numpy as jnp

from forget_jax.associations.completion import additive, linear, sgd
from forget_jax.associations.completion.settings import settings

Array = jax.Array


@settings
class Settings:
    """Neighbours, the width of the similarity, and the shrinkage of the baselines' effects."""

    neighbours: int = 40
    width: Array | float = 1.0
    shrink: Array | float = 0.0

    @property
    def baseline(self) -> additive.Settings:
        """Settings of the additive baselines."""
        return additive.Settings(self.shrink, self.shrink)


@settings
class Descended:
    """Neighbours and width, and how baselines are descended to."""

    neighbours: int = 40
    width: Array | float = 1.0
    rate: Array | float = 0.005
    reg: Array | float = 0.02
    epochs: int = 1000


def _distances(z_MxN: Array, known_MxN: Array) -> Array:
    """M × M mean squared differences over common entries; infinite where there are none."""
    weight = known_MxN.astype(z_MxN.dtype)
    zeroed = jnp.where(known_MxN, z_MxN, 0)
    square = (zeroed**2) @ weight.T
    total = square + square.T - 2 * zeroed @ zeroed.T
    count = weight @ weight.T
    return jnp.where(count > 0, jnp.maximum(total, 0) / jnp.maximum(count, 1), jnp.inf)


def _fill(z_MxN: Array, known_MxN: Array, base_MxN: Array, options: Settings | Descended) -> Array:
    left = jnp.where(known_MxN, z_MxN - base_MxN, 0)
    similar_MxM = 1 / (options.width + _distances(z_MxN, known_MxN))
    similar_MxM = jnp.where(jnp.eye(z_MxN.shape[0], dtype=bool), 0, similar_MxM)

    def one(row: tuple[Array, Array]) -> Array:
        base_N, similar_M = row
        order = jnp.argsort(-similar_M)
        known = known_MxN[order] & (similar_M[order] > 0)[:, None]
        near = known & (jnp.cumsum(known, 0) <= options.neighbours)
        weight = near * similar_M[order][:, None]
        total = weight.sum(0)
        return base_N + jnp.where(total > 0, (weight * left[order]).sum(0), 0) / jnp.where(
            total > 0, total, 1
        )

    return jax.lax.map(one, (base_MxN, similar_MxM))


def fill(z_MxN: Array, known_MxN: Array, key: Array, options: Settings) -> Array:
    """Any missing entries; baselines are (shrunken) least-squares effects."""
    fit = additive.effects(z_MxN, known_MxN, options.baseline)
    base = fit.mean + fit.row_M[:, None] + fit.column_N
    return _fill(z_MxN, known_MxN, base, options)


def fill_sgd(z_MxN: Array, known_MxN: Array, key: Array, options: Descended) -> Array:
    """The paper's own: baselines by stochastic gradient descent."""
    descent = sgd.Additive(options.rate, options.reg, options.epochs)
    base = sgd.predicted(sgd.effects(z_MxN, known_MxN, descent))
    return _fill(z_MxN, known_MxN, base, options)


def prepare(z_MxN: Array, options: Settings) -> Array:
    """The complete train rows as they are."""
    return z_MxN


def mixed(z_MxS: Array, values_S: Array, base: additive.Joint, options: Settings) -> linear.Mix:
    """The new row from its baselines and its neighbours' residuals.

    Args:
      z_MxS: the probed columns of the complete train rows.
      values_S: of the new row; NaN where not known.
      base: effects of all rows, under `options.baseline`.
    """
    known_S = ~jnp.isnan(values_S)
    square_M = jnp.where(known_S, (z_MxS - values_S) ** 2, 0).sum(1)
    distance_M = square_M / jnp.maximum(known_S.sum(), 1)
    similar_M = jnp.where(known_S.any(), 1 / (options.width + distance_M), 0)
    nearest = jnp.argsort(-similar_M)[: options.neighbours]
    weight_M = jnp.zeros_like(similar_M).at[nearest].set(similar_M[nearest])
    weight_M = weight_M / jnp.maximum(weight_M.sum(), 1e-30)
    rest = 1 - weight_M.sum()  # of the column's effect, which the neighbours' residuals lack
    return linear.Mix(
        weight_M + rest * base.column.mix_M,
        base.mean + base.new - weight_M @ (base.mean + base.row_M) + rest * base.column.constant,
        rest * base.column.added_S,
    )


def extend(z_MxN: Array, columns_S: Array, values_S: Array, key: Array, options: Settings) -> Array:
    """The same as appending and filling: distances come from the known entries alone."""
    z_MxS = z_MxN[:, columns_S]
    base = additive.joint(z_MxN.sum(1), z_MxN.shape[1], z_MxS, values_S, options.baseline)
    return linear.row(mixed(z_MxS, values_S, base, options), z_MxN, columns_S)
