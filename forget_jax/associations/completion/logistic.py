"""Logistic completion of a binary matrix: factors, or row and column effects, of the log odds.

Entries are 1 (forgotten) or 0; estimates are probabilities. The objective is the paper's: maximise
Σ over known entries of y log σ(x) + (1 − y) log(1 − σ(x)), less reg · (‖W‖² + ‖H‖²), by full-batch
gradient ascent, columns then rows.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def fill(
    z_TxN: Array,
    known_TxN: Array,
    key: Array,
    *,
    rank: int,
    rate: Array,
    reg: Array,
    spread: Array,
    steps: int,
) -> Array:
    """Log odds are row factors · column factors, both started from N(0, spread²)."""
    t, n = z_TxN.shape
    start = spread * jax.random.normal(key, (t + n, rank), z_TxN.dtype)

    def slope(row_TxR: Array, column_NxR: Array) -> Array:
        return jnp.where(known_TxN, z_TxN - jax.nn.sigmoid(row_TxR @ column_NxR.T), 0)

    def step(_: int, factors: tuple[Array, Array]) -> tuple[Array, Array]:
        row, column = factors
        column = column + rate * (slope(row, column).T @ row - 2 * reg * column)
        row = row + rate * (slope(row, column) @ column - 2 * reg * row)
        return row, column

    row, column = jax.lax.fori_loop(0, steps, step, (start[:t], start[t:]))
    return jax.nn.sigmoid(row @ column.T)


def fill_additive(
    z_TxN: Array,
    known_TxN: Array,
    key: Array,
    *,
    rate: Array,
    reg: Array,
    spread: Array,
    steps: int,
) -> Array:
    """Log odds are a row effect + a column effect, both started from N(0, spread²)."""
    t, n = z_TxN.shape
    start = spread * jax.random.normal(key, (t + n,), z_TxN.dtype)

    def slope(row_T: Array, column_N: Array) -> Array:
        return jnp.where(known_TxN, z_TxN - jax.nn.sigmoid(row_T[:, None] + column_N), 0)

    def step(_: int, effects: tuple[Array, Array]) -> tuple[Array, Array]:
        row, column = effects
        column = column + rate * (slope(row, column).sum(0) - 2 * reg * column)
        row = row + rate * (slope(row, column).sum(1) - 2 * reg * row)
        return row, column

    row, column = jax.lax.fori_loop(0, steps, step, (start[:t], start[t:]))
    return jax.nn.sigmoid(row[:, None] + column)
