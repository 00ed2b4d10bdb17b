"""Replay that is chosen while the task trains: probes are scored, the row is completed, and what is
left of the replayed rows is drawn anew (arXiv 2406.14026 §5).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from forget_jax.associations.matrix import Matrix
from forget_jax.data.batches import Buckets
from forget_jax.fleet.cells import Cell
from forget_jax.fleet.fleet import NOTHING, Fleet, Revision
from forget_jax.lm.model import Adapters
from forget_jax.replay.cells import redrawn
from forget_jax.replay.experiment import Upstream, completed
from forget_jax.replay.settings import Replay
from forget_jax.replay.strategies import Sampling, choose, parse
from forget_jax.scoring import likelihood
from forget_jax.scoring.stream import Layout
from forget_jax.training.loop import Task
from forget_jax.types import Tree

NAME = "online"


def is_online(cell: Cell) -> bool:
    """Whether a cell's replayed rows are chosen while it trains."""
    return str(cell.arm.strategy).partition(":")[0] == NAME


def revision(
    fleet: Fleet,
    grid: Sequence[Cell],
    matrix: Matrix | None,
    upstream: Upstream,
    own_rows: Mapping[str, int],
    replay: Replay,
) -> Revision:
    """What changes at each mark; nothing where no cell is online.

    Args:
      matrix: None where no cell is online.
      own_rows: how many rows each task trains on, beside what is replayed.
    """
    cells = {cell.name: cell for cell in grid if is_online(cell)}
    if not cells:
        return NOTHING
    train, score = fleet.recipe.train, fleet.score
    marks = sorted({max(1, round(at * train.steps)) for at in replay.online_at})
    probes = [upstream.scored[i] for i in upstream.observed]
    layout = Layout.of(probes, Buckets.of(probes, score.buckets), score.rows)
    tokens_S = np.array([e.tokens for e in probes])

    def look(group: Sequence[Task], trained: Tree) -> dict[str, Any]:
        """Forgetting of the probes under every online task of a group, nats a token."""
        base_S = likelihood.score(fleet.base.model, None, probes, layout)[0] / tokens_S
        seen = {}
        for m, task in enumerate(group):
            if task.name not in cells:
                continue
            model, adapter = fleet.trained(jax.tree.map(lambda x, m=m: x[m], trained))
            one = (
                None
                if adapter is None
                else Adapters(adapter.config, jax.tree.map(lambda x: x[None], adapter.tree))
            )
            nll_S = likelihood.score(model, one, probes, layout)[0] / tokens_S
            seen[task.name] = (nll_S - base_S).tolist()
        return seen

    def revise(group: Sequence[Task], mark: int, seen: Any) -> Sequence[Task]:
        return [
            _again(cells[task.name], task, mark, np.array(seen[task.name]))
            if task.name in cells
            else task
            for task in group
        ]

    def _again(cell: Cell, task: Task, mark: int, seen_S: np.ndarray) -> Task:
        name = str(cell.at["task"])
        assert matrix is not None
        _, row_J = completed(matrix, name, upstream, seen_S, replay.method)
        _, sampling = parse(cell.arm.strategy)
        how = Sampling(sampling, replay.temperature, replay.best_of)
        assert task.order is not None
        left = int((task.order[mark * train.batch_size :] >= own_rows[name]).sum())
        drawn = choose(row_J[upstream.pool], left, task.seed, how, mark)
        return redrawn(task, own_rows[name], mark * train.batch_size, drawn)

    return Revision(marks, lambda task: task.name in cells, look, revise)
