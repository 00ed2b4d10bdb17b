"""A fleet of tasks: trained together in groups, each adapter kept, all examples scored."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from ml_collections import ConfigDict

from forget_jax import distributed, files
from forget_jax.commands import models
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.lm import sharding
from forget_jax.lm.hf import checkpoint, peft
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.runs import tracing
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import disk
from forget_jax.scoring import table as scores
from forget_jax.training.checkpoints import Checkpoints
from forget_jax.training.loop import Outcome, StepPlan, Task, train

Tree = Any


class Scored(NamedTuple):
    """What a fleet leaves.

    Attributes:
      table: the scores, whose first model is `base`; None where another part still has to be done.
      figures: `useful_fraction` (real tokens over tokens computed in training), and `failed`: by
        name, the tasks whose loss was not finite; the table is without them.
    """

    table: xr.Dataset | None
    figures: dict[str, Any]


def train_and_score(
    config: ConfigDict,
    work: Workdir,
    stage: str,
    model: Any,
    params: Tree,
    tasks: Sequence[Task],
    encoded: Sequence[Encoded],
) -> Scored:
    """Trains every task and scores all examples under the base and each of them; resumes.

    Args:
      stage: names the metric records: `stage/0`, `stage/1`, … by group.

    Raises:
      UserError: no task is left with a finite loss.
    """
    together = models.tasks_together(config, work, model, len(tasks))
    groups = [tasks[i : i + together] for i in range(0, len(tasks), together)]
    table = scores.Table(work, ["base", *(task.name for task in tasks)], encoded, config.score)
    useful: list[float] = []
    failed: dict[str, Any] = {}
    for number, group in enumerate(groups):
        if not work.has_part(number):
            continue
        useful.append(StepPlan(group, models.loop(config.train)).useful_fraction())
        trained, lost = _trained(config, work, f"{stage}/{number}", model, params, group)
        failed |= lost
        _score(config, work, model, params, table, group, trained, number == 0)
    figures = {"useful_fraction": float(np.mean(useful)) if useful else None, "failed": failed}
    if work.parts:
        return Scored(None, figures)
    scored = disk.read(work / "scores.zarr")
    scores.check_complete(scored)
    disk.tidy(work / "scores.zarr")
    if len(failed) == len(tasks):
        raise UserError(f"no task is left: the loss of each was not finite; {ADVICE}")
    return Scored(scored.sel(model=[n for n in scored.model.values if n not in failed]), figures)


ADVICE = "lower train.lr or raise train.warmup, and start in a new workdir"


def _trained(
    config: ConfigDict, work: Workdir, stage: str, model: Any, params: Tree, group: Sequence[Task]
) -> tuple[Tree, dict[str, Any]]:
    """The group's adapters (task axis first) or full parameters: loaded, or trained and saved.

    Also, by name, the tasks that failed; these are there in their last finite state.
    """
    adapter = models.adapter(config)
    folders = [work / "adapters" / files.safe_name(task.name) for task in group]
    if distributed.agreed(all((f / "done.json").exists() for f in folders)):
        if adapter is None:
            loaded = [models.read(folders[0])[1]]
        else:
            loaded = [peft.load(f, model, params, config.model.path)[1] for f in folders]
        whole = jax.tree.map(lambda *x: np.stack(x), *loaded)
        ends = [files.read_json(f / "done.json") for f in folders]
        return sharding.put(whole), {e["task"]: e["failed"] for e in ends if e["failed"]}
    outcome = run_training(config, work, stage, model, params, group, f"train {len(group)} tasks")
    whole = sharding.fetch(outcome.trainable)
    failed = {name: why._asdict() for name, why in outcome.failures.items()}
    for m, (task, folder) in enumerate(zip(group, folders, strict=True)):
        one = jax.tree.map(lambda x, m=m: x[m], whole)
        if adapter is None:
            checkpoint.save(folder, model, one, tokenizer=tokenizers.load(config.model.path))
        else:
            peft.save(folder, adapter, one, model, config.model.path)
        end = {"task": task.name, "seed": task.seed, "steps": outcome.steps[task.name]}
        files.write_json(folder / "done.json", end | {"failed": failed.get(task.name)})
    work.metrics.flush()
    work.tick()
    return outcome.trainable, failed


def run_training(
    config: ConfigDict,
    work: Workdir,
    stage: str,
    model: Any,
    params: Tree,
    tasks: Sequence[Task],
    what: str,
    initial: Tree | None = None,
) -> Outcome:
    """One resumable call of `train` with its checkpoints and its records in the metrics."""
    checkpoints = Checkpoints(work / "checkpoints" / files.safe_name(stage))
    work.metrics.resume(stage, checkpoints.latest() or 0)
    with tracing.Watch(
        work.path,
        stage,
        trace=config.train.trace,
        trace_steps=config.train.trace_steps,
        tensorboard=config.train.tensorboard,
    ) as watch:

        def log(record: dict[str, Any]) -> None:
            work.metrics.add(stage, record)
            watch(record)

        outcome = train(
            models.for_training(model, config.train),
            models.adapter(config),
            params,
            tasks,
            models.optimizer(config.train),
            models.loop(config.train),
            checkpoints,
            initial=initial,
            log=log,
            on_save=work.metrics.flush,
            what=what,
        )
    checkpoints.close()
    return outcome


def all_trained(outcome: Outcome) -> Tree:
    """The trained tree where every task ended well.

    Raises:
      UserError: a task's loss was not finite.
    """
    for name, failure in outcome.failures.items():
        raise UserError(f"{failure.line(name)}; {ADVICE}")
    return outcome.trainable


def _score(
    config: ConfigDict,
    work: Workdir,
    model: Any,
    params: Tree,
    table: scores.Table,
    group: Sequence[Task],
    trained: Tree,
    with_base: bool,
) -> None:
    """Scores what is not scored yet of a group, the base beside the first."""
    adapter = models.adapter(config)
    names = [task.name for task in group]
    if adapter is None:
        if with_base:
            table.fill(model, None, params, None, ["base"])
        table.fill(model, None, jax.tree.map(lambda x: x[0], trained), None, names)
    else:
        if with_base:
            names = ["base", *names]
            trained = jax.tree.map(lambda x: jnp.concatenate([jnp.zeros_like(x[:1]), x]), trained)
        table.fill(model, adapter, params, trained, names)
    work.tick()
