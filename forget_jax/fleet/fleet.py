"""A fleet of fine-tunes: trained together in groups, each adapter kept, all examples scored."""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr

from forget_jax import distributed, files
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.fleet import fitting
from forget_jax.fleet.cells import BASE
from forget_jax.lm import sharding
from forget_jax.lm.hf import base as bases
from forget_jax.lm.hf import checkpoint, peft
from forget_jax.lm.hf.base import Base
from forget_jax.lm.model import Adapters, Model, stack
from forget_jax.runs import manifest, once
from forget_jax.runs.tracing import Watch
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import disk
from forget_jax.scoring import table as tables
from forget_jax.scoring.settings import Score
from forget_jax.training.checkpoints import Checkpoints
from forget_jax.training.loop import (
    Failure,
    Listener,
    Outcome,
    Recipe,
    Task,
    train,
)
from forget_jax.types import Tree

ADVICE = "lower train.lr or raise train.warmup, and start in a new workdir"


@dataclasses.dataclass(frozen=True)
class Fleet:
    """What the fine-tunes of a run share.

    Attributes:
      work: the run's folder.
      base: what each of them starts from.
      recipe: how they are trained.
      score: how examples are scored under them.
      together: the most that train at a time; 0 for as many as fit into memory.
      context: the most tokens of a row; 0 for the model's own.
    """

    work: Workdir
    base: Base
    recipe: Recipe
    score: Score = dataclasses.field(default_factory=Score)
    together: int = 0
    context: int = 0

    @property
    def full(self) -> bool:
        """Whether whole models are trained, rather than adapters."""
        return self.recipe.lora is None

    def folder(self, name: str) -> files.Path:
        """Where the adapter (or the model) of a fine-tune is kept."""
        return self.work / "adapters" / files.safe_name(name)

    def trained(self, tree: Tree) -> tuple[Model, Adapters | None]:
        """A single trained tree as what is scored: the base with an adapter, or a whole model."""
        if self.recipe.lora is None:
            return Model(self.base.model.config, tree), None
        return self.base.model, Adapters(self.recipe.lora, tree)

    def load(self, name: str) -> tuple[Model, Adapters | None]:
        """The base, or a fine-tune that was kept: model and single adapter."""
        if name == BASE:
            return self.base.model, None
        if self.full:
            return bases.read(self.folder(name)), None
        adapter = peft.load(self.folder(name), self.base.model, self.base.path)
        return self.base.model, Adapters(adapter.config, sharding.put(adapter.tree))


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a fleet leaves.

    Attributes:
      table: the scores, whose first model is `base`; None where another part still has to be done.
      useful_fraction: real tokens over tokens computed in training; None where none was trained.
      failed: by name, the fine-tunes whose loss was not finite; the table is without them.
    """

    table: xr.Dataset | None
    useful_fraction: float | None
    failed: dict[str, Failure]


@contextlib.contextmanager
def journal(
    fleet: Fleet, stage: str, what: str | None = None
) -> Iterator[tuple[Checkpoints, Listener]]:
    """A training's checkpoints and records in the run's folder, for `train` to write to.

    Args:
      stage: names both; `a/b` is a part of stage `a`.
      what: names it on the progress line; None takes the stage.
    """
    work = fleet.work
    checkpoints = Checkpoints(work / "checkpoints" / files.safe_name(stage))
    settings = fleet.recipe.train
    with Watch(
        work.path,
        stage,
        trace=settings.trace,
        trace_steps=settings.trace_steps,
        tensorboard=settings.tensorboard,
        wandb=settings.wandb,
    ) as watch:

        def log(record: dict[str, Any]) -> None:
            work.metrics.add(stage, record)
            watch(record)

        start = functools.partial(work.metrics.resume, stage)
        yield checkpoints, Listener(what or stage, log, work.metrics.flush, start)
    checkpoints.close()


@dataclasses.dataclass(frozen=True)
class Revision:
    """Orders of rows that are changed while they are trained on.

    Attributes:
      marks: numbers of steps, rising.
      concerns: whether a task is one of those.
      look: what is seen at a mark of the tasks it concerns, from the group's trained tree: plain
        data, kept in the run's folder.
      revise: the group from the mark on, from what was seen; orders up to there stay as they are.
    """

    marks: Sequence[int] = ()
    concerns: Callable[[Task], bool] = lambda task: False
    look: Callable[[Sequence[Task], Tree], Any] = lambda group, trained: None
    revise: Callable[[Sequence[Task], int, Any], Sequence[Task]] = lambda group, mark, seen: group


NOTHING = Revision()


def _train(fleet: Fleet, stage: str, group: Sequence[Task], revision: Revision) -> Outcome:
    """Trains a group to its end, in phases where its orders are revised; resumes in each."""
    base, what = fleet.base.model, f"train {len(group)} runs"
    if not any(revision.concerns(task) for task in group):
        revision = NOTHING
    for mark in revision.marks:
        path = fleet.work / "revisions" / f"{files.safe_name(stage)}-{mark}.json"
        seen = once.kept(path)
        if seen is None:
            with journal(fleet, stage, f"{what} to step {mark}") as (checkpoints, listener):
                checkpoints.forget_after(mark)
                outcome = train(
                    base, fleet.recipe, group, checkpoints, until=mark, listener=listener
                )
            seen = once.keep(path, revision.look(group, outcome.trainable))
            fleet.work.tick()
        group = revision.revise(group, mark, seen)
    with journal(fleet, stage, what) as (checkpoints, listener):
        return train(base, fleet.recipe, group, checkpoints, listener=listener)


def train_and_score(
    fleet: Fleet,
    stage: str,
    tasks: Sequence[Task],
    encoded: Sequence[Encoded],
    revision: Revision = NOTHING,
) -> Scored:
    """Trains every task and scores all examples under the base and each of them; resumes.

    Args:
      stage: names the metric records: `stage/0`, `stage/1`, … by group.
      revision: of some tasks' orders while they train.

    Raises:
      UserError: no task is left with a finite loss.
    """
    work, recipe = fleet.work, fleet.recipe
    together = tasks_together(fleet, len(tasks))
    groups = [tasks[i : i + together] for i in range(0, len(tasks), together)]
    names = [BASE, *(task.name for task in tasks)]
    table = tables.Table(work / "scores.zarr", names, encoded, fleet.score)
    useful: list[float] = []
    failed: dict[str, Failure] = {}
    for number, group in enumerate(groups):
        if not work.has_part(number):
            continue
        useful.append(recipe.plan(fleet.base.model.config, group).useful_fraction())
        ends = kept(fleet, group)
        if ends is not None:
            trained, lost = load_group(fleet, group, ends)
        else:
            outcome = _train(fleet, f"{stage}/{number}", group, revision)
            keep(fleet, group, outcome)
            trained, lost = outcome.trainable, outcome.failures
        failed |= lost
        _score(fleet, table, group, trained, with_base=number == 0)
        work.tick()
    fraction = float(np.mean(useful)) if useful else None
    if work.parts:
        return Scored(None, fraction, failed)
    scored = tables.complete(work / "scores.zarr")
    disk.tidy(work / "scores.zarr")
    if len(failed) == len(tasks):
        raise UserError(f"no task is left: the loss of each was not finite; {ADVICE}")
    left = [n for n in scored.model.values if n not in failed]
    return Scored(scored.sel(model=left), fraction, failed)


def tasks_together(fleet: Fleet, count: int) -> int:
    """How many of so many tasks train together.

    What was chosen by memory is kept in the run's folder: a run resumed elsewhere keeps its groups.
    """
    if fleet.full or fleet.together:
        return 1 if fleet.full else fleet.together

    def choose() -> dict[str, int]:
        model = fleet.base.model
        wants = fitting.Wants(fleet.context or model.config.context, fleet.recipe, fleet.score)
        chosen = distributed.agreed(fitting.most_together(model.config, model.dtype, wants, count))
        print(f"{chosen} of {count} tasks fit into memory together", file=sys.stderr)
        return {"tasks_together": chosen}

    return int(once.once(fleet.work / "groups.json", choose)["tasks_together"])


DONE = "done.json"  # of a fine-tune's folder, written last: how it ended, and its files' digests


def kept(fleet: Fleet, group: Sequence[Task]) -> list[dict[str, Any]] | None:
    """How each of a group ended, where all were trained and kept whole by an earlier start."""
    found = [once.kept(fleet.folder(task.name) / DONE) for task in group]
    ends = [end for end in found if end is not None]
    if len(ends) < len(group):
        return None
    damaged = distributed.agreed(
        [
            os.fspath(fleet.folder(task.name) / name)
            for task, end in zip(group, ends, strict=True)
            for name in manifest.changed(fleet.folder(task.name), end["files"])
        ]
        if distributed.is_writer()
        else []
    )
    if damaged:
        print(f"{damaged[0]} is damaged; it is trained again", file=sys.stderr)
    return None if damaged else ends


def keep(fleet: Fleet, group: Sequence[Task], outcome: Outcome) -> None:
    """Keeps what was trained: PEFT adapters, or whole checkpoints."""
    whole = sharding.fetch(outcome.trainable)
    for m, task in enumerate(group):
        folder, failure = fleet.folder(task.name), outcome.failures.get(task.name)
        model, adapter = fleet.trained(jax.tree.map(lambda x, m=m: x[m], whole))
        if adapter is None:
            checkpoint.save(folder, model, fleet.base.tokenizer)
        else:
            peft.save(folder, adapter, model.config, fleet.base.path)
        end = {"task": task.name, "seed": task.seed, "steps": outcome.steps[task.name]}
        why = None if failure is None else failure._asdict()
        found: dict[str, str] = {}
        if distributed.is_writer():
            found = manifest.digests(folder, (f for f in files.walk(folder) if f.name != DONE))
        once.keep(folder / DONE, end | {"failed": why, "files": found})
    fleet.work.metrics.flush()
    fleet.work.tick()


def load_group(
    fleet: Fleet, group: Sequence[Task], ends: Sequence[dict[str, Any]]
) -> tuple[Tree, dict[str, Failure]]:
    """The trainable trees of a group that was kept (task axis first), and which of it failed."""
    folders = [fleet.folder(task.name) for task in group]
    if fleet.full:
        whole = jax.tree.map(lambda x: x[None], bases.read(folders[0]).params)
    else:
        whole = stack([peft.load(f, fleet.base.model, fleet.base.path) for f in folders]).tree
    lost = {end["task"]: Failure(**end["failed"]) for end in ends if end["failed"]}
    return sharding.put(whole), lost


def all_trained(outcome: Outcome) -> Tree:
    """The trained tree where every task ended well.

    Raises:
      UserError: a task's loss was not finite.
    """
    for name, failure in outcome.failures.items():
        raise UserError(f"{failure.line(name)}; {ADVICE}")
    return outcome.trainable


def _score(
    fleet: Fleet, table: tables.Table, group: Sequence[Task], trained: Tree, with_base: bool
) -> None:
    """Scores what is not scored yet of a group, the base beside the first."""
    names = [task.name for task in group]
    if fleet.recipe.lora is None:
        if with_base:
            table.fill(fleet.base.model, None, [BASE])
        model, _ = fleet.trained(jax.tree.map(lambda x: x[0], trained))
        table.fill(model, None, names, fleet.base.model)
        return
    adapters_K = Adapters(fleet.recipe.lora, trained)
    if with_base:
        names, adapters_K = [BASE, *names], adapters_K.with_base()
    table.fill(fleet.base.model, adapters_K, names)
