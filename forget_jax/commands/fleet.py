"""A fleet of tasks: trained together in groups, each adapter kept, all examples scored."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from ml_collections import ConfigDict

from forget_jax import files
from forget_jax.commands import models, scores
from forget_jax.commands.workdir import Workdir
from forget_jax.data.tokenise import Encoded
from forget_jax.lm import checkpoint, peft
from forget_jax.scoring import store
from forget_jax.training.checkpoints import Checkpoints
from forget_jax.training.loop import StepPlan, Task, train

Tree = Any


def train_and_score(
    config: ConfigDict,
    work: Workdir,
    stage: str,
    model: Any,
    params: Tree,
    tasks: Sequence[Task],
    encoded: Sequence[Encoded],
) -> tuple[xr.Dataset, float]:
    """Trains every task and scores all examples under the base and each of them; resumes.

    Args:
      stage: names the metric records: `stage/0`, `stage/1`, … by group.

    Returns:
      The complete table of scores, whose first model is `base`, and the useful-token fraction.
    """
    together = config.tasks_together if config.lora.rank else 1
    groups = [tasks[i : i + together] for i in range(0, len(tasks), together)]
    table = scores.Table(work, ["base", *(task.name for task in tasks)], encoded, config.score)
    useful = []
    for number, group in enumerate(groups):
        useful.append(StepPlan(group, models.loop(config.train)).useful_fraction())
        trained = _trained(config, work, f"{stage}/{number}", model, params, group)
        _score(config, work, model, params, table, group, trained, with_base=number == 0)
    scored = store.read(work / "scores.zarr")
    scores.check_complete(scored)
    return scored, float(np.mean(useful))


def _trained(
    config: ConfigDict, work: Workdir, stage: str, model: Any, params: Tree, group: Sequence[Task]
) -> Tree:
    """The group's adapters (task axis first) or full parameters: loaded, or trained and saved."""
    adapter = models.adapter(config)
    folders = [work / "adapters" / files.safe_name(task.name) for task in group]
    if all((f / "done.json").exists() for f in folders):
        if adapter is None:
            loaded = [checkpoint.load(folders[0])[1]]
        else:
            loaded = [peft.load(f, model, params)[1] for f in folders]
        return jax.tree.map(lambda *x: jnp.stack(x), *loaded)
    trained = run_training(config, work, stage, model, params, group, f"train {len(group)} tasks")
    for m, (task, folder) in enumerate(zip(group, folders, strict=True)):
        one = jax.tree.map(lambda x, m=m: x[m], trained)
        if adapter is None:
            checkpoint.save(folder, model, one)
        else:
            peft.save(folder, adapter, one, model, config.model.path)
        files.write_json(folder / "done.json", {"task": task.name, "seed": task.seed})
    work.metrics.flush()
    work.tick()
    return trained


def run_training(
    config: ConfigDict,
    work: Workdir,
    stage: str,
    model: Any,
    params: Tree,
    tasks: Sequence[Task],
    what: str,
    initial: Tree | None = None,
) -> Tree:
    """One resumable call of `train` with its checkpoints and its records in the metrics."""
    checkpoints = Checkpoints(work / "checkpoints" / files.safe_name(stage))
    work.metrics.resume(stage, checkpoints.latest() or 0)
    trained = train(
        model,
        models.adapter(config),
        params,
        tasks,
        models.optimizer(config.train),
        models.loop(config.train),
        checkpoints,
        initial=initial,
        log=lambda record: work.metrics.add(stage, record),
        on_save=work.metrics.flush,
        what=what,
    )
    checkpoints.close()
    return trained


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
