"""A data set's way through a compiled function of batches: compiled ahead, dispatched ahead.

Memory does not grow with the data set: one chunk's results and a few batches are alive at a time.
"""

import dataclasses
import functools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from forget_jax.data import batches
from forget_jax.data.batches import Buckets, Shape
from forget_jax.data.feed import feed
from forget_jax.data.tokenise import Encoded
from forget_jax.lm import sharding
from forget_jax.lm.programs import Programs

T = TypeVar("T")
Rows = Sequence[tuple[int, ...]]  # of a batch: the examples of each row, by index

AHEAD = 2  # batches dispatched before the oldest result is fetched


@dataclasses.dataclass(frozen=True)
class Layout:
    """How examples become batches; one for a whole data set, so that its chunks share shapes.

    Attributes:
      buckets: the lengths of rows.
      rows: rows of a batch of the longest bucket; shorter ones hold more, up to as many tokens.
      packed: the shape of rows that hold several examples; None gives each example a row.
    """

    buckets: Buckets
    rows: int
    packed: Shape | None = None

    @classmethod
    def of(
        cls, encoded: Sequence[Encoded], buckets: Buckets, rows: int, packing: bool = False
    ) -> "Layout":
        """The layout of a data set; rows are rounded up to what the mesh of devices needs.

        Args:
          packing: put several examples into a row (kernels must honour segment ids).
        """
        rows = -(-rows // sharding.row_shards()) * sharding.row_shards()
        if not packing:
            return cls(buckets, rows)
        lengths, tokens = _sizes(encoded)
        most = rows * buckets.edges[-1]
        return cls(
            buckets, rows, batches.packed_shape(lengths, tokens, most, sharding.row_shards())
        )

    def plan(self, encoded: Sequence[Encoded]) -> list[tuple[Shape, list[tuple[int, ...]]]]:
        """The batches of some of the examples, each a shape and its rows' examples."""
        lengths, tokens = _sizes(encoded)
        if self.packed is not None:
            return batches.packed(lengths, tokens, self.packed)
        most, multiple = self.rows * self.buckets.edges[-1], math.lcm(8, sharding.row_shards())
        return batches.bucketed(lengths, self.buckets, self.rows, most, multiple)


def _sizes(encoded: Sequence[Encoded]) -> tuple[list[int], list[int]]:
    return [len(e.ids) for e in encoded], [e.tokens for e in encoded]


def _compiled(fn: Any, arrays: tuple[Any, ...], shape: Shape) -> Any:
    """The program for batches of a shape."""
    static = fn.keywords if isinstance(fn, functools.partial) else {}
    jitted: Any = fn.func if isinstance(fn, functools.partial) else fn
    return jitted.lower(*arrays, feed([], shape, []), **static).compile()


def stream(
    fn: Any,
    arrays: tuple[Any, ...],
    chunks: Sequence[tuple[int, Sequence[Encoded]]],
    layout: Layout,
    on_batch: Callable[[int], None] = lambda examples: None,
    told: Callable[[str], None] = lambda what: None,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Runs all chunks through a compiled function, without a pause between them.

    Args:
      fn: a jitted function of `arrays` and a batch, its static arguments bound by keyword; returns
        a dict of sums by example (K, B, E) and, under `logp`, figures of targets (K, B, T).
      arrays: what it takes before the batch, such as a model and a stack of adapters.
      chunks: a number and the examples of each.
      on_batch: called with the number of examples done so far.
      told: how far compilation is, in words (`Programs`).

    Yields:
      The number of each chunk and its figures, in order: (K, C) in float64, and `logp`
      (K, C, most targets) in fp32 with NaN beyond an example's last target.
    """
    shapes = dict.fromkeys(s for _, examples in chunks for s, _ in layout.plan(examples))
    done = 0
    found: dict[str, np.ndarray] = {}
    makers = {shape: functools.partial(_compiled, fn, arrays, shape) for shape in shapes}
    with Programs(makers, told) as programs:
        dispatched = _dispatched(programs, arrays, chunks, layout)
        for number, examples, rows, is_last, out in _ahead(dispatched, AHEAD):
            _place(found, {name: np.asarray(x) for name, x in out.items()}, examples, rows)
            done += sum(map(len, rows))
            on_batch(done)
            if is_last:
                yield number, found
                found = {}


def _dispatched(
    programs: Programs,
    arrays: tuple[Any, ...],
    chunks: Sequence[tuple[int, Sequence[Encoded]]],
    layout: Layout,
) -> Iterator[tuple[int, Sequence[Encoded], Rows, bool, dict[str, jax.Array]]]:
    """Every batch with its chunk, whether it is that chunk's last, and its result to be."""
    for number, examples in chunks:
        plan = layout.plan(examples)
        for i, (shape, rows) in enumerate(plan):
            out = programs[shape](*arrays, feed(examples, shape, rows))
            yield number, examples, rows, i == len(plan) - 1, out


def _ahead(items: Iterator[T], count: int) -> Iterator[T]:
    """The items, each given out when so many after it have been made."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _place(
    found: dict[str, np.ndarray],
    out: dict[str, np.ndarray],
    examples: Sequence[Encoded],
    rows: Rows,
) -> None:
    """Puts a batch's figures where its chunk's examples have theirs."""
    places = [(b, s, i) for b, row in enumerate(rows) for s, i in enumerate(row)]
    b_N, e_N, i_N = np.array(places).T
    for name, values in out.items():
        if name != "logp":
            into = found.setdefault(name, np.full((len(values), len(examples)), np.nan))
            into[:, i_N] = values[:, b_N, e_N]
            continue
        most = max(e.tokens for e in examples)
        shape = (len(values), len(examples), most)
        into = found.setdefault(name, np.full(shape, np.nan, np.float32))
        for b, row in enumerate(rows):
            start = 0  # a row's targets lie one example after the other
            for i in row:
                end = start + examples[i].tokens
                into[:, i, : end - start] = values[:, b, start:end]
                start = end
