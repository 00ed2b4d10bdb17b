"""Strategies side by side: every task fine-tuned again with upstream examples mixed in.

The candidates are a share of the matrix's columns; the others measure forgetting and are never
replayed. Fine-tunes of one task and seed share initialisation and task examples, and all of them
train together.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from forget_jax import associations
from forget_jax.associations.matrix import Matrix
from forget_jax.data import mixing, reading
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.fleet import cells as grids
from forget_jax.fleet.cells import BASE, Cell
from forget_jax.fleet.fleet import ADVICE, Fleet, Scored, train_and_score
from forget_jax.randomness import generator
from forget_jax.replay.settings import Replay
from forget_jax.replay.strategies import STRATEGIES, Known, draw, weights
from forget_jax.scoring.likelihood import nll_mean
from forget_jax.training.loop import Task


@dataclasses.dataclass(frozen=True)
class Upstream:
    """The upstream examples of a comparison, in three parts.

    Attributes:
      column_J: the matrix column of each example.
      trained: as they are replayed.
      scored: as they are measured.
      pool: which may be replayed.
      held: which measure forgetting.
      observed: which of the pool the prediction may see.
    """

    column_J: np.ndarray
    trained: Sequence[Encoded]
    scored: Sequence[Encoded]
    pool: np.ndarray
    held: np.ndarray
    observed: np.ndarray

    @classmethod
    def split(
        cls,
        matrix: Matrix,
        trained: Sequence[Encoded],
        scored: Sequence[Encoded],
        replay: Replay,
        seed: int,
    ) -> "Upstream":
        """The parts, drawn by the seed.

        Args:
          matrix: whose columns the examples are.
          trained, scored: the same examples, as they are replayed and as they are measured.
          replay: the share that may be replayed, and how many of these are observed.

        Raises:
          UserError: an example that is no column of the matrix.
        """
        where = {name: j for j, name in enumerate(matrix.examples)}
        missing = [e.name for e in trained if e.name not in where]
        if missing:
            raise UserError(
                f"{len(missing)} upstream examples are no columns of the matrix, {missing[0]} "
                "first; give the upstream (and data.shuffle) that the matrix was made with"
            )
        rng = generator(seed, "replay pool")
        pool, held = np.split(rng.permutation(len(trained)), [round(len(trained) * replay.pool)])
        observed = rng.choice(pool, min(replay.observed, len(pool)), replace=False)
        column_J = np.array([where[e.name] for e in trained])
        return cls(column_J, trained, scored, pool, held, observed)


@dataclasses.dataclass(frozen=True)
class Compared:
    """What a comparison measured.

    Attributes:
      z: mean forgetting in nats a token over the examples that measure it, task x strategy x seed.
      loss: held-out loss of the task itself in nats a token, task x strategy x seed.
      base_nll: mean NLL of the base on the examples that measure forgetting, nats a token.
      scored: what the fleet left.
    """

    z: xr.DataArray
    loss: xr.DataArray
    base_nll: float
    scored: Scored


def known(matrix: Matrix, task: str, upstream: Upstream, method: str) -> Known:
    """What is known of a task's forgetting of the J upstream examples.

    The prediction sees the task's own row at the observed examples only, and the other tasks' rows.
    """
    row = matrix.rows((task,))[0]
    z_MxJ = np.asarray(matrix.z_MxN)[:, upstream.column_J]
    others, observed = np.delete(z_MxJ, row, axis=0), upstream.observed
    seen = z_MxJ[row, observed]
    predicted_J = associations.predict_rows(others, observed[None], seen[None], method)[0]
    return Known(z_MxJ[row], others, predicted_J)


def cells(
    fleet: Fleet,
    matrix: Matrix,
    tasks: Mapping[str, Sequence[Encoded]],
    upstream: Upstream,
    replay: Replay,
) -> list[Cell]:
    """One fine-tune for each task, seed and strategy.

    Args:
      tasks: the rows to train on, by task.
    """
    found = []
    for name, rows in tasks.items():
        facts = known(matrix, name, upstream, replay.method)
        values = {s: of(facts) for s in replay.strategies if (of := STRATEGIES[s]) is not None}
        for seed, strategy in itertools.product(range(replay.seeds), replay.strategies):
            at: dict[str, str | int] = {"task": name, "strategy": strategy, "seed": seed}
            found.append(Cell(at, _task(fleet, at, rows, upstream, replay, values.get(strategy))))
    grids.check(found)
    return found


def _task(
    fleet: Fleet,
    at: Mapping[str, str | int],
    rows: Sequence[Encoded],
    upstream: Upstream,
    replay: Replay,
    value_J: np.ndarray | None,
) -> Task:
    """One fine-tune, with the replayed rows at random places in its task's stream.

    Args:
      value_J: of its strategy; None replays nothing.
    """
    train = fleet.recipe.train
    own = reading.task_seed(train.seed, str(at["task"]), int(at["seed"]))
    if value_J is None:
        return Task("", rows, own, train.steps)
    extra = math.ceil(train.steps * replay.ratio)
    p_P = weights(value_J[upstream.pool], replay.temperature)
    drawn = draw(p_P, extra * train.batch_size, own)
    order = mixing.inserted(len(rows), train.steps * train.batch_size, drawn, own)
    candidates = [upstream.trained[i] for i in upstream.pool]
    return Task("", [*rows, *candidates], own, train.steps + extra, order)


def compare(
    fleet: Fleet,
    grid: Sequence[Cell],
    upstream: Upstream,
    heldout: Mapping[str, Sequence[Encoded]],
) -> Compared:
    """Trains every cell, and measures forgetting and the task itself under each.

    Args:
      heldout: rows of each task that none of its fine-tunes saw.

    Raises:
      UserError: a cell's loss was not finite.
    """
    measuring = [upstream.scored[i] for i in upstream.held]
    evaluated = measuring + [e for rows in heldout.values() for e in rows]
    done = train_and_score(fleet, "replay", [cell.task for cell in grid], evaluated)
    if done.failed:
        raise UserError(
            f"strategies cannot be compared without {grids.failed(grid, done.failed)}; {ADVICE}"
        )
    assert done.table is not None
    N = len(measuring)
    tokens = done.table.tokens.values[0]
    nll = dict(zip(done.table.model.values.tolist(), done.table.nll_sum.values, strict=True))
    base = nll[BASE][:N] / tokens[:N]
    ends = N + np.cumsum([0, *map(len, heldout.values())])
    rows = {name: slice(*ends[m : m + 2]) for m, name in enumerate(heldout)}

    def forgetting(cell: Cell) -> float:
        return _mean(nll[cell.name][:N] / tokens[:N] - base)

    def own_loss(cell: Cell) -> float:
        at = rows[str(cell.at["task"])]
        return nll_mean(nll[cell.name][at], tokens[at])

    z = grids.gather(grid, {c.name: forgetting(c) for c in grid}, unit="nats a token")
    loss = grids.gather(grid, {c.name: own_loss(c) for c in grid}, unit="nats a token")
    if not np.isfinite(z).any():
        raise UserError("no forgetting is finite: the base or every fine-tune gives no numbers")
    return Compared(z, loss, _mean(base), done)


def _mean(values: np.ndarray) -> float:
    """Over what is finite; NaN where nothing is."""
    known = np.isfinite(values)
    return float(values[known].mean()) if known.any() else np.nan
