"""Matrix factorisation by per-entry stochastic gradient descent, as the paper ran it.

scikit-surprise's `SVD`, and its SGD baselines as rank 0: entries are visited row by row, in every
epoch in the same order. The order is kept exactly, and yet whole diagonals are updated at once: the
update of entry (i, j) needs only row i after (i, j − 1) and column j after (i − 1, j), so row i can
work on column t − i at time t while the columns move from row to row, epoch after epoch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Factors(NamedTuple):
    mean: Array
    row_Txk: Array  # [b, p]
    column_Nxk: Array  # [c, q]


def descend(
    z_TxN: Array,
    known_TxN: Array,
    start_TxR: Array,
    start_NxR: Array,
    *,
    rate: Array | float,
    reg: Array | float,
    epochs: int,
) -> Factors:
    """Biases and factors after `epochs` passes over the known entries, row by row.

    Args:
      z_TxN: values; what unknown entries hold is not used, but must be finite.
      known_TxN: boolean.
      start_TxR, start_NxR: first row and column factors; R may be 0. Biases start at 0.
      rate: learning rate of biases and factors.
      reg: penalty of both, applied at every entry.
      epochs: passes.
    """
    t, n = z_TxN.shape
    period = max(t, n)
    mean = jnp.where(known_TxN, z_TxN, 0).sum() / known_TxN.sum()

    lane_T = jnp.arange(t)
    column_PxT = (jnp.arange(period)[:, None] - lane_T) % period
    inside_PxT = column_PxT < n
    column_PxT = jnp.minimum(column_PxT, n - 1)
    left_PxT = jnp.where(inside_PxT, z_TxN[lane_T, column_PxT] - mean, 0)
    weight_PxT = (inside_PxT & known_TxN[lane_T, column_PxT]).astype(z_TxN.dtype)

    def biased(factors: Array) -> Array:
        return jnp.concatenate([jnp.zeros_like(factors, shape=(len(factors), 1)), factors], 1)

    rows, columns = biased(start_TxR), biased(start_NxR)
    waiting_Pxk = jnp.zeros_like(columns, shape=(period, columns.shape[1])).at[:n].set(columns)
    moving_Txk = waiting_Pxk[(-1 - lane_T) % period]

    def step(time: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rows, moving, waiting = state
        now = time % period
        entering = jax.lax.dynamic_slice_in_dim(waiting, now, 1)
        moving = jnp.concatenate([entering, moving[:-1]])
        active_T = (time >= lane_T) & (time - lane_T < epochs * period)
        weight = (rate * weight_PxT[now] * active_T)[:, None]
        dot = (rows[:, 1:] * moving[:, 1:]).sum(1) + rows[:, 0] + moving[:, 0]
        error = (left_PxT[now] - dot)[:, None]
        # Biases move by the error itself, factors by the error times the other side.
        to_rows, to_moving = error * moving.at[:, 0].set(1), error * rows.at[:, 0].set(1)
        rows, moving = (
            rows + weight * (to_rows - reg * rows),
            moving + weight * (to_moving - reg * moving),
        )
        leaving = (time - t + 1) % period
        waiting = jax.lax.dynamic_update_slice_in_dim(waiting, moving[-1:], leaving, 0)
        return rows, moving, waiting

    end = epochs * period + t - 1
    state = (rows, moving_Txk, waiting_Pxk)
    rows, moving, waiting = jax.lax.fori_loop(0, end, step, state)
    waiting = waiting.at[(end - 1 - lane_T) % period].set(moving)
    return Factors(mean, rows, waiting[:n])


def predicted(fit: Factors) -> Array:
    """T × N estimates of the factors."""
    return fit.mean + fit.row_Txk[:, :1] + fit.row_Txk.at[:, 0].set(1) @ fit.column_Nxk.T


def fill(
    z_TxN: Array,
    known_TxN: Array,
    key: Array,
    *,
    rank: int,
    rate: Array,
    reg: Array,
    spread: Array,
    epochs: int,
) -> Array:
    """The paper's "MF": factors start from N(0, spread²)."""
    t, n = z_TxN.shape
    start = spread * jax.random.normal(key, (t + n, rank), z_TxN.dtype)
    fit = descend(z_TxN, known_TxN, start[:t], start[t:], rate=rate, reg=reg, epochs=epochs)
    return predicted(fit)


def effects(
    z_TxN: Array, known_TxN: Array, rate: Array | float, reg: Array | float, epochs: int
) -> Factors:
    """The paper's baselines: biases alone."""
    none = jnp.zeros_like(z_TxN, shape=(0, 0))
    t, n = z_TxN.shape
    return descend(
        z_TxN,
        known_TxN,
        jnp.zeros_like(none, shape=(t, 0)),
        jnp.zeros_like(none, shape=(n, 0)),
        rate=rate,
        reg=reg,
        epochs=epochs,
    )


def fill_additive(
    z_TxN: Array, known_TxN: Array, key: Array, *, rate: Array, reg: Array, epochs: int
) -> Array:
    """The paper's "additive": mean + row bias + column bias."""
    return predicted(effects(z_TxN, known_TxN, rate, reg, epochs))
