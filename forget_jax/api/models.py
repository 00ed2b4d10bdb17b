"""Models in a notebook: loading a base, scoring examples under it, fine-tuning tasks together."""

import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import xarray as xr

from forget_jax.api import given
from forget_jax.api.given import Examples
from forget_jax.commands import values
from forget_jax.data.reading import task_name, task_seed
from forget_jax.data.settings import Data
from forget_jax.errors import UserError
from forget_jax.files import PathLike
from forget_jax.fleet import cells, fitting, tasks
from forget_jax.fleet.cells import BASE, Cell
from forget_jax.lm import sharding
from forget_jax.lm.cost import memory
from forget_jax.lm.hf import peft
from forget_jax.lm.hf.base import Base
from forget_jax.lm.model import Adapters
from forget_jax.lm.settings import Lora, ModelPath
from forget_jax.runs.progress import one_line
from forget_jax.scoring import disk
from forget_jax.scoring.groups import groups
from forget_jax.scoring.settings import Score
from forget_jax.scoring.table import NLL, Table
from forget_jax.training.loop import Failure, Listener, Recipe, train
from forget_jax.training.settings import Train

# Settings of a command's run.
OF_A_FOLDER = ("save_every", "trace", "trace_steps", "tensorboard", "wandb")


@dataclasses.dataclass(frozen=True)
class Finetuned:
    """What `finetune` gives.

    Attributes:
      adapters: by task, single ones on the host; `score` and `save_adapter` take them.
      losses: nats a token, a row for each step and a column for each task; NaN after its last step.
      heldout: the same for the held-out losses, where `heldout` examples are kept out.
      failed: by task, why its loss was not finite; `adapters` is without it.
    """

    adapters: dict[str, Adapters] = dataclasses.field(repr=False)
    losses: pd.DataFrame
    heldout: pd.DataFrame
    failed: dict[str, Failure]


def load(path: PathLike, dtype: str = "float32") -> Base:
    """A base model and its tokenizer.

    Says on stderr which special tokens are used, and what memory scoring will take.

    Args:
      path: a Hugging Face checkpoint: a folder, `gs://` folder or hub name.
      dtype: what it computes in, `float32` or `bfloat16`.

    Raises:
      UserError: no model there, a family that is not known, or one that does not fit into memory.
    """
    chosen = {"path": os.fspath(path), "dtype": dtype}
    (model,) = given.settings("load", chosen, ModelPath)
    return values.base(model, values.reader(model, Data(), score=Score()))


