"""A sweep of fine-tunes, measured many times on their way: the points that laws are fitted to.

Adapters of all ranks, methods, learning rates, tasks and seeds train together: a lower rank is a
higher one whose other ranks stay zero, and so is a kernel that a method leaves out. A method that
trains the model itself trains alone. With a learning rate that is constant after warm-up, every
number of steps is a point of one trajectory.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from forget_jax import files
from forget_jax.data.batches import Buckets
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.fleet import methods
from forget_jax.fleet.cells import Cell
from forget_jax.fleet.fleet import ADVICE, Fleet, journal, tasks_together
from forget_jax.fleet.methods import Method
from forget_jax.lm.lora import LoRAConfig
from forget_jax.lm.model import Adapters, Model
from forget_jax.runs.once import keep, kept
from forget_jax.runs.progress import Progress
from forget_jax.scoring import divergence
from forget_jax.scoring.stream import Layout
from forget_jax.training.loop import Recipe, train
from forget_jax.training.step import scale_updates
from forget_jax.types import Tree

NATS = "nats a token"
UNITS = {
    "P": "trained parameters, without embeddings and head",
    "P_base": "parameters of the base, likewise",
    "steps": "optimizer updates",
    "rank": "of the adapters; 0 where the model itself is trained",
    "lr": "peak learning rate",
    "seed": "number of the repetition",
    **dict.fromkeys(("l_ft", "l_f"), NATS),
    **{name: "share of tokens" if name == "agree" else NATS for name in divergence.MEASURES},
    **{f"{name}_ft": "share of tokens" if name == "agree" else NATS
       for name in divergence.MEASURES if name != "nll"},
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Run:
    """One fine-tune of a sweep.

    Attributes:
      cell: its coordinates, and what is trained on; its task's rank and scale are those of `rank`.
      method: what is trained.
      rank: of its adapters; 0 where the model itself is trained.
    """

    cell: Cell
    method: Method
    rank: int


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is measured at every mark.

    Attributes:
      task: held-out rows by the cells' coordinate `task`, for l_ft.
      upstream: examples the base knew, for l_f.
      metric: which of `divergence.MEASURES` l_f is.
      layout: of all of them.
    """

    task: Mapping[str, Sequence[Encoded]]
    upstream: Sequence[Encoded]
    metric: str
    layout: Layout

    @classmethod
    def of(
        cls,
        task: Mapping[str, Sequence[Encoded]],
        upstream: Sequence[Encoded],
        metric: str,
        fleet: Fleet,
    ) -> "Measured":
        """With a layout as the fleet scores."""
        every = [*upstream, *(row for rows in task.values() for row in rows)]
        layout = Layout.of(every, Buckets.of(every, fleet.score.buckets), fleet.score.rows)
        return cls(task, upstream, metric, layout)


@dataclasses.dataclass(frozen=True)
class Swept:
    """What a sweep leaves.

    Attributes:
      table: a row for each run and mark, its units in `attrs["units"]`.
      failed: by run, why it has no points from some step on.
    """

    table: pd.DataFrame
    failed: dict[str, str]


def sweep(fleet: Fleet, runs: Sequence[Run], marks: Sequence[int], measured: Measured) -> Swept:
    """Trains the runs in groups and measures each after each of the marks; resumes mark by mark.

    Args:
      fleet: its adapters have the highest rank of all runs, and a scaling of 1.
      marks: numbers of steps, rising; the runs' tasks train to the last of them.

    Returns:
      P (trained parameters), P_base (the base's), steps, the cells' coordinates, run, and in nats
      a token: l_ft, kl_ft and the other measures on the task's own held-out rows (divergence from
      the base there), l_f and every measure upstream.

    Raises:
      UserError: no run has a finite loss, or a method trains nothing of this model.
    """
    adapters = [run for run in runs if not run.method.whole]
    together = tasks_together(fleet, len(adapters)) if adapters else 1
    groups = [adapters[i : i + together] for i in range(0, len(adapters), together)]
    groups += [[run] for run in runs if run.method.whole]
    sizes = {run.cell.name: _size(fleet, run) for run in runs}
    whole = methods.parameters(methods.of("full"), fleet.base.model.params, "", 0)
    found: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for number, group in enumerate(groups):
        paths = {mark: fleet.work / "points" / f"{number}" / f"{mark}.json" for mark in marks}
        for mark, path in paths.items():
            held = kept(path)
            if held is None:
                for later in (m for m in marks if m > mark):  # lost in the middle: from there on
                    files.remove(paths[later])
                held = keep(path, _mark(fleet, (number, len(groups)), group, mark, measured))
                fleet.work.tick()
            found += [
                {"P": sizes[point["run"]], "P_base": whole, "steps": mark, **point}
                for point in held["points"]
            ]
            failed |= held["failed"]
        with journal(fleet, _stage(number)) as (checkpoints, _):
            checkpoints.forget_after(-1)  # its points are there; a sweep's would fill a disk
    if not found:
        raise UserError(f"no run has a finite loss; {ADVICE}")
    table = pd.DataFrame(found)
    table.attrs["units"] = {name: UNITS[name] for name in table if name in UNITS}
    return Swept(table, failed)


