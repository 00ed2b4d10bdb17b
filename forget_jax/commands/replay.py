"""`forget-jax replay`: fine-tune again with upstream examples mixed in, chosen by each strategy."""

import numpy as np

from forget_jax.associations.evaluation import interval
from forget_jax.commands import matrices, values
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Replay
from forget_jax.commands.summaries import OverContext, StrategiesDiffer, Strategy
from forget_jax.commands.summaries import Replay as Summary
from forget_jax.data.reading import held_out, task_names
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.fleet import cells as grids
from forget_jax.fleet import fitting
from forget_jax.replay.experiment import Compared, Upstream, cells, compare
from forget_jax.replay.strategies import paired
from forget_jax.runs.workdir import Workdir


def check(settings: Replay) -> None:
    """Refuses settings under which nothing can be compared."""
    if settings.data.too_long == "windows":
        raise UserError("replay mixes whole examples: set data.too_long=truncate, left or drop")
    if not settings.replay.strategies or not settings.tasks:
        raise UserError("replay needs at least one task (tasks) and one of replay.strategies")
    if not settings.matrix.path:
        raise UserError("give matrix.path (the association matrix of these upstream examples)")
    values.check_alone(settings.train, "replay")
    grids.check_names(task_names(settings.tasks))
    chosen = settings.replay.strategies
    if twice := [name for name in chosen if chosen.count(name) > 1]:
        raise UserError(f"replay.strategies names {twice[0]} twice")
    train, ratio = settings.train, settings.replay.ratio
    rows = round(train.steps * train.batch_size * (1 + ratio))
    fitting.check_order(rows, _fine_tunes(settings), "train.steps and train.batch_size")


def _fine_tunes(settings: Replay) -> int:
    return len(settings.tasks) * len(settings.replay.strategies) * settings.replay.seeds


def run(settings: Replay, work: Workdir) -> Ended:
    """Trains every task under every strategy and compares what is forgotten; resumes."""
    matrix = matrices.load(settings.matrix.path)
    matrix.rows(tuple(task_names(settings.tasks)))  # each has one
    fleet, reader = values.fleet(settings, work, _fine_tunes(settings))
    texts = reader.read(settings.upstream)
    scored = texts if settings.data.eos_scored else reader.read(settings.upstream, scored=True)
    seed = settings.train.seed
    upstream = Upstream.split(matrix, texts.encoded, scored.encoded, settings.replay, seed)
    training: dict[str, list[Encoded]] = {}
    heldout: dict[str, list[Encoded]] = {}
    for name, spec in zip(task_names(settings.tasks), settings.tasks, strict=True):
        rows = reader.read((spec,)).encoded
        keep = held_out(rows, max(1, round(len(rows) * settings.replay.task_heldout)))
        if keep < 1:
            raise UserError(f"task {name} has {len(rows)} rows: too few to hold some out")
        training[name], heldout[name] = rows[:keep], rows[keep:]
    grid = cells(fleet, matrix, training, upstream, settings.replay)
    compared = compare(fleet, grid, upstream, heldout)
    summary = Summary(
        replay={s: _strategy(compared, s) for s in settings.replay.strategies},
        paired_test=_paired(compared),
        base_upstream_nll=compared.base_nll,
        tasks=len(training),
        seeds=settings.replay.seeds,
        evaluated=len(upstream.held),
        training=values.training(work.metrics.stage("replay")),
        useful_fraction=compared.scored.useful_fraction,
        over_context=OverContext(**texts.over_context),
        candidates=len(upstream.pool),
        observed=len(upstream.observed),
        seconds=work.seconds(),
    )
    shown = ", ".join(f"{name} {s.mean_z:+.3f}" for name, s in summary.replay.items())
    return Ended(summary, f"mean z on {summary.evaluated} held-out upstream examples: {shown}")


def _strategy(compared: Compared, name: str) -> Strategy:
    z = compared.z.sel(strategy=name).values.ravel()
    return Strategy(
        upstream_nll=float(compared.base_nll + np.mean(z)),
        task_loss=float(np.mean(compared.loss.sel(strategy=name).values.ravel())),
        mean_z=float(np.mean(z)),
        z=tuple(z.tolist()),
    )


def _paired(compared: Compared) -> dict[str, StrategiesDiffer]:
    """Mean paired differences with their intervals; a pair is one task under one seed."""
    z, found = compared.z, {}
    if z.sizes["task"] * z.sizes["seed"] < 2:
        return {}
    for one, other in paired():
        if {one, other} <= set(z.strategy.values.tolist()):
            difference = (z.sel(strategy=one) - z.sel(strategy=other)).values.ravel()
            figures = interval(difference)
            pairs = int(figures.pop("seeds"))
            found[f"{one} − {other}"] = StrategiesDiffer(pairs=pairs, **figures)
    return found
