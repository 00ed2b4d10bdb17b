"""Batches of fixed shapes: length-bucketed or packed rows, and only the positions that are scored.

Few shapes means few compilations: lengths are rounded up to at most `buckets` edges, chosen so that
the padding over the data at hand is least.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from forget_jax.data.tokenise import Encoded
from forget_jax.lm.model import Batch


@dataclasses.dataclass(frozen=True)
class Shape:
    """The static shape of a batch: rows, tokens a row, targets a row, examples a row."""

    rows: int
    length: int
    targets: int
    slots: int = 1


def bucket_edges(lengths: Sequence[int], buckets: int, multiple: int = 8) -> tuple[int, ...]:
    """At most `buckets` row lengths, multiples of `multiple`, that waste the least padding.

    Exact, by dynamic programming over the distinct rounded lengths.
    """
    rounded, counts = np.unique(-(-np.asarray(lengths) // multiple) * multiple, return_counts=True)
    n, k = len(rounded), min(buckets, len(rounded))
    total = np.concatenate([[0], np.cumsum(counts)])
    # cost[e, j]: the padded tokens of the first j lengths under e edges, the last edge at j-1
    cost = np.full((k + 1, n + 1), np.inf)
    cost[0, 0] = 0
    last = np.zeros((k + 1, n + 1), int)
    for e in range(1, k + 1):
        for j in range(1, n + 1):
            options = cost[e - 1, :j] + rounded[j - 1] * (total[j] - total[:j])
            last[e, j] = int(np.argmin(options))
            cost[e, j] = options[last[e, j]]
    edges, j = [], n
    for e in range(k, 0, -1):
        edges.append(int(rounded[j - 1]))
        j = last[e, j]
        if j == 0:
            break
    return tuple(reversed(edges))


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Row lengths, and the most targets that any example of at most that length has."""

    edges: tuple[int, ...]
    targets: tuple[int, ...]

    @classmethod
    def of(cls, encoded: Sequence[Encoded], buckets: int, multiple: int = 8) -> "Buckets":
        """The buckets for a data set; target counts are powers of two, so shapes recur."""
        lengths = np.array([len(e.ids) for e in encoded])
        tokens = np.array([e.tokens for e in encoded])
        edges = bucket_edges(lengths.tolist(), buckets, multiple)
        most = tuple(
            min(edge, 1 << max(3, int(tokens[lengths <= edge].max() - 1).bit_length()))
            for edge in edges
        )
        return cls(edges, most)

    def edge(self, length: int) -> int:
        """The bucket's length for rows of at most `length` tokens."""
        return next(edge for edge in self.edges if edge >= length)

    def shape(self, length: int, rows: int) -> Shape:
        """The shape for rows of at most `length` tokens."""
        i = next(i for i, edge in enumerate(self.edges) if edge >= length)
        return Shape(rows, self.edges[i], self.targets[i])


