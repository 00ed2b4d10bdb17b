"""`forget-jax associate`: M tasks fine-tuned together, N upstream examples scored, the matrix."""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from forget_jax.associations import improved
from forget_jax.associations import summary as figures
from forget_jax.associations.matrix import Matrix, save
from forget_jax.commands import early, existing, matrices, values
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Associate
from forget_jax.commands.summaries import Associate as Summary
from forget_jax.commands.summaries import Failed, OverContext, Training
from forget_jax.data import reading
from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader, Texts, whole
from forget_jax.errors import UserError
from forget_jax.fleet import cells as grids
from forget_jax.fleet import tasks
from forget_jax.fleet.cells import BASE, Cell
from forget_jax.fleet.fleet import Fleet, Scored, tasks_together, train_and_score
from forget_jax.lm.cost import peak
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import recite
from forget_jax.scoring.likelihood import nll_mean
from forget_jax.scoring.recite import Asked, Recited
from forget_jax.scoring.table import NLL


@dataclasses.dataclass(frozen=True)
class Measured:
    """What rises when an example is forgotten.

    Attributes:
      loss: by model, `base` among them, a figure of every upstream example (N,).
      columns: which of the N can be forgotten at all, and so are columns of the matrix.
      figures: what the summary holds of the measurement itself.
    """

    loss: dict[str, np.ndarray]
    columns: np.ndarray
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)

    def z(self, names: Sequence[str]) -> np.ndarray:
        """Forgetting of the columns by each named model: its loss less the base's."""
        return np.array([(self.loss[n] - self.loss[BASE])[self.columns] for n in names])


def check(settings: Associate) -> None:
    """Refuses tasks that cannot be told apart."""
    if existing.given(settings):
        existing.check(settings)
        return
    names = reading.task_names(settings.tasks)
    if not names:
        raise UserError(
            "config.tasks names no task; give tasks to train, or adapters, models or scores of "
            "fine-tunes that exist"
        )
    if not settings.upstream:
        raise UserError("no data set is named; give upstream")
    grids.check_names(names)
    grids.check_names([grids.label(at) for at in _grid(settings, names)])
    tasks.say_warmup(settings.train, tasks.own_values(settings.train, names))
    early.check(settings.model, settings.lora)


def _grid(settings: Associate, names: Sequence[str]) -> list[dict[str, str | int]]:
    """The coordinates of one fine-tune for each task, and of a second of those repeated."""
    again = names[: settings.repeat_tasks]
    return [{"task": n, "seed": s} for s, some in enumerate((names, again)) for n in some]


def run(settings: Associate, work: Workdir) -> Ended:
    """Measures the forgetting matrix; resumes."""
    if existing.given(settings):
        return _existing(settings, work)
    count = len(settings.tasks) + min(settings.repeat_tasks, len(settings.tasks))
    reader = values.fleet_reader(settings, work, count)
    names = reading.task_names(settings.tasks)
    texts = {name: reader.read((spec,)) for name, spec in zip(names, settings.tasks, strict=True)}
    upstream = reader.read(settings.upstream, scored=True)
    kept = {e.name for e in upstream.encoded}
    examples = [e for e in upstream.examples if e.name in kept]
    matrices.keep_examples(work, examples)
    grid = _cells(settings, texts)
    fleet = values.fleet(settings, work, reader)
    reciting = _reciting(settings, fleet, reader, examples)
    if reciting is not None and work.has_part(0):
        _mistakes(reciting([BASE]))  # refuses a base that knows nothing before any training
    done = train_and_score(fleet, "associate", [c.task for c in grid], upstream.encoded)
    recited = None if reciting is None else reciting(_mine(fleet, grid, done))
    if done.table is None:
        part = f"{work.part}/{work.parts}"
        return Ended(
            None,
            f"part {part} is done; the same command without --config.part makes the matrix",
        )
    measured = _nll(done.table) if recited is None else _mistakes(recited)
    over = {name: of.over_context for name, of in texts.items()}
    over["upstream"] = upstream.over_context
    left = [cell for cell in grid if cell.name not in done.failed]
    rows = Rows(
        names=[cell.name for cell in left if cell.at["seed"] == 0],
        again={str(cell.at["task"]): cell.name for cell in left if cell.at["seed"] == 1},
        training=values.training(work.metrics.stage("associate")),
        useful_fraction=done.useful_fraction,
        failed={name: Failed(**why._asdict()) for name, why in done.failed.items()},
    )
    return _finish(settings, work, rows, examples, measured, done.table.sel(model=BASE), over)


