"""The fine-tunes of a comparison: every task under every strategy, ratio, cost and seed.

Fine-tunes of one task and seed share initialisation and the order of the task's rows; only what is
replayed differs.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from forget_jax.data import mixing, reading
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.fleet import cells as grids
from forget_jax.fleet.cells import Cell
from forget_jax.replay.settings import COSTS, Replay
from forget_jax.replay.strategies import Known, Sampling, choose, parse
from forget_jax.training.loop import Task
from forget_jax.training.objective import Objective, kl_to_base, nll, nll_and_kl
from forget_jax.training.settings import Train

# What a row costs: a task's own rows the first, replayed ones that of their arm, as COSTS names.
OBJECTIVE = Objective((nll, kl_to_base, nll_and_kl))


class Arm(NamedTuple):
    """How rows are replayed.

    Attributes:
      strategy: a name of STRATEGIES, or one and a sampling.
      ratio: replayed rows per task row; 0 for none.
      cost: one of COSTS.
      matched: one of MATCHED.
    """

    strategy: str
    ratio: float = 0.0
    cost: str = "nll"
    matched: str = "steps"

    def label(self, replay: Replay) -> str:
        """For people: what differs between the arms of a comparison."""
        said = [self.strategy]
        if self.ratio and len(replay.ratio) > 1:
            said.append(f"1/{1 / self.ratio:g}" if (1 / self.ratio) % 1 == 0 else f"{self.ratio:g}")
        if self.ratio and len(replay.cost) > 1:
            said.append(self.cost)
        if self.ratio and len(replay.matched) > 1:
            said.append(f"at equal {self.matched}")
        return " ".join(said)


def arms(replay: Replay) -> list[Arm]:
    """Every strategy at every ratio, cost and match; `none` once."""
    found = []
    for spec in replay.strategies:
        if not parse(spec)[0].rows:
            found.append(Arm(spec))
            continue
        ways = itertools.product(replay.ratio, replay.cost, replay.matched)
        found += [Arm(spec, *way) for way in ways]
    return found


# FLOPs of training on rows under a cost.
Price = Callable[[Sequence[Encoded], str], float]


@dataclasses.dataclass(frozen=True)
class Stream:
    """One fine-tune's rows and the order in which they are consumed.

    Attributes:
      rows: of the task.
      candidates: that may be replayed.
      steps: of the task's own rows; replay adds to them.
      seed: of everything that is drawn.
    """

    rows: Sequence[Encoded]
    candidates: Sequence[Encoded]
    steps: int
    batch_size: int
    seed: int

    def replayed(self, ratio: float) -> int:
        """How many rows are replayed at a ratio."""
        return max(1, round(self.steps * self.batch_size * ratio))

    def task(self, arm: Arm, drawn: np.ndarray | None, price: Price) -> Task:
        """What is trained; `drawn` None replays nothing.

        Raises:
          UserError: replay leaves no room for the task within its compute.
        """
        if drawn is None:
            return Task("", self.rows, self.seed, self.steps)
        costs = np.repeat([0, COSTS.index(arm.cost)], [len(self.rows), len(self.candidates)])
        # Steps are whole: the last may hold more of the task's own rows.
        steps = self.steps + math.ceil(len(drawn) / self.batch_size)
        if arm.matched == "compute":
            steps = self._steps_within(arm, drawn, price)
        own = steps * self.batch_size - len(drawn)
        order = mixing.inserted(len(self.rows), own, drawn, self.seed)
        return Task("", [*self.rows, *self.candidates], self.seed, steps, order, costs)

    def _steps_within(self, arm: Arm, drawn: np.ndarray, price: Price) -> int:
        """Whole steps of own and drawn rows that take no more FLOPs than the task without replay.

        By the task's mean row: which of its rows come, and how often, is drawn later.
        """
        n, B = len(self.rows), self.batch_size
        row = price(self.rows, "nll") / n
        left = self.steps * B - price([self.candidates[i] for i in drawn], arm.cost) / row
        steps = math.floor((left + len(drawn)) / B)
        if steps * B - len(drawn) < 1:
            raise UserError(
                f"{len(drawn)} replayed rows take as many FLOPs as the {self.steps} steps of a "
                "task without replay: lower replay.ratio, or leave compute out of replay.matched"
            )
        return steps


@dataclasses.dataclass(frozen=True)
class Choice:
    """How an arm's rows are drawn for one task.

    Attributes:
      value_P: of each candidate; None replays nothing.
      how: they are sampled.
    """

    value_P: np.ndarray | None
    how: Sampling

    def draw(self, count: int, seed: int) -> np.ndarray | None:
        """So many candidates."""
        return None if self.value_P is None else choose(self.value_P, count, seed, self.how)


def choice(spec: str, known: Known, candidates: int, replay: Replay) -> Choice:
    """What a strategy makes of what is known of the candidates.

    Args:
      known: of the P candidates alone.
      candidates: how many rows there are of the strategy's kind.
    """
    strategy, sampling = parse(spec)
    how = Sampling(sampling, replay.temperature, replay.best_of)
    if spec.partition(":")[0] == "online":  # at random until its first mark
        how = Sampling()
    if not strategy.rows:
        return Choice(None, how)
    return Choice(np.zeros(candidates) if strategy.value is None else strategy.value(known), how)


def cells(
    train: Train,
    tasks: Mapping[str, Sequence[Encoded]],
    candidates: Mapping[str, Mapping[str, Sequence[Encoded]]],
    known: Mapping[str, Known],
    replay: Replay,
    price: Price,
) -> list[Cell]:
    """One fine-tune for each task, arm and seed; each cell carries its arm.

    Args:
      tasks: the rows to train on, by task.
      candidates: rows to replay, by task and their kind (`Strategy.rows`).
      known: of the upstream candidates, by task.
      price: by which arms of equal compute are matched.
    """
    found = []
    for name, rows, arm, seed in _grid(tasks, replay):
        stream = _stream(train, name, rows, seed, candidates[name][parse(arm.strategy)[0].rows])
        one = choice(arm.strategy, known[name], len(stream.candidates), replay)
        drawn = one.draw(stream.replayed(arm.ratio), stream.seed)
        at: dict[str, str | int] = {
            "task": name,
            "strategy": arm.strategy,
            "ratio": f"{arm.ratio:.6g}",
            "cost": arm.cost,
            "matched": arm.matched,
            "seed": seed,
        }
        found.append(Cell(at, stream.task(arm, drawn, price), arm))
    grids.check(found)
    return found


def _grid(
    tasks: Mapping[str, Sequence[Encoded]], replay: Replay
) -> Iterator[tuple[str, Sequence[Encoded], Arm, int]]:
    for name, rows in tasks.items():
        for seed in range(replay.seeds):
            for arm in arms(replay):
                yield name, rows, arm, seed


def _stream(
    train: Train, name: str, rows: Sequence[Encoded], seed: int, candidates: Sequence[Encoded]
) -> Stream:
    own = reading.task_seed(train.seed, name, seed)
    return Stream(rows, candidates, train.steps, train.batch_size, own)


def redrawn(task: Task, own_rows: int, done: int, drawn: np.ndarray) -> Task:
    """A task whose replayed rows from row `done` of its order on are others.

    Args:
      own_rows: of the task; larger numbers in its order are candidates.
      drawn: candidates, numbered from 0, at least as many as rows are replayed from there on.
    """
    assert task.order is not None
    later = np.flatnonzero(task.order >= own_rows)
    later = later[later >= done]
    changed = task.order.copy()
    changed[later] = own_rows + drawn[: len(later)]
    return dataclasses.replace(task, order=changed)
