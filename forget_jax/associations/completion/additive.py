"""Additive completion: z[i, j] = mean + row effect + column effect, least squares or shrunken."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from forget_jax.associations.completion.linear import Mix, row
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


class Joint(NamedTuple):
    """Effects of train rows, columns and a new row, fitted together; of the columns as a rule.

    Attributes:
      mean: scalar, with the new row's entries.
      row_M, new: effects of the train rows and of the new row.
      column: a column's effect, as a mix of its entries; `added_S` makes it that of a probed one.
    """

    mean: Array
    row_M: Array
    new: Array
    column: Mix


def joint(sum_M: Array, n: int, z_MxS: Array, values_S: Array, options: Settings) -> Joint:
    """All effects, in O(M + S) a step: of complete train rows only sums matter.

    Args:
      sum_M: of the train rows over all their n columns.
      z_MxS: their probed columns.
      values_S: of the new row; NaN where not known.
    """
    m = sum_M.shape[0]
    weight_S = (~jnp.isnan(values_S)).astype(sum_M.dtype)
    count = weight_S.sum()
    mean = (sum_M.sum() + jnp.nan_to_num(values_S).sum()) / (m * n + count)
    left_M = sum_M - n * mean
    new_S = jnp.where(weight_S > 0, values_S - mean, 0)
    free_S = z_MxS.sum(0) - m * mean  # what a column has, without the new row
    share = 1 / (m + options.shrink_columns)
    share_known = 1 / (m + 1 + options.shrink_columns)

    # A step needs of the column effects only two sums, which are linear in what the rows have.
    held = (weight_S * (free_S + new_S)).sum() * share_known
    sums = (
        left_M.sum() * share - (weight_S * free_S).sum() * share + held,
        n * share + count * (share_known - share),
        count * share_known,
    )
    known_sums = held, count * share_known, count * share_known

    def rows(total: Array, new: Array) -> tuple[Array, Array]:
        in_all, in_known = (x[0] - total * x[1] - new * x[2] for x in (sums, known_sums))
        known = jnp.maximum(count + options.shrink_rows, 1e-9)
        return (left_M - in_all) / (n + options.shrink_rows), (new_S.sum() - in_known) / known

    def step(_: int, effect: tuple[Array, Array]) -> tuple[Array, Array]:
        row_M, new = rows(*effect)
        return row_M.sum(), new

    nothing = jnp.zeros_like(mean)
    effect = jax.lax.fori_loop(0, STEPS - 1, step, (nothing, nothing))
    row_M, new = rows(*effect)
    total = row_M.sum()
    probed_S = (free_S + new_S - total - new) * share_known
    column = Mix(
        jnp.full_like(sum_M, share),
        -(m * mean + total) * share,
        weight_S * (probed_S - (free_S - total) * share),
    )
    return Joint(mean, row_M, new, column)


def mixed(found: Joint) -> Mix:
    """The new row: mean + its effect + each column's."""
    return found.column._replace(constant=found.column.constant + found.mean + found.new)


def prepare(z_MxN: Array, options: Any = None) -> Array:
    """The complete rows as they are."""
    return z_MxN


def extend(z_MxN: Array, columns_S: Array, values_S: Array, key: Array, options: Settings) -> Array:
    """The same as appending the row and filling."""
    found = joint(z_MxN.sum(1), z_MxN.shape[1], z_MxN[:, columns_S], values_S, options)
    return row(mixed(found), z_MxN, columns_S)