def _existing(settings: Associate, work: Workdir) -> Ended:
    """The matrix of fine-tunes that are given; nothing is trained."""
    found = existing.found(settings, work)
    base_N = (found.base[NLL] / found.base.tokens).values
    names = [str(name) for name in found.z.task.values]
    loss = {BASE: base_N} | dict(zip(names, base_N + found.z.values, strict=True))
    if settings.scores and any(whole(e) for e in found.examples):
        matrices.keep_examples(work.path, found.examples)
    untrained = Training(**dict.fromkeys(RATES, math.nan), peak_memory=peak.memory(), steps=0)
    rows = Rows(names, {}, untrained, None, {})
    measured = Measured(loss, np.arange(len(base_N)))
    return _finish(settings, work, rows, found.examples, measured, found.base, found.over_context)


def _cells(settings: Associate, texts: dict[str, Texts]) -> list[Cell]:
    """One fine-tune for each task, and a second of those that are repeated."""
    train, names = settings.train, list(texts)
    own = tasks.own_values(train, names)
    grid = []
    for at in _grid(settings, names):
        name, repeat = str(at["task"]), int(at["seed"])
        seed = reading.task_seed(train.seed, name, repeat)
        mine = own[name] if repeat == 0 else {k: v for k, v in own[name].items() if k != "seed"}
        grid.append(Cell(at, tasks.task(name, texts[name].encoded, seed, train, mine)))
    grids.check(grid)
    return grid


def _reciting(
    settings: Associate, fleet: Fleet, reader: Reader, examples: Sequence[Example]
) -> Callable[[Sequence[str]], Recited] | None:
    """What recites all examples under models of given names; None where NLL is measured."""
    if settings.metric == "nll":
        return None
    rule, score = settings.exact_match, settings.score
    recite.check(rule, reader.longest, examples)
    prompts, cut = reader.prompts(examples, rule.max_new_tokens)
    stops = fleet.base.eos_ids
    asked = Asked(examples, prompts, cut, reader.tokenizer, stops, rule, score.chunk, score.rows)
    return lambda names: recite.recite(fleet.work / "answers", asked, names, fleet.load)


