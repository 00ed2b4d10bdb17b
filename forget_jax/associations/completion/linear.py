"""A new row as a mix of the train rows: what needs no pass over the columns until it is wanted.

With complete train rows most estimates of a new row are, in every column that was not probed, the
same linear combination of that column's entries and a constant. Such estimates are combined, and
their errors over all columns found from the rows' Gram matrix, without computing any of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Mix(NamedTuple):
    """A row mix_M @ z_MxN + constant, but for what is added at probed columns.

    Attributes:
      mix_M: coefficients of the M train rows.
      constant: scalar.
      added_S: at the S probed columns; 0 where the value was not known.
    """

    mix_M: Array
    constant: Array
    added_S: Array


def row(found: Mix, z_MxN: Array, columns_S: Array) -> Array:
    """The row itself (N)."""
    mixed_N = jnp.matmul(found.mix_M, z_MxN, precision=jax.lax.Precision.HIGHEST)
    return (mixed_N + found.constant).at[columns_S].add(found.added_S)
