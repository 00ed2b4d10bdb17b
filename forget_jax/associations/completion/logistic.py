"""Logistic completion of a binary matrix: factors, or row and column effects, of the log odds.

Entries are 1 (forgotten) or 0; estimates are probabilities. The objective is the paper's: maximise
Σ over known entries of y log σ(x) + (1 − y) log(1 − σ(x)), less reg · (‖W‖² + ‖H‖²), by full-batch
gradient ascent, columns then rows.
"""

import jax
import jax.numpy as jnp

from forget_jax.associations.completion.settings import settings

Array = jax.Array


@settings
class Settings:
    """Factors: their number, learning rate, penalty, first deviation, and steps of the ascent."""

    rank: int = 5
    rate: Array | float = 0.001
    reg: Array | float = 0.05
    spread: Array | float = 0.005
    steps: int = 5000


@settings
class Additive:
    """Effects: learning rate, penalty, first deviation, and steps of the ascent."""

    rate: Array | float = 0.001
    reg: Array | float = 0.05
    spread: Array | float = 1.0
    steps: int = 5000


def fill(z_MxN: Array, known_MxN: Array, key: Array, options: Settings) -> Array:
    """Log odds are row factors · column factors, both started from N(0, spread²)."""
    m, n = z_MxN.shape
    start = options.spread * jax.random.normal(key, (m + n, options.rank), z_MxN.dtype)

    def slope(row_Mxr: Array, column_Nxr: Array) -> Array:
        return jnp.where(known_MxN, z_MxN - jax.nn.sigmoid(row_Mxr @ column_Nxr.T), 0)

    def step(_: int, factors: tuple[Array, Array]) -> tuple[Array, Array]:
        row, column = factors
        column = column + options.rate * (slope(row, column).T @ row - 2 * options.reg * column)
        row = row + options.rate * (slope(row, column) @ column - 2 * options.reg * row)
        return row, column

    row, column = jax.lax.fori_loop(0, options.steps, step, (start[:m], start[m:]))
    return jax.nn.sigmoid(row @ column.T)


def fill_additive(z_MxN: Array, known_MxN: Array, key: Array, options: Additive) -> Array:
    """Log odds are a row effect + a column effect, both started from N(0, spread²)."""
    m, n = z_MxN.shape
    start = options.spread * jax.random.normal(key, (m + n,), z_MxN.dtype)

    def slope(row_M: Array, column_N: Array) -> Array:
        return jnp.where(known_MxN, z_MxN - jax.nn.sigmoid(row_M[:, None] + column_N), 0)

    def step(_: int, effects: tuple[Array, Array]) -> tuple[Array, Array]:
        row, column = effects
        column = column + options.rate * (slope(row, column).sum(0) - 2 * options.reg * column)
        row = row + options.rate * (slope(row, column).sum(1) - 2 * options.reg * row)
        return row, column

    row, column = jax.lax.fori_loop(0, options.steps, step, (start[:m], start[m:]))
    return jax.nn.sigmoid(row[:, None] + column)