def _stage(number: int) -> str:
    return f"scaling/{number}"


def _size(fleet: Fleet, run: Run) -> int:
    """Trained parameters of a run."""
    lora = fleet.recipe.lora
    targets = "" if lora is None else lora.targets
    return methods.parameters(run.method, fleet.base.model.params, targets, run.rank)


def _recipe(fleet: Fleet, group: Sequence[Run]) -> Recipe:
    """How a group is trained: its adapters have the highest rank in it, and a scaling of 1."""
    recipe, lora = fleet.recipe, fleet.recipe.lora
    if lora is None or group[0].method.whole:
        return dataclasses.replace(recipe, lora=None, frozen=group[0].method.frozen)
    most = max(run.rank for run in group)
    return dataclasses.replace(recipe, lora=dataclasses.replace(lora, rank=most, alpha=float(most)))


def _mark(
    fleet: Fleet, place: tuple[int, int], group: Sequence[Run], mark: int, measured: Measured
) -> dict[str, Any]:
    """Trains a group to a mark and measures it there: its points, and which runs failed."""
    number, count = place
    recipe = _recipe(fleet, group)
    what = f"train {len(group)} run{'s' * (len(group) > 1)} to step {mark}"
    what += f" ({number + 1} of {count} groups)" if count > 1 else ""
    with journal(fleet, _stage(number), what) as (checkpoints, listener):
        checkpoints.forget_after(mark)
        outcome = train(
            fleet.base.model,
            recipe,
            [run.cell.task for run in group],
            checkpoints,
            until=mark,
            listener=listener,
        )
    failures = {name: failure.line(name) for name, failure in outcome.failures.items()}
    if len(failures) == len(group):
        return {"points": [], "failed": failures}
    tree = outcome.trainable
    if recipe.lora is not None:
        tree = scale_updates(tree, jnp.array([r.cell.task.scale for r in group], jnp.float32))
    figures = _figures(_Group(fleet.base.model, recipe.lora, tree), group, measured, mark)
    points = [
        {**run.cell.at, "run": run.cell.name, **point}
        for run, point in zip(group, figures, strict=True)
        if run.cell.name not in failures
    ]
    return {"points": points, "failed": failures}


@dataclasses.dataclass(frozen=True)
class _Group:
    """What a group has learned: stacked adapters with their scales, or one whole model."""

    base: Model
    lora: LoRAConfig | None
    tree: Tree

    def means(
        self,
        which: Sequence[int],
        rows: Sequence[Encoded],
        layout: Layout,
        on_batch: Callable[[int], None] = lambda examples: None,
    ) -> list[dict[str, float]]:
        """Every measure of some of the runs: means over all target tokens of the rows."""
        if self.lora is None:
            tuned = Model(self.base.config, jax.tree.map(lambda x: x[0], self.tree))
            sums = divergence.diverge(self.base, None, rows, layout, on_batch, tuned)
        else:
            adapters_K = Adapters(self.lora, self.tree)
            if len(which) < adapters_K.count:
                adapters_K = adapters_K[np.asarray(which)]
            sums = divergence.diverge(self.base, adapters_K, rows, layout, on_batch)
        tokens = sum(row.tokens for row in rows)
        means_K = {name: values.sum(1) / tokens for name, values in sums.items()}
        return [
            {name: float(values[k]) for name, values in means_K.items()} for k in range(len(which))
        ]


def _figures(
    learned: _Group, group: Sequence[Run], measured: Measured, mark: int
) -> list[dict[str, float]]:
    """Every run's figures after `mark` steps, each a mean over tokens: nats, or a share."""
    tasks, layout = [str(run.cell.at["task"]) for run in group], measured.layout
    own: list[dict[str, float]] = [{} for _ in group]
    with Progress(f"measure at step {mark}", len(measured.upstream), unit="example") as progress:
        for task in dict.fromkeys(tasks):
            mine = [k for k, name in enumerate(tasks) if name == task]
            for k, found in zip(
                mine, learned.means(mine, measured.task[task], layout), strict=True
            ):
                own[k] = {"l_ft": found.pop("nll")} | {f"{n}_ft": v for n, v in found.items()}
        every = range(len(group))
        upstream = learned.means(every, measured.upstream, layout, progress.at)
    return [
        {**mine, "l_f": found[measured.metric], **found}
        for mine, found in zip(own, upstream, strict=True)
    ]
