"""Additive completion: z[i, j] = mean + row effect + column effect, least squares or shrunken."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from forget_jax.associations.completion.settings import settings

Array = jax.Array
STEPS = 100  # alternating steps; as many as the paper's `BaselineOnly` takes


@settings
class Settings:
    """How much row and column effects are shrunken; see `effects`."""

    shrink_rows: Array | float = 0.0
    shrink_columns: Array | float = 0.0


class Effects(NamedTuple):
    mean: Array  # scalar
    row_M: Array
    column_N: Array


def effects(z_MxN: Array, known_MxN: Array, options: Settings) -> Effects:
    """Row and column effects by alternating (shrunken) means over the known entries.

    An effect is the sum of what is left of its entries over (their number + shrink); shrink 0 is
    least squares, 15 for rows and 10 for columns are the paper's (scikit-surprise's ALS baselines).
    A row or column without known entries gets 0.
    """
    weight = known_MxN.astype(z_MxN.dtype)
    mean = jnp.where(known_MxN, z_MxN, 0).sum() / weight.sum()
    left = jnp.where(known_MxN, z_MxN - mean, 0)
    rows_M = jnp.maximum(weight.sum(1) + options.shrink_rows, 1e-9)
    columns_N = jnp.maximum(weight.sum(0) + options.shrink_columns, 1e-9)

    def step(_: int, row_M: Array) -> Array:
        column_N = (left.sum(0) - row_M @ weight) / columns_N
        return (left.sum(1) - weight @ column_N) / rows_M

    row_M = jax.lax.fori_loop(0, STEPS, step, jnp.zeros_like(rows_M))
    return Effects(mean, row_M, (left.sum(0) - row_M @ weight) / columns_N)


def fill(z_MxN: Array, known_MxN: Array, key: Array, options: Settings) -> Array:
    """Mean + row effect + column effect, everywhere."""
    fit = effects(z_MxN, known_MxN, options)
    return fit.mean + fit.row_M[:, None] + fit.column_N


def prepare(z_MxN: Array, options: Any = None) -> tuple[Array, Array]:
    """Row (M) and column (N) sums of the complete rows: all that the alternating means need."""
    return z_MxN.sum(1), z_MxN.sum(0)


def extended(
    state: tuple[Array, Array], columns_S: Array, values_S: Array, options: Settings
) -> tuple[Effects, Array]:
    """The train rows' and columns' effects, and the new row's, all fitted together.

    In O(M + N) a step: of complete train rows only the sums matter.
    """
    sum_M, sum_N = state
    m, n = sum_M.shape[0], sum_N.shape[0]
    weight_N = jnp.zeros_like(sum_N).at[columns_S].add(~jnp.isnan(values_S))
    new_N = jnp.zeros_like(sum_N).at[columns_S].add(jnp.nan_to_num(values_S))
    mean = (sum_N.sum() + new_N.sum()) / (m * n + weight_N.sum())
    left_M = sum_M - n * mean
    left_N = sum_N - m * mean + new_N - weight_N * mean
    left_new = (new_N - weight_N * mean).sum()
    share_N = 1 / (m + weight_N + options.shrink_columns)
    known_N = weight_N * share_N

    # A step needs of the column effects only two sums, which are linear in what the rows have.
    sums = (left_N * share_N).sum(), share_N.sum(), known_N.sum()
    known_sums = (left_N * known_N).sum(), known_N.sum(), (weight_N * known_N).sum()

    def rows(total: Array, new: Array) -> tuple[Array, Array]:
        in_all, in_known = (x[0] - total * x[1] - new * x[2] for x in (sums, known_sums))
        count = jnp.maximum(weight_N.sum() + options.shrink_rows, 1e-9)
        return (left_M - in_all) / (n + options.shrink_rows), (left_new - in_known) / count

    def step(_: int, effect: tuple[Array, Array]) -> tuple[Array, Array]:
        row_M, new = rows(*effect)
        return row_M.sum(), new

    nothing = jnp.zeros_like(mean)
    effect = jax.lax.fori_loop(0, STEPS - 1, step, (nothing, nothing))
    row_M, new = rows(*effect)
    return Effects(mean, row_M, (left_N - row_M.sum() - weight_N * new) * share_N), new


def extend(
    state: tuple[Array, Array], columns_S: Array, values_S: Array, key: Array, options: Settings
) -> Array:
    """The same as appending the row and filling."""
    fit, new = extended(state, columns_S, values_S, options)
    return fit.mean + new + fit.column_N