def bucketed(
    lengths: Sequence[int],
    buckets: Buckets,
    rows: int,
    row_tokens: int | None = None,
    multiple: int = 8,
) -> list[tuple[Shape, list[tuple[int, ...]]]]:
    """Cuts a data set, sorted by length, into batches of one example a row.

    Args:
      rows: rows of a batch; with `row_tokens`, of a batch of the longest bucket.
      row_tokens: if given, shorter buckets hold more rows, up to this many tokens a batch.
      multiple: what their number of rows is a multiple of.

    Returns:
      (shape, rows) per batch, longest first; each row is a tuple of example indices.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    plan: list[tuple[Shape, list[tuple[int, ...]]]] = []
    while order:
        shape = buckets.shape(lengths[order[0]], rows)
        if row_tokens is not None:
            most = row_tokens // shape.length // multiple * multiple
            shape = dataclasses.replace(shape, rows=max(rows, most))
        plan.append((shape, [(i,) for i in order[: shape.rows]]))
        order = order[shape.rows :]
    return plan


def packed(
    lengths: Sequence[int], tokens: Sequence[int], shape: Shape
) -> list[tuple[Shape, list[tuple[int, ...]]]]:
    """Packs examples into rows, longest first, each where it leaves the least room.

    Best fit by decreasing length over rows grouped by the room they have left; every row keeps
    within the tokens, targets and examples of `shape`.
    """
    rows: list[list[int]] = []
    targets: list[int] = []
    open_rows: list[list[int]] = [[] for _ in range(shape.length + 1)]  # by room left
    rooms = 0  # bit r is set where a row has r tokens of room
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        n, t = lengths[i], tokens[i]
        fit, room = None, shape.length
        candidates = rooms >> n << n
        while candidates:
            room = (candidates & -candidates).bit_length() - 1
            if targets[open_rows[room][-1]] + t <= shape.targets:
                fit = open_rows[room].pop()
                if not open_rows[room]:
                    rooms ^= 1 << room
                break
            candidates &= candidates - 1
        if fit is None:
            fit, room = len(rows), shape.length
            rows.append([])
            targets.append(0)
        rows[fit].append(i)
        targets[fit] += t
        if len(rows[fit]) < shape.slots:
            open_rows[room - n].append(fit)
            rooms |= 1 << room - n
    cut = range(0, len(rows), shape.rows)
    return [(shape, [tuple(row) for row in rows[i : i + shape.rows]]) for i in cut]


def packed_shape(
    lengths: Sequence[int], tokens: Sequence[int], row_tokens: int, multiple: int = 1
) -> Shape:
    """The shape of packed rows for a data set: the shortest row that packs densely.

    Tried on up to 2,048 of the examples: rows as long as the longest example, and of one and a
    half times to four times that. Targets are as few as the longest example needs, and half more
    than a row has on average, or more where that would cost more than one row in a hundred.

    Args:
      row_tokens: tokens of a batch, about.
      multiple: what the number of rows must be a multiple of.
    """
    step = -(-len(lengths) // 2048)
    some, their_tokens = lengths[::step], tokens[::step]
    longest = _up(max(lengths), 16)

    def rows_of(shape: Shape) -> list[tuple[int, ...]]:
        return packed(some, their_tokens, dataclasses.replace(shape, rows=len(some)))[0][1]

    best: tuple[float, Shape] | None = None
    for length in (longest, 3 * longest // 2, 2 * longest, 4 * longest):
        rows = rows_of(Shape(1, length, length, length))
        fraction = sum(some) / (len(rows) * length)
        if best is None or fraction > best[0]:
            targets = max(max(tokens), 3 * sum(their_tokens) // (2 * len(rows)))
            targets = min(length, _up(targets, 16))
            slots = max(map(len, rows)) * 9 // 8 + 1
            while len(rows_of(Shape(1, length, targets, slots))) > 1.01 * len(rows):
                targets = min(length, _up(targets * 5 // 4, 16))
            count = max(1, row_tokens // length // multiple) * multiple
            best = fraction, Shape(count, length, targets, slots)
        if best[0] >= 0.98:
            break
    assert best is not None
    return best[1]


def _up(x: int, multiple: int) -> int:
    return -(-x // multiple) * multiple


def assemble(encoded: Sequence[Encoded], shape: Shape, rows: Sequence[tuple[int, ...]]) -> Batch:
    """The arrays of one batch; rows beyond those given are padding."""
    B, L, T, E = shape.rows, shape.length, shape.targets, shape.slots
    ids = np.zeros((B, L), np.int32)
    position = np.zeros((B, L), np.int32)
    segment = np.zeros((B, L), np.int32)
    at, target = np.zeros((B, T), np.int32), np.zeros((B, T), np.int32)
    weight, slot = np.zeros((B, T), np.float32), np.zeros((B, T), np.int32)
    example = np.full((B, E), -1, np.int32)
    for b, row in enumerate(rows):
        start = used = 0
        for s, i in enumerate(row):
            e = encoded[i]
            end = start + len(e.ids)
            ids[b, start:end] = e.ids
            position[b, start:end] = np.arange(len(e.ids))
            segment[b, start:end] = s + 1
            where = np.flatnonzero(e.is_target)
            span = slice(used, used + len(where))
            at[b, span] = start + where - 1
            target[b, span] = e.ids[where]
            weight[b, span] = 1
            slot[b, span] = s
            example[b, s] = i
            start, used = end, used + len(where)
    many = E > 1
    return Batch(
        ids,
        position if many else None,
        segment if many else None,
        at,
        target,
        weight,
        slot,
        example,
    )
