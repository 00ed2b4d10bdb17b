"""Which rows make up each step of a run: a pure function of tasks, config and step number.

Tasks sit in seats, a fixed number of them at a time; rows name the seat they train. When few enough
tasks are left, they move into half as many seats, so that finished ones cost nothing.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from forget_jax.data import order
from forget_jax.data.batches import Buckets, Shape
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.training.optimizer import Schedule
from forget_jax.training.settings import Train


@dataclasses.dataclass(frozen=True)
class Task:
    """One data set to train on, with its own seed and number of steps.

    Attributes:
      order: indices into the examples in the order they are consumed, at least steps x batch_size
        of them; None reshuffles every epoch by the seed.
      costs: which of `Objective.rows` each example costs; None for the first.
      rank: trains only this many of the adapter's ranks, the others stay zero; 0 trains all. So
        tasks of different ranks train together.
      scale: a factor on the task's low-rank update, beside the adapter's own scaling.
      targets: trains only the adapter's kernels whose path matches this regular expression, the
        others stay zero; empty trains all.
      top: trains only so many of the topmost layers' adapters; 0 trains all.
      schedule: its own learning rate; None takes the run's.
      heldout: examples whose loss decides when the task stops early and which step is kept.
      patience: stops after this many held-out losses in a row without a new best; 0 never does.
      goal: stops once a held-out loss is below it, in nats per target token.
    """

    name: str
    examples: Sequence[Encoded]
    seed: int
    steps: int
    order: np.ndarray | None = None
    costs: np.ndarray | None = None
    rank: int = 0
    scale: float = 1.0
    targets: str = ""
    top: int = 0
    schedule: Schedule | None = None
    heldout: Sequence[Encoded] = ()
    patience: int = 0
    goal: float = 0.0


class Microbatch(NamedTuple):
    """Rows that are computed together.

    Attributes:
      rows: per row the example's index in the plan, () for padding; in blocks, one after the other.
      seat_R: int32, the seat of each row within its block; -1 for padding.
      real: tokens that are not padding.
      cost: which of `Objective.rows` its rows cost.
    """

    shape: Shape
    rows: list[tuple[int, ...]]
    seat_R: np.ndarray
    real: int
    cost: int = 0


def _seat_counts(tasks: int, blocks: int) -> tuple[int, ...]:
    """How many seats there may be: all tasks', then half of it again and again, in whole blocks."""
    counts = [-(-tasks // blocks) * blocks]
    while counts[-1] > blocks:
        counts.append(-(-counts[-1] // (2 * blocks)) * blocks)
    return tuple(counts)


class Room(NamedTuple):
    """How large microbatches are.

    Attributes:
      tokens: at most, over the devices that share rows and over all blocks.
      multiple: of which the rows of a block must be a multiple.
      has_smaller: whether some may have a quarter of the rows.
    """

    tokens: int
    multiple: int
    has_smaller: bool


FEW = 12  # microbatches of a step
PROGRAMS = 1e12, 1e16  # FLOPs in the time that a few take to compile: of a CPU, of an accelerator
LARGE = 1024  # a batch that repeats a task's rows is no larger


def microbatch_tokens(microbatch: int, longest: int, devices: int = 1) -> int:
    """Tokens computed at a time over the devices that share rows.

    Args:
      microbatch: rows of the longest bucket; shorter ones have more, up to as many tokens. 0: on a
        CPU 512 tokens, which compute at full speed already, and 8 rows on every other device.
      longest: tokens of the longest bucket.
    """
    if microbatch:
        return microbatch * longest
    return devices * (max(longest, 512) if jax.default_backend() == "cpu" else 8 * longest)


class StepPlan:
    """The plan of a run; `stop` takes a task out before its number of steps is done.

    Args:
      blocks: blocks of seats whose rows stay apart: the devices of the mesh's `task` axis.
      multiple: over how many devices the rows of a block are cut.
      token_flops: of a token's training; where the run has little to compute, no smaller
        microbatches are made, whose programs would cost more than the padding they save.

    Raises:
      UserError: batches that repeat a task's rows again and again.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        train: Train,
        blocks: int = 1,
        multiple: int = 1,
        token_flops: float = math.inf,
    ):
        self.tasks, self.blocks = tasks, blocks
        self.batch_size = train.batch_size
        for task in tasks:
            if train.batch_size > max(len(task.examples), LARGE):
                raise UserError(
                    f"train.batch_size is {train.batch_size}, but {task.name} has "
                    f"{len(task.examples)} rows; {max(len(task.examples), LARGE)} or less fit"
                )
        self.examples = [e for task in tasks for e in task.examples]
        self.offset = np.cumsum([0] + [len(task.examples) for task in tasks])
        self.task_of = np.repeat(np.arange(len(tasks)), [len(t.examples) for t in tasks])
        self.lengths = np.array([len(e.ids) for e in self.examples])
        self.targets = np.array([e.tokens for e in self.examples])
        costs = [np.zeros(len(t.examples), int) if t.costs is None else t.costs for t in tasks]
        self.cost_of = np.concatenate(costs)
        self.buckets = Buckets.of(self.examples, train.buckets)
        devices = blocks * multiple
        most = min(train.microbatch, train.batch_size * len(tasks))  # no more rows than there are
        tokens = microbatch_tokens(most, self.buckets.edges[-1], devices)
        self.seat_counts = _seat_counts(len(tasks), blocks)
        self.stopped_M = np.full(len(tasks), np.iinfo(np.int32).max, np.int32)
        # A microbatch of every step is about what smaller ones could save.
        programs = PROGRAMS[jax.default_backend() != "cpu"]
        has_smaller = self.total * tokens * token_flops > programs
        self.room = Room(tokens, multiple, has_smaller)

    @property
    def end_M(self) -> np.ndarray:
        """The first step without each task."""
        return np.minimum([task.steps for task in self.tasks], self.stopped_M)

    def stop(self, m: int, step: int) -> None:
        """Ends a task before `step`, unless it ends sooner."""
        self.stopped_M[m] = min(self.stopped_M[m], step)

    @property
    def total(self) -> int:
        """Steps until the last task ends."""
        return int(self.end_M.max())

    def running(self, step: int) -> np.ndarray:
        """Indices of the tasks that take part in a step."""
        return np.flatnonzero(step < self.end_M)

    def seats(self, step: int) -> np.ndarray:
        """The task in every seat at a step, -1 for none.

        Depends on the step and on when tasks end alone, so that a resumed run computes just what an
        undisturbed one does.
        """
        ends = self.end_M

        def count(step: int) -> int:
            return min(n for n in self.seat_counts if n >= np.count_nonzero(step < ends))

        now = count(step)
        since = min(s for s in {0, *ends.tolist()} if s <= step and count(s) == now)
        seated = np.arange(len(self.tasks)) if now == self.seat_counts[0] else self.running(since)
        return np.pad(seated, (0, now - len(seated)), constant_values=-1)

    def rows_of(self, m: int, step: int) -> np.ndarray:
        """Indices into `examples` of one task's rows at a step."""
        task, start, size = self.tasks[m], step * self.batch_size, self.batch_size
        if task.order is not None:
            return self.offset[m] + task.order[start : start + size]
        return self.offset[m] + order.rows(task.seed, len(task.examples), start, size)

    def rows(self, step: int) -> np.ndarray:
        """Indices into `examples` of all rows of a step, of the tasks that still run."""
        return np.concatenate([self.rows_of(m, step) for m in self.running(step)])

    def microbatches(self, step: int) -> Iterator[Microbatch]:
        """A step's microbatches, rows of one cost after those of another, each longest first."""
        seats, index = self.seats(step), self.rows(step)
        for cost in np.unique(self.cost_of[index]):
            for part in cut(
                index[self.cost_of[index] == cost],
                self.lengths,
                self.task_of,
                seats.reshape(self.blocks, -1),
                self.buckets,
                self.room,
            ):
                yield part._replace(cost=int(cost))

    def names(self, m: int, step: int) -> list[str]:
        """The names of a task's examples at a step."""
        return [self.examples[i].name for i in self.rows_of(m, step)]

    def useful_fraction(self, sample: int = 10) -> float:
        """Real tokens over tokens computed, in the first steps."""
        sizes = [
            (part.real, part.shape.rows * part.shape.length)
            for step in range(min(sample, self.total))
            for part in self.microbatches(step)
        ]
        return sum(real for real, _ in sizes) / sum(size for _, size in sizes)


def cut(
    index: np.ndarray,
    lengths: np.ndarray,
    task_of: np.ndarray,
    seats_AxS: np.ndarray,
    buckets: Buckets,
    room: Room,
) -> Iterator[Microbatch]:
    """Cuts rows, longest first, into microbatches that compute the fewest tokens.

    A microbatch has as many rows as fit into `room.tokens` at its length, rounded down to a power
    of two. Where a step makes few of them, so that a half-empty one weighs much, it may have a
    quarter of that: twice as many shapes to compile, of which dynamic programming takes the best.

    Args:
      index: which examples; `lengths` and `task_of` say of each example how long and whose it is.
      seats_AxS: the task in each seat of each block.
    """
    place = {int(m): (a, s) for (a, s), m in np.ndenumerate(seats_AxS) if m >= 0}
    A = len(seats_AxS)
    mine: list[list[int]] = [[] for _ in range(A)]
    for i in index[np.argsort(-lengths[index], kind="stable")]:
        mine[place[int(task_of[i])][0]].append(int(i))
    longest = max(map(len, mine))
    length_N = np.zeros(longest, int)  # the longest of each block's n-th rows
    for block in mine:
        length_N[: len(block)] = np.maximum(length_N[: len(block)], lengths[block])
    edge_N = [buckets.edge(int(n)) for n in length_N]
    start = 0
    for size in _sizes(edge_N, room._replace(tokens=room.tokens // A)):
        chosen = [block[start : start + size] for block in mine]
        seat_R = np.full(A * size, -1, np.int32)
        filled: list[tuple[int, ...]] = [()] * (A * size)
        for a, block in enumerate(chosen):
            for r, i in enumerate(block):
                seat_R[a * size + r] = place[int(task_of[i])][1]
                filled[a * size + r] = (i,)
        real = int(lengths[[i for block in chosen for i in block]].sum())
        yield Microbatch(buckets.shape(int(length_N[start]), A * size), filled, seat_R, real)
        start += size


def _sizes(edge_N: Sequence[int], room: Room) -> list[int]:
    """Rows of each microbatch over rows of falling length, for the least computed tokens.

    Every microbatch also costs a sixteenth of `tokens`, for what does not grow with it.
    """
    tokens, multiple, has_smaller = room
    count, few = len(edge_N), has_smaller and sum(edge_N) < FEW * tokens
    every = 1 << (-(-count // multiple) - 1).bit_length()  # so many hold all rows
    cost = np.full(count + 1, np.inf)
    cost[count] = 0
    size_at = [0] * count
    for i in reversed(range(count)):
        fit = _power_of_two(tokens // (edge_N[i] * multiple))
        most = multiple * min(every, max(1, fit))
        for size in {most, max(multiple, most // 4)} if few else {most}:
            here = size * edge_N[i] + tokens / 16 + cost[min(count, i + size)]
            if here < cost[i]:
                cost[i], size_at[i] = here, size
    sizes, i = [], 0
    while i < count:
        sizes.append(size_at[i])
        i += size_at[i]
    return sizes


def _power_of_two(n: int) -> int:
    """The largest one that is at most n; 0 for 0."""
    return 1 << (n.bit_length() - 1) if n else 0
