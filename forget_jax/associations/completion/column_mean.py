"""Column means: what an example loses on average, plain or scaled by one number per task."""

from typing import Any

import jax
import jax.numpy as jnp

from forget_jax.associations.completion.settings import settings

Array = jax.Array


@settings
class Plain:
    """Column means have no settings."""


@settings
class Scaled:
    """Settings of the scaled means; see `scale`."""

    shrink: Array | float = 3.0


def _means(z_MxN: Array, known_MxN: Array) -> Array:
    """Mean of the known entries of each column; a column without any takes the grand mean."""
    zeroed = jnp.where(known_MxN, z_MxN, 0)
    count_N = known_MxN.sum(0)
    grand = zeroed.sum() / known_MxN.sum()
    return jnp.where(count_N > 0, zeroed.sum(0) / jnp.maximum(count_N, 1), grand)


def fill(z_MxN: Array, known_MxN: Array, key: Array, options: Plain) -> Array:
    """Every entry is its column's mean over the rows that know it."""
    return jnp.broadcast_to(_means(z_MxN, known_MxN), z_MxN.shape)


def prepare(z_MxN: Array, options: Any) -> Array:
    """Column means (N) of the complete rows."""
    return z_MxN.mean(0)


def extend(mean_N: Array, columns_S: Array, values_S: Array, key: Array, options: Plain) -> Array:
    """The new row is the column means: its own entries say nothing about the others."""
    return mean_N


def scale(mean_S: Array, values_S: Array, square: Array, shrink: Array | float) -> Array:
    """Least-squares factor of a row on the column means, drawn towards 1.

    `shrink` counts in typical entries, of mean square `square`: the prior weighs as much as that
    many of them.
    """
    weight = shrink * square + jnp.finfo(mean_S.dtype).tiny
    mean_S = jnp.where(jnp.isnan(values_S), 0, mean_S)
    dot = (mean_S * jnp.nan_to_num(values_S)).sum()
    return (dot + weight) / ((mean_S**2).sum() + weight)


def fill_scaled(z_MxN: Array, known_MxN: Array, key: Array, options: Scaled) -> Array:
    """Every row is the column means times one number of its own."""
    mean_N = _means(z_MxN, known_MxN)
    values_MxN = jnp.where(known_MxN, z_MxN, jnp.nan)
    square = (mean_N**2).mean()
    scale_M = jax.vmap(lambda values_N: scale(mean_N, values_N, square, options.shrink))(values_MxN)
    return scale_M[:, None] * mean_N


def extend_scaled(
    mean_N: Array, columns_S: Array, values_S: Array, key: Array, options: Scaled
) -> Array:
    """The new row is the column means times the factor its known entries suggest."""
    return scale(mean_N[columns_S], values_S, (mean_N**2).mean(), options.shrink) * mean_N
