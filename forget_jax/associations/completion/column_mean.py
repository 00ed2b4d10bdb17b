"""Column means: what an example loses on average, plain or scaled by one number per task."""

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def _means(z_TxN: Array, known_TxN: Array) -> Array:
    """Mean of the known entries of each column; a column without any takes the grand mean."""
    zeroed = jnp.where(known_TxN, z_TxN, 0)
    count_N = known_TxN.sum(0)
    grand = zeroed.sum() / known_TxN.sum()
    return jnp.where(count_N > 0, zeroed.sum(0) / jnp.maximum(count_N, 1), grand)


def fill(z_TxN: Array, known_TxN: Array, key: Array) -> Array:
    """Every entry is its column's mean over the rows that know it."""
    return jnp.broadcast_to(_means(z_TxN, known_TxN), z_TxN.shape)


def prepare(z_MxN: Array) -> Any:
    """Column means of the complete rows."""
    return z_MxN.mean(0)


def extend(mean_N: Array, columns_S: Array, values_S: Array, key: Array) -> Array:
    """The new row is the column means: its own entries say nothing about the others."""
    return mean_N


def _scale(mean_N: Array, columns_S: Array, values_S: Array, shrink: Array) -> Array:
    """Least-squares factor of a row on the column means, drawn towards 1.

    `shrink` counts in typical entries: the prior weighs as much as that many of them.
    """
    weight = shrink * (mean_N**2).mean() + jnp.finfo(mean_N.dtype).tiny
    mean_S = jnp.where(jnp.isnan(values_S), 0, mean_N[columns_S])
    dot = (mean_S * jnp.nan_to_num(values_S)).sum()
    return (dot + weight) / ((mean_S**2).sum() + weight)


def fill_scaled(z_TxN: Array, known_TxN: Array, key: Array, *, shrink: Array) -> Array:
    """Every row is the column means times one number of its own."""
    mean_N = _means(z_TxN, known_TxN)
    values_TxN = jnp.where(known_TxN, z_TxN, jnp.nan)
    columns_N = jnp.arange(z_TxN.shape[1])
    scale_T = jax.vmap(lambda values: _scale(mean_N, columns_N, values, shrink))(values_TxN)
    return scale_T[:, None] * mean_N


def prepare_scaled(z_MxN: Array, *, shrink: Array) -> Any:
    """Column means of the complete rows."""
    return z_MxN.mean(0)


def extend_scaled(
    mean_N: Array, columns_S: Array, values_S: Array, key: Array, *, shrink: Array
) -> Array:
    """The new row is the column means times the factor its known entries suggest."""
    return _scale(mean_N, columns_S, values_S, shrink) * mean_N
