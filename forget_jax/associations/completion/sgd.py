"""Matrix factorisation by per-entry stochastic gradient descent, as the paper ran it.

scikit-surprise's `SVD`, and its SGD baselines as rank 0: entries are visited row by row, in every
epoch in the same order. The order is kept exactly, and yet whole diagonals are updated at once: the
update of entry (i, j) needs only row i after (i, j − 1) and column j after (i − 1, j), so row i can
work on column t − i at time t while the columns move from row to row, epoch after epoch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from forget_jax.associations.completion.settings import settings

Array = jax.Array


@settings
class Settings:
    """Factors: their number, learning rate, penalty, first deviation, and passes."""

    rank: int = 5
    rate: Array | float = 0.005
    reg: Array | float = 0.0
    spread: Array | float = 0.001
    epochs: int = 1000


@settings
class Additive:
    """Biases alone: learning rate, penalty, and passes."""

    rate: Array | float = 0.005
    reg: Array | float = 0.02
    epochs: int = 1000


class Factors(NamedTuple):
    mean: Array
    row_Mxk: Array  # [b, p]
    column_Nxk: Array  # [c, q]


def descend(
    z_MxN: Array,
    known_MxN: Array,
    start_Mxr: Array,
    start_Nxr: Array,
    *,
    rate: Array | float,
    reg: Array | float,
    epochs: int,
) -> Factors:
    """Biases and factors after `epochs` passes over the known entries, row by row.

    Args:
      z_MxN: values; what unknown entries hold is not used, but must be finite.
      known_MxN: boolean.
      start_Mxr, start_Nxr: first row and column factors; r may be 0. Biases start at 0.
      rate: learning rate of biases and factors.
      reg: penalty of both, applied at every entry.
      epochs: passes.
    """
    m, n = z_MxN.shape
    period = max(m, n)
    mean = jnp.where(known_MxN, z_MxN, 0).sum() / known_MxN.sum()

    lane_M = jnp.arange(m)
    column_LxM = (jnp.arange(period)[:, None] - lane_M) % period
    inside_LxM = column_LxM < n
    column_LxM = jnp.minimum(column_LxM, n - 1)
    left_LxM = jnp.where(inside_LxM, z_MxN[lane_M, column_LxM] - mean, 0)
    weight_LxM = (inside_LxM & known_MxN[lane_M, column_LxM]).astype(z_MxN.dtype)

    def biased(factors: Array) -> Array:
        return jnp.concatenate([jnp.zeros_like(factors, shape=(len(factors), 1)), factors], 1)

    rows, columns = biased(start_Mxr), biased(start_Nxr)
    waiting_Lxk = jnp.zeros_like(columns, shape=(period, columns.shape[1])).at[:n].set(columns)
    moving_Mxk = waiting_Lxk[(-1 - lane_M) % period]

    def step(time: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rows, moving, waiting = state
        now = time % period
        entering = jax.lax.dynamic_slice_in_dim(waiting, now, 1)
        moving = jnp.concatenate([entering, moving[:-1]])
        active_M = (time >= lane_M) & (time - lane_M < epochs * period)
        weight = (rate * weight_LxM[now] * active_M)[:, None]
        dot = (rows[:, 1:] * moving[:, 1:]).sum(1) + rows[:, 0] + moving[:, 0]
        error = (left_LxM[now] - dot)[:, None]
        # Biases move by the error itself, factors by the error times the other side.
        to_rows, to_moving = error * moving.at[:, 0].set(1), error * rows.at[:, 0].set(1)
        rows, moving = (
            rows + weight * (to_rows - reg * rows),
            moving + weight * (to_moving - reg * moving),
        )
        leaving = (time - m + 1) % period
        waiting = jax.lax.dynamic_update_slice_in_dim(waiting, moving[-1:], leaving, 0)
        return rows, moving, waiting

    end = epochs * period + m - 1
    state = (rows, moving_Mxk, waiting_Lxk)
    rows, moving, waiting = jax.lax.fori_loop(0, end, step, state)
    waiting = waiting.at[(end - 1 - lane_M) % period].set(moving)
    return Factors(mean, rows, waiting[:n])


def predicted(fit: Factors) -> Array:
    """M × N estimates of the factors."""
    return fit.mean + fit.row_Mxk[:, :1] + fit.row_Mxk.at[:, 0].set(1) @ fit.column_Nxk.T


def fill(z_MxN: Array, known_MxN: Array, key: Array, options: Settings) -> Array:
    """The paper's "MF": factors start from N(0, spread²)."""
    m, n = z_MxN.shape
    start = options.spread * jax.random.normal(key, (m + n, options.rank), z_MxN.dtype)
    fit = descend(
        z_MxN,
        known_MxN,
        start[:m],
        start[m:],
        rate=options.rate,
        reg=options.reg,
        epochs=options.epochs,
    )
    return predicted(fit)


def effects(z_MxN: Array, known_MxN: Array, options: Additive) -> Factors:
    """The paper's baselines: biases alone."""
    none = jnp.zeros_like(z_MxN, shape=(0, 0))
    m, n = z_MxN.shape
    return descend(
        z_MxN,
        known_MxN,
        jnp.zeros_like(none, shape=(m, 0)),
        jnp.zeros_like(none, shape=(n, 0)),
        rate=options.rate,
        reg=options.reg,
        epochs=options.epochs,
    )


def fill_additive(z_MxN: Array, known_MxN: Array, key: Array, options: Additive) -> Array:
    """The paper's "additive": mean + row bias + column bias."""
    return predicted(effects(z_MxN, known_MxN, options))
