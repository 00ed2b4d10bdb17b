"""Batches on their way to the devices: every process assembles its own rows only."""

import dataclasses
from collections.abc import Sequence

import jax

from forget_jax.data import batches
from forget_jax.data.batches import Shape
from forget_jax.data.tokenise import Encoded
from forget_jax.lm import sharding
from forget_jax.lm.model import Batch


def feed(encoded: Sequence[Encoded], shape: Shape, rows: Sequence[tuple[int, ...]]) -> Batch:
    """One batch, laid out over the entered mesh; on the host where there is none.

    Args:
      rows: indices into `encoded` per row of the whole batch; an empty tuple is padding.
    """
    if sharding.current() is None:
        return batches.assemble(encoded, shape, rows)
    mine = sharding.own_rows(shape.rows)
    chosen = [rows[i] if i < len(rows) else () for i in mine]
    local = batches.assemble(encoded, dataclasses.replace(shape, rows=len(mine)), chosen)
    return jax.tree.map(lambda x: sharding.cut_rows(x, shape.rows), local)
