"""`forget-jax replay`: fine-tune again with other rows mixed in, chosen by each strategy."""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from forget_jax import files
from forget_jax.commands import early, matrices, values
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Replay
from forget_jax.commands.summaries import Headroom, OverContext, StrategiesDiffer, Strategy
from forget_jax.commands.summaries import Replay as Summary
from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader, held_out, task_names
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.fleet import cells as grids
from forget_jax.fleet import fitting
from forget_jax.fleet.cells import Cell
from forget_jax.fleet.fleet import Fleet
from forget_jax.fleet.tasks import say_warmup
from forget_jax.replay import accounting, candidates, online, own, verdict
from forget_jax.replay.accounting import Account
from forget_jax.replay.cells import OBJECTIVE, Arm, arms, cells
from forget_jax.replay.experiment import Compared, Upstream, compare, known
from forget_jax.replay.own import Answers
from forget_jax.replay.strategies import parse
from forget_jax.runs.workdir import Workdir


def check(settings: Replay) -> None:
    """Refuses settings under which nothing can be compared."""
    replay = settings.replay
    if settings.data.too_long == "windows":
        raise UserError("replay mixes whole examples: set data.too_long=truncate, left or drop")
    if not replay.strategies or not settings.tasks:
        raise UserError("replay needs at least one task (tasks) and one of replay.strategies")
    if not replay.ratio or not replay.cost or not replay.matched:
        raise UserError("replay needs at least one replay.ratio, replay.cost and replay.matched")
    asks = [spec for spec in replay.strategies if parse(spec)[0].needs_matrix]
    if asks and not settings.matrix.path:
        raise UserError(
            "give matrix.path (the association matrix of these upstream examples), which "
            f"{asks[0]} asks; none, pad, random, generated, answered and surprise do without"
        )
    if settings.lora.rank == 0 and set(replay.cost) - {"nll"}:
        raise UserError(
            "replay.cost=kl needs adapters, which leave the base as it was: set lora.rank above 0"
        )
    values.check_alone(settings.train, "replay")
    grids.check_names(task_names(settings.tasks))
    for field in ("strategies", "ratio", "cost", "matched"):
        given = getattr(replay, field)
        if twice := [name for name in given if given.count(name) > 1]:
            raise UserError(f"replay.{field} names {twice[0]} twice")
    train = settings.train
    for ratio in replay.ratio:
        if math.floor(train.steps * train.batch_size * ratio) < 1:
            raise UserError(
                f"replay.ratio={ratio:g} gives no row in {train.steps} steps of "
                f"{train.batch_size} rows; raise it, or train.steps"
            )
    rows = round(train.steps * train.batch_size * (1 + max(replay.ratio)))
    fitting.check_order(rows, _fine_tunes(settings), "train.steps and train.batch_size")
    say_warmup(train)
    early.check(settings.model, settings.lora)


def _fine_tunes(settings: Replay) -> int:
    return len(settings.tasks) * len(arms(settings.replay)) * settings.replay.seeds


