"""The sweep of `scaling`: from its settings to the runs that are trained, and their points."""

import dataclasses

import pandas as pd

from forget_jax.commands import early, values
from forget_jax.commands.settings import Scaling
from forget_jax.data.reading import held_out, task_names, task_seed
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.fleet import cells as grids
from forget_jax.fleet import fitting, grid, methods
from forget_jax.fleet.cells import Cell
from forget_jax.fleet.fleet import Fleet
from forget_jax.fleet.grid import Measured
from forget_jax.fleet.methods import Method
from forget_jax.fleet.tasks import say_warmup
from forget_jax.lm.hf import about, modules
from forget_jax.lm.lora import LoRAConfig
from forget_jax.runs.workdir import Workdir
from forget_jax.training.loop import Recipe, Task
from forget_jax.training.optimizer import Schedule


def check(settings: Scaling) -> None:
    """Refuses an empty grid before anything is trained."""
    if not (settings.ranks and settings.steps and settings.methods and settings.lrs):
        raise UserError("ranks, steps, methods and lrs name at least one value each")
    if not (settings.task or settings.tasks) or not settings.upstream:
        raise UserError("give task and upstream (data sets), or points.path (a table to fit)")
    found = [methods.of(name) for name in settings.methods]
    longest = dataclasses.replace(settings.train, steps=max(settings.steps))
    say_warmup(longest, field="the longest of steps")
    early.check(settings.model, dataclasses.replace(settings.lora, rank=max(settings.ranks)))
    if (shape := early.shape(settings.model)) is not None:
        for method in found:
            method.check(shape)


def measure(settings: Scaling, work: Workdir) -> tuple[pd.DataFrame, dict[str, str]]:
    """Trains the grid and measures it at every mark; the points, and why runs have none."""
    specs = settings.tasks or (settings.task,)
    found = [methods.of(name) for name in dict.fromkeys(settings.methods)]
    whole, adapted = (any(m.whole is w for m in found) for w in (True, False))
    most, lora = max(settings.ranks), settings.lora
    targets = modules.expression(lora.targets)
    scale_1 = LoRAConfig(most, float(most), False, targets, dropout=lora.dropout)
    recipe = Recipe(settings.train, scale_1 if adapted else None)
    reader = values.reader(
        settings.model,
        settings.data,
        recipe,
        settings.score,
        settings.runs_together or 1,
        work,
        kept=int(not adapted),
    )
    path = settings.model.path
    config, dtype = about.config_of(path), about.dtype_of(path)
    if whole and adapted:  # the base stays beside the model that is trained
        alone = dataclasses.replace(recipe, lora=None)
        wants = fitting.Wants(reader.context, alone, settings.score, kept=1)
        fitting.check(config, dtype, wants)
    for method in found:  # where no config.json was here before
        method.check(config)
    trained, heldout = {}, {}
    for name, spec in zip(task_names(specs), specs, strict=True):
        rows = reader.read((spec,)).encoded
        keep = held_out(rows, max(1, round(len(rows) * settings.task_heldout)))
        if keep < 1:
            raise UserError(f"{spec} has {len(rows)} rows: too few to hold some out")
        trained[name, spec], heldout[name] = rows[:keep], rows[keep:]
    upstream = reader.read(settings.upstream, scored=True).encoded
    runs = [
        run
        for (name, spec), rows in trained.items()
        for run in _runs(settings, found, name, spec, rows)
    ]
    runs.sort(key=lambda run: (run.method.whole, run.rank))  # alike ones train together
    grids.check([run.cell for run in runs])
    base = values.base(settings.model, reader)
    fleet = Fleet(work, base, recipe, settings.score, settings.runs_together, settings.data.context)
    marks = sorted(set(settings.steps))
    swept = grid.sweep(fleet, runs, marks, Measured.of(heldout, upstream, settings.metric, fleet))
    return swept.table, swept.failed


def _runs(
    settings: Scaling, found: list[Method], name: str, spec: str, rows: list[Encoded]
) -> list[grid.Run]:
    """Every method, rank, learning rate and seed on a task."""
    train, lora, runs = settings.train, settings.lora, []
    for method in found:
        places = grids.grid(
            task=(name,),
            method=(method.name,),
            rank=(0,) if method.whole else dict.fromkeys(settings.ranks),
            lr=dict.fromkeys(lr or train.lr for lr in settings.lrs),
            seed=range(settings.seeds),
        )
        for at in places:
            rank, seed = int(at["rank"]), int(at["seed"])
            lr = float(at["lr"]) * (settings.full_lr if method.whole else 1.0)
            task = Task(
                "",
                rows,
                task_seed(train.seed, spec, seed),
                max(settings.steps),
                rank=rank,
                scale=1.0 if method.whole else lora.alpha / (rank**0.5 if lora.rslora else rank),
                schedule=Schedule(lr, train.schedule, train.warmup),
                targets=method.targets,
                top=method.top,
            )
            runs.append(grid.Run(Cell({**at, "lr": lr}, task), method, rank))
    return runs