def score(
    base: Base,
    data: Examples,
    adapters: Mapping[str, Adapters | PathLike] | Sequence[PathLike] | PathLike | None = None,
    *,
    reading: Mapping[str, Any] | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Log-likelihoods of examples under a base and, beside it, under adapters of it.

    Args:
      base: as `load` gives it.
      data: a data set by name, such as `upstream.jsonl[:100]` or `builtin:facts`; or a list of
        texts, of pairs (prompt, completion), of rows as of a file, or of examples.
      adapters: by name, as `finetune` gives them or the paths of PEFT's; or paths alone.
      reading: fields of `forget_jax.data.settings.Data`, such as `{"template": "tulu"}`.
      **settings: fields of `forget_jax.scoring.settings.Score`.

    Returns:
      Dims `model` (`base` first) and `example`: `nll_sum`, float64, in nats summed over the
      example's target tokens, NaN where it is not finite; `tokens`, int32, how many those are; and
      what `per_token` and `measures` add (docs/scoring.md).

    Raises:
      UserError: data that cannot be read, an adapter of another base or of the name `base`, or an
        unknown setting.
    """
    (chosen,) = given.settings("score", settings, Score)
    encoded = given.encoded(base, data, reading, scored=True)
    held = _adapters(base, adapters)
    with one_line(), tempfile.TemporaryDirectory(prefix="forget_jax_") as folder:
        table = Table(f"{folder}/scores.zarr", [BASE, *held], encoded, chosen)
        for adapters_K, names in groups(BASE, held.items()):
            table.fill(base.model, adapters_K, names)
        with disk.read(table.path) as scored:
            scored.load()
    scored[NLL].attrs.update(units="nats", long_name="negative log-likelihood")
    scored.tokens.attrs.update(units="tokens")
    return scored.assign_attrs(base=base.path)


def _adapters(base: Base, adapters: Any) -> dict[str, Adapters]:
    """Adapters by name, those that are given by path read."""
    if isinstance(adapters, str | os.PathLike):
        adapters = [adapters]
    if not isinstance(adapters, Mapping):
        adapters = {os.fspath(path): path for path in adapters or ()}
    if BASE in adapters:
        raise UserError(f"an adapter is called {BASE}, which is the name of the model itself")
    return {
        name: one if isinstance(one, Adapters) else peft.load(one, base.model, base.path)
        for name, one in adapters.items()
    }


def finetune(
    base: Base,
    data: Mapping[str, Examples] | Sequence[PathLike] | PathLike,
    *,
    reading: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Finetuned:
    """Fine-tunes a LoRA adapter for each of several tasks, as many together as memory allows.

    A task's adapter does not depend on what is trained beside it, and is the one that `associate`
    gives it. Nothing is kept on disk: a run of hours is for the command, which resumes.

    Args:
      base: as `load` gives it.
      data: a task's examples by its name, in any form that `score` takes; or names of data sets,
        which then name the tasks.
      reading: fields of `forget_jax.data.settings.Data`.
      **settings: fields of `forget_jax.training.settings.Train` (`steps`, `batch_size`, `lr`, ...)
        and of `forget_jax.lm.settings.Lora` (`rank`, `alpha`, ...).

    Raises:
      UserError: data that cannot be read, tasks of one name, an unknown setting (names the
        nearest), what does not fit into memory, or no task whose loss was finite.
    """
    config, lora = given.settings("finetune", settings, Train, Lora, without=OF_A_FOLDER)
    if not lora.rank:
        raise UserError("finetune gives adapters: rank must be above 0")
    recipe = Recipe(dataclasses.replace(config, save_every=0), values.adapter(lora))
    assert recipe.lora is not None
    grid = _cells(base, _tasks(data), reading, config)
    together = _together(base, recipe, grid)
    found: dict[str, Adapters] = {}
    failed: dict[str, Failure] = {}
    records: list[list[dict[str, Any]]] = []
    with one_line():
        for i in range(0, len(grid), together):
            group = [cell.task for cell in grid[i : i + together]]
            records.append([])
            listener = Listener(f"finetune {len(group)} tasks", records[-1].append)
            outcome = train(base.model, recipe, group, listener=listener)
            trained = Adapters(recipe.lora, sharding.fetch(outcome.trainable))
            found |= {task.name: trained[m] for m, task in enumerate(group)}
            failed |= outcome.failures
    if len(failed) == len(grid):
        name, why = next(iter(failed.items()))
        raise UserError(f"no task is left: {why.line(name)}; lower lr or raise warmup")
    return Finetuned(
        {name: adapter for name, adapter in found.items() if name not in failed},
        _frame(records, "loss"),
        _frame(records, "heldout"),
        failed,
    )


def _cells(
    base: Base, data: Mapping[str, Examples], reading: Mapping[str, Any] | None, config: Train
) -> list[Cell]:
    """The fine-tunes, each under its task's name."""
    own = tasks.own_values(config, list(data))
    grid = []
    for name, examples in data.items():
        rows = given.encoded(base, examples, reading, scored=False)
        task = tasks.task(name, rows, task_seed(config.seed, name), config, own[name])
        grid.append(Cell({"task": name}, task))
    cells.check(grid)
    return grid


def _together(base: Base, recipe: Recipe, grid: Sequence[Cell]) -> int:
    """How many tasks train together within a device's memory; refuses where not even one does."""
    shape, dtype = base.model.config, base.model.dtype
    rows = [e for cell in grid for e in (*cell.task.examples, *cell.task.heldout)]
    wants = fitting.Wants(max(len(e.ids) for e in rows), recipe)
    count = fitting.most_together(shape, dtype, wants, len(grid))
    memory.check(fitting.plan(shape, dtype, wants, count), shape)
    return count


def _tasks(data: Any) -> dict[str, Examples]:
    """The tasks' examples by name."""
    found: dict[str, Examples] = dict(data) if isinstance(data, Mapping) else {}
    specs = () if found else [data] if isinstance(data, str | os.PathLike) else data
    for spec in specs:
        if not isinstance(spec, str | os.PathLike):
            raise UserError(
                "examples of a task come with its name, such as {'sums': [(prompt, completion)]}"
            )
        name = task_name(os.fspath(spec))
        if name in found:
            raise UserError(f"two tasks are called {name}; give them by name: {{name: data}}")
        found[name] = spec
    if not found:
        raise UserError("no task is given")
    return found


def _frame(records: Sequence[Sequence[dict[str, Any]]], what: str) -> pd.DataFrame:
    """Losses of all groups, by step and task."""
    frames = [
        pd.DataFrame.from_dict({r["step"]: r[what] for r in of if what in r}, orient="index")
        for of in records
    ]
    frame = pd.concat(frames, axis=1).rename_axis(index="step", columns="task")
    frame.attrs["units"] = "nats/token"
    return frame


def save_adapter(path: PathLike, adapter: Adapters, base: Base) -> None:
    """Writes an adapter in PEFT's format, and beside it which base it belongs to.

    Args:
      path: a folder; made where it is missing.
      adapter: a single one, as `finetune` gives it.
      base: what it was trained on.
    """
    peft.save(path, adapter, base.model.config, base.path)