def _mine(fleet: Fleet, grid: Sequence[Cell], done: Scored) -> list[str]:
    """The models that this part of the run has, those that failed left out."""
    together = tasks_together(fleet, len(grid))
    mine = [BASE] if fleet.work.has_part(0) else []
    mine += [c.name for i, c in enumerate(grid) if fleet.work.has_part(i // together)]
    return [name for name in mine if name not in done.failed]


def _nll(scored: xr.Dataset) -> Measured:
    """Mean NLL of every example, in nats a token; all of them can be forgotten."""
    nll_KxN = scored[NLL].values / scored.tokens.values
    loss = dict(zip(scored.model.values.tolist(), nll_KxN, strict=True))
    return Measured(loss, np.arange(nll_KxN.shape[1]))


def _mistakes(recited: Recited) -> Measured:
    """1 for a wrong answer, 0 for a right one; only right ones of the base can be forgotten."""
    right_N = recited.correct_KxN[0]
    if not right_N.any():
        raise UserError(
            f"the base model answers none of the {len(right_N)} upstream examples correctly, so "
            "none can be forgotten by exact match; see the workdir's answers/base, or use "
            "metric=nll"
        )
    wrong_KxN = 1.0 - recited.correct_KxN
    return Measured(
        dict(zip(recited.names, wrong_KxN, strict=True)),
        np.flatnonzero(right_N),
        {
            "columns_dropped": int((~right_N).sum()),
            "em": dict(zip(recited.names, recited.correct_KxN.mean(1).tolist(), strict=True)),
            "f1": dict(zip(recited.names, recited.f1_KxN.mean(1).tolist(), strict=True)),
            "prompts_cut": recited.prompts_cut,
        },
    )


RATES = (
    *("loss_first", "loss_last", "tokens_per_second", "real_tokens", "flops_per_second", "mfu"),
)


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of the matrix and how they were made.

    Attributes:
      names: of the models.
      again: by task, the model of a second seed.
      training: its headline figures; NaN where nothing was trained.
      useful_fraction: as in the summary.
      failed: tasks that are left out.
    """

    names: list[str]
    again: dict[str, str]
    training: Training
    useful_fraction: float | None
    failed: dict[str, Failed]


def _finish(
    settings: Associate,
    work: Workdir,
    rows: Rows,
    examples: Sequence[Example],
    measured: Measured,
    base: xr.Dataset,
    over: dict[str, dict[str, int]],
) -> Ended:
    """The matrix, its statistics and the summary."""
    names, again = rows.names, rows.again

    def matrix_of(measured: Measured) -> Matrix:
        columns = [examples[j] for j in measured.columns]
        sources = tuple(e.source for e in columns)
        named = sources if any(sources) else ()
        examples_ = tuple(e.name for e in columns)
        return Matrix(measured.z(names), tuple(names), examples_, named, settings.metric)

    matrix = matrix_of(measured)
    lost = improved.improved(matrix)
    if lost and settings.leave_improved:
        kept_J = improved.columns_without(matrix, lost)
        measured = dataclasses.replace(measured, columns=measured.columns[kept_J])
    left_out = len(matrix.examples) - len(measured.columns)
    if said := improved.line(lost, left_out > 0):
        print(said, file=sys.stderr)
    matrix = matrix_of(measured)
    z_MxN = np.asarray(matrix.z_MxN)
    save(work / "forgetting.zarr", matrix, settings.model.path)
    known = np.isfinite(z_MxN)
    if not known.any():
        raise UserError(
            f"no entry of the matrix is finite (it is in {work / 'forgetting.zarr'}): the base or "
            "every fine-tune gives no numbers"
        )
    twice = [name for name in names if name in again]
    statistics = figures.statistics(z_MxN, settings.r2_ranks, settings.metric == "exact_match")
    agree = figures.retest(measured.z(twice), measured.z([again[name] for name in twice]))
    summary = Summary(
        metric=settings.metric,
        tasks=len(names),
        examples=len(measured.columns),
        mean_z=float(z_MxN[known].mean()),
        share_positive=float((z_MxN[known] > 0).mean()),
        mean_z_by_task={
            n: float(z[k].mean()) if k.any() else None
            for n, z, k in zip(names, z_MxN, known, strict=True)
        },
        **statistics,
        test_retest=agree["test_retest"],
        seed_rmse=agree["seed_rmse"],
        missing=int((~known).sum()),
        improved=lost,
        columns_improved=left_out,
        **measured.figures,
        training=rows.training,
        base_nll_mean=nll_mean(base[NLL].values, base.tokens.values),
        useful_fraction=rows.useful_fraction,
        failed=rows.failed,
        over_context={name: OverContext(**counts) for name, counts in over.items()},
        seconds=work.seconds(),
    )
    unit = "nats" if settings.metric == "nll" else "of the right answers"
    r2 = summary.r2_rank[:3]
    simple = (
        f", additive R² {summary.r2_additive:.2f}, rank {len(r2)} R² {r2[-1]:.2f}" if r2 else ""
    )
    return Ended(
        summary,
        f"{len(names)} x {len(measured.columns)} matrix: mean z {summary.mean_z:.3f} {unit}, "
        f"{summary.share_positive:.0%} above zero{simple}",
    )
