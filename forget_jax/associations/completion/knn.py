"""Nearest neighbours with baselines: the new task's residual is a mean of similar tasks' residuals.

ẑ[i, j] = baseline[i, j] + Σ s[i, k] (z[k, j] − baseline[k, j]) / Σ s[i, k] over the rows k nearest
to i, at most `neighbours`, among those that know column j; s = 1 / (width + mean squared difference
over the columns both know). Width 1 is scikit-surprise's `KNNBaseline`, the paper's own; since
squared differences of forgetting are far below 1 that is nearly a plain mean, and smaller widths
tell tasks apart.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from forget_jax.associations.completion import additive, sgd

Array = jax.Array


def _distances(z_TxN: Array, known_TxN: Array) -> Array:
    """T × T mean squared differences over common entries; infinite where there are none."""
    weight = known_TxN.astype(z_TxN.dtype)
    zeroed = jnp.where(known_TxN, z_TxN, 0)
    square = (zeroed**2) @ weight.T
    total = square + square.T - 2 * zeroed @ zeroed.T
    count = weight @ weight.T
    return jnp.where(count > 0, jnp.maximum(total, 0) / jnp.maximum(count, 1), jnp.inf)


def _fill(z_TxN: Array, known_TxN: Array, base_TxN: Array, width: Array, neighbours: int) -> Array:
    left = jnp.where(known_TxN, z_TxN - base_TxN, 0)
    similar_TxT = 1 / (width + _distances(z_TxN, known_TxN))
    similar_TxT = jnp.where(jnp.eye(z_TxN.shape[0], dtype=bool), 0, similar_TxT)

    def one(row: tuple[Array, Array]) -> Array:
        base_N, similar_T = row
        order = jnp.argsort(-similar_T)
        known = known_TxN[order] & (similar_T[order] > 0)[:, None]
        near = known & (jnp.cumsum(known, 0) <= neighbours)
        weight = near * similar_T[order][:, None]
        total = weight.sum(0)
        return base_N + jnp.where(total > 0, (weight * left[order]).sum(0), 0) / jnp.where(
            total > 0, total, 1
        )

    return jax.lax.map(one, (base_TxN, similar_TxT))


def fill(
    z_TxN: Array, known_TxN: Array, key: Array, *, neighbours: int, width: Array, shrink: Array
) -> Array:
    """Any missing entries; baselines are (shrunken) least-squares effects."""
    fit = additive.effects(z_TxN, known_TxN, shrink, shrink)
    base = fit.mean + fit.row_T[:, None] + fit.column_N
    return _fill(z_TxN, known_TxN, base, width, neighbours)


def fill_sgd(
    z_TxN: Array,
    known_TxN: Array,
    key: Array,
    *,
    neighbours: int,
    width: Array,
    rate: Array,
    reg: Array,
    epochs: int,
) -> Array:
    """The paper's own: baselines by stochastic gradient descent."""
    base = sgd.predicted(sgd.effects(z_TxN, known_TxN, rate, reg, epochs))
    return _fill(z_TxN, known_TxN, base, width, neighbours)


class Prepared(NamedTuple):
    z_MxN: Array
    sums: Any


def prepare(z_MxN: Array, *, neighbours: int, width: Array, shrink: Array) -> Prepared:
    """The complete train rows and their sums."""
    return Prepared(z_MxN, additive.prepare(z_MxN, shrink_rows=shrink, shrink_columns=shrink))


def extend(
    state: Prepared,
    columns_S: Array,
    values_S: Array,
    key: Array,
    *,
    neighbours: int,
    width: Array,
    shrink: Array,
) -> Array:
    """The same as appending and filling: distances come from the known entries alone."""
    z_MxN = state.z_MxN
    known_S = ~jnp.isnan(values_S)
    base, new = additive.extended(
        state.sums, columns_S, values_S, shrink_rows=shrink, shrink_columns=shrink
    )
    square_M = jnp.where(known_S, (z_MxN[:, columns_S] - values_S) ** 2, 0).sum(1)
    similar_M = jnp.where(known_S.any(), 1 / (width + square_M / jnp.maximum(known_S.sum(), 1)), 0)
    nearest = jnp.argsort(-similar_M)[:neighbours]
    weight_M = jnp.zeros_like(similar_M).at[nearest].set(similar_M[nearest])
    weight_M = weight_M / jnp.maximum(weight_M.sum(), 1e-30)
    left_N = weight_M @ z_MxN - weight_M @ (base.mean + base.row_T) - weight_M.sum() * base.column_N
    return base.mean + new + base.column_N + left_N