def run(settings: Replay, work: Workdir) -> Ended:
    """Trains every task under every arm and compares what is forgotten; resumes."""
    replay, seed = settings.replay, settings.train.seed
    names, path = tuple(task_names(settings.tasks)), settings.matrix.path
    matrix = matrices.load(path) if path else None
    if matrix is not None:
        matrix.rows(names)  # each has one
    reader = values.fleet_reader(settings, work, _fine_tunes(settings))
    texts = reader.read(settings.upstream)
    scored = texts if settings.data.eos_scored else reader.read(settings.upstream, scored=True)
    upstream = Upstream.split(matrix, texts.encoded, scored.encoded, replay, seed)
    if matrix is not None:
        beside = matrices.side(path, matrix.columns(upstream.column_J))
        upstream = dataclasses.replace(upstream, side=tuple(beside.values()))
    read = _tasks(settings, reader)
    fleet = values.fleet(settings, work, reader, OBJECTIVE)
    training = {name: task.training for name, task in read.items()}
    rows = candidates.rows(
        fleet, reader, upstream, {name: task.examples for name, task in read.items()}, replay
    )
    base_nll_P, gradient_PxF = candidates.features(fleet, upstream, replay)
    facts = {
        name: known(matrix, name, upstream, replay.method, base_nll_P, gradient_PxF)
        for name in training
    }
    price = accounting.price(fleet.base.model.config, fleet.recipe.lora)
    grid = cells(settings.train, training, rows, facts, replay, price)
    counts = {name: len(rows) for name, rows in training.items()}
    revision = online.revision(fleet, grid, matrix, upstream, counts, replay)
    compared = compare(fleet, grid, upstream, replay.measure_pool, revision)
    measured = own.losses(fleet, grid, {name: task.heldout for name, task in read.items()})
    compared.frame["loss"] = [measured[cell.name] for cell in grid]
    if replay.recite:
        rule = dataclasses.replace(settings.exact_match, max_new_tokens=replay.recite)
        theirs = {n: Answers(t.held, reader, rule).short(t.heldout) for n, t in read.items()}
        held = [upstream.scored[i] for i in upstream.held]
        asked = Answers(texts.examples, reader, rule).short(held)
        right, forgotten = own.exact_match(fleet, grid, theirs, asked)
        compared.frame["em"] = [right[cell.name] for cell in grid]
        compared.frame["em_forgotten"] = [forgotten[cell.name] for cell in grid]
    files.write_text(work / "cells.csv", compared.frame.to_csv(index=False))
    all_arms = arms(replay)
    extra = _extra(settings, fleet, grid, upstream, read, rows)
    room = _headroom(compared, all_arms, settings)
    summary = Summary(
        replay={
            arm.label(replay): _strategy(compared, arm, all_arms, extra[arm]) for arm in all_arms
        },
        paired_test=_paired(compared, all_arms, settings),
        headroom=room,
        base_upstream_nll=compared.base_nll,
        tasks=len(training),
        seeds=replay.seeds,
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


class TaskRows(NamedTuple):
    """A task's rows to train on and those held out, and the examples that they are of."""

    training: Sequence[Encoded]
    heldout: Sequence[Encoded]
    examples: Sequence[Example]
    held: Sequence[Example]


def _tasks(settings: Replay, reader: Reader) -> dict[str, TaskRows]:
    """By task, what is read of it."""
    found = {}
    for name, spec in zip(task_names(settings.tasks), settings.tasks, strict=True):
        texts = reader.read((spec,))
        rows = texts.encoded
        keep = held_out(rows, max(1, round(len(rows) * settings.replay.task_heldout)))
        if keep < 1:
            raise UserError(f"task {name} has {len(rows)} rows: too few to hold some out")
        last = {e.name for e in rows[keep:]}
        examples = [e for e in texts.examples if e.name not in last]
        held = [e for e in texts.examples if e.name in last]
        found[name] = TaskRows(rows[:keep], rows[keep:], examples, held)
    return found


def _extra(
    settings: Replay,
    fleet: Fleet,
    grid: Sequence[Cell],
    upstream: Upstream,
    tasks: Mapping[str, TaskRows],
    rows: Mapping[str, Mapping[str, Sequence[Encoded]]],
) -> dict[Arm, tuple[float, float]]:
    """By arm, extra forward and training FLOPs over those without replay, mean of its cells."""
    train, found = settings.train, dict[Arm, list[tuple[float, float]]]()
    for cell in grid:
        name = str(cell.at["task"])
        mine = tasks[name].training
        account = Account(
            fleet.base.model.config,
            fleet.recipe.lora,
            [mine[i % len(mine)] for i in range(train.steps * train.batch_size)],
            [upstream.scored[i] for i in upstream.observed],
            [upstream.scored[i] for i in upstream.pool],
            {kind: rows[name][kind] for kind in ("generated", "answered") if kind in rows[name]},
            len(settings.replay.online_at),
        )
        used = accounting.used(cell.task, len(mine), train.batch_size)
        more = account.extra(cell.arm, used)
        share = more.forward / account.plain, more.training / account.plain
        found.setdefault(cell.arm, []).append(share)
    return {arm: _means(shares) for arm, shares in found.items()}


def _means(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    first, second = np.mean(pairs, axis=0)
    return float(first), float(second)


def _strategy(
    compared: Compared, arm: Arm, all_arms: Sequence[Arm], extra: tuple[float, float]
) -> Strategy:
    frame = compared.frame
    z, loss = (verdict.pivot(frame, arm, column).values for column in ("z", "loss"))
    pool, em, lost = (_mean(frame, arm, column) for column in ("z_pool", "em", "em_forgotten"))
    random = arm._replace(strategy="random", cost="nll")
    compares = arm != random and arm.ratio and {Arm("none"), random} <= set(all_arms)
    sources = [c for c in frame.columns if c.startswith("z: ")]
    return Strategy(
        strategy=arm.strategy,
        ratio=arm.ratio,
        cost=arm.cost,
        matched=arm.matched,
        upstream_nll=float(compared.base_nll + z.mean()),
        task_loss=float(loss.mean()),
        mean_z=float(z.mean()),
        z=tuple(z.ravel().tolist()),
        loss=tuple(loss.ravel().tolist()),
        z_pool=pool,
        em=em,
        em_forgotten=lost,
        z_by_kind={
            c.removeprefix("z: "): float(verdict.pivot(frame, arm, c).values.mean())
            for c in sources
        },
        recovered=verdict.recovered(frame, arm, random) if compares else None,
        extra_forward=extra[0],
        extra_training=extra[1],
    )


def _mean(frame: pd.DataFrame, arm: Arm, column: str) -> float | None:
    """Of a figure over tasks and seeds, where some have it; None where none has."""
    if column not in frame:
        return None
    values = verdict.pivot(frame, arm, column).values
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _headroom(compared: Compared, all_arms: Sequence[Arm], settings: Replay) -> dict[str, Headroom]:
    """Of every random replay, said aloud."""
    found: dict[str, Headroom] = {}
    for arm in all_arms:
        if parse(arm.strategy)[0] is parse("random")[0] and Arm("none") in all_arms:
            room = verdict.headroom(compared.frame, arm)
            name = arm.label(settings.replay)
            print(f"{name}: {room.line()}", file=sys.stderr)
            noise = None if math.isnan(room.noise) else room.noise
            found[name] = Headroom(mean=room.mean, noise=noise, enough=room.enough)
    return found


def _paired(
    compared: Compared, all_arms: Sequence[Arm], settings: Replay
) -> dict[str, StrategiesDiffer]:
    """Every comparison of forgetting; a pair is one task under one seed."""
    return {
        f"{one.label(settings.replay)} − {other.label(settings.replay)}": StrategiesDiffer(
            **test.figures(), tasks=test.tasks, tasks_needed=test.needed
        )
        for (one, other), test in verdict.tests(compared.frame, all_arms).items()
    }
