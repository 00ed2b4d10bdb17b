"""Batches on their way to the devices: every process assembles its own rows only."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax

from forget_jax.data import batches
from forget_jax.data.batches import Buckets, Shape
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


def each_once(encoded: Sequence[Encoded], buckets: int, rows: int) -> Iterator[Batch]:
    """Every row in one batch, of those of like length; the last ones are padded with empty rows.

    Args:
      buckets: lengths to compile for.
      rows: of a batch.
    """
    edges = Buckets.of(encoded, buckets)
    by_shape: dict[Shape, list[int]] = {}
    for i, one in enumerate(encoded):
        by_shape.setdefault(edges.shape(len(one.ids), rows), []).append(i)
    for shape, members in by_shape.items():
        for first in range(0, len(members), rows):
            yield feed(encoded, shape, [(i,) for i in members[first : first + rows]])
