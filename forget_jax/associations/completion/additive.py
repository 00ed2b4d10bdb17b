"""Additive completion: z[i, j] = mean + row effect + column effect, least squares or shrunken."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
STEPS = 100  # alternating steps; as many as the paper's `BaselineOnly` takes


class Effects(NamedTuple):
    mean: Array  # scalar
    row_T: Array
    column_N: Array


def effects(
    z_TxN: Array, known_TxN: Array, shrink_rows: Array | float, shrink_columns: Array | float
) -> Effects:
    """Row and column effects by alternating (shrunken) means over the known entries.

    An effect is the sum of what is left of its entries over (their number + shrink); shrink 0 is
    least squares, 15 for rows and 10 for columns are the paper's (scikit-surprise's ALS baselines).
    A row or column without known entries gets 0.
    """
    weight = known_TxN.astype(z_TxN.dtype)
    mean = jnp.where(known_TxN, z_TxN, 0).sum() / weight.sum()
    left = jnp.where(known_TxN, z_TxN - mean, 0)
    rows_T = jnp.maximum(weight.sum(1) + shrink_rows, 1e-9)
    columns_N = jnp.maximum(weight.sum(0) + shrink_columns, 1e-9)

    def step(_: int, row_T: Array) -> Array:
        column_N = (left.sum(0) - row_T @ weight) / columns_N
        return (left.sum(1) - weight @ column_N) / rows_T

    row_T = jax.lax.fori_loop(0, STEPS, step, jnp.zeros_like(rows_T))
    return Effects(mean, row_T, (left.sum(0) - row_T @ weight) / columns_N)


def fill(
    z_TxN: Array, known_TxN: Array, key: Array, *, shrink_rows: Array, shrink_columns: Array
) -> Array:
    """Mean + row effect + column effect, everywhere."""
    fit = effects(z_TxN, known_TxN, shrink_rows, shrink_columns)
    return fit.mean + fit.row_T[:, None] + fit.column_N


def prepare(z_MxN: Array, *, shrink_rows: Array | float, shrink_columns: Array | float) -> Any:
    """Row and column sums of the complete rows: all that the alternating means need."""
    return z_MxN.sum(1), z_MxN.sum(0)


def extended(
    state: Any,
    columns_S: Array,
    values_S: Array,
    *,
    shrink_rows: Array | float,
    shrink_columns: Array | float,
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

    def columns(row_M: Array, new: Array) -> Array:
        return (left_N - row_M.sum() - weight_N * new) / (m + weight_N + shrink_columns)

    def step(_: int, effect: tuple[Array, Array]) -> tuple[Array, Array]:
        column_N = columns(*effect)
        new = (left_new - weight_N @ column_N) / jnp.maximum(weight_N.sum() + shrink_rows, 1e-9)
        return (left_M - column_N.sum()) / (n + shrink_rows), new

    row_M, new = jax.lax.fori_loop(0, STEPS, step, (jnp.zeros_like(sum_M), jnp.zeros_like(mean)))
    return Effects(mean, row_M, columns(row_M, new)), new


def extend(
    state: Any,
    columns_S: Array,
    values_S: Array,
    key: Array,
    *,
    shrink_rows: Array,
    shrink_columns: Array,
) -> Array:
    """The same as appending the row and filling."""
    fit, new = extended(
        state, columns_S, values_S, shrink_rows=shrink_rows, shrink_columns=shrink_columns
    )
    return fit.mean + new + fit.column_N
