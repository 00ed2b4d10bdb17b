"""`forget-jax replay`: fine-tune again with upstream examples mixed in, chosen by each strategy.

The candidates are one half of the matrix's columns; the other half measures forgetting and is never
replayed. All strategies, tasks and seeds train together.
"""

import itertools
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from ml_collections import ConfigDict

from forget_jax import associations
from forget_jax.associations import matrix as matrices
from forget_jax.associations.evaluation import interval
from forget_jax.commands import models, report, texts
from forget_jax.commands.config import plain
from forget_jax.data import mixing
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError, nearest
from forget_jax.files import PathLike
from forget_jax.fleet import together as fleet
from forget_jax.replay.strategies import STRATEGIES, draw, weights
from forget_jax.runs.workdir import Workdir
from forget_jax.training.loop import Task


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Trains every task under every strategy and compares what is forgotten; resumes."""
    c = config.replay
    _check(config)
    work = Workdir(workdir, "replay", plain(config))
    if report.has_ended(work):
        return
    model, params, tokenizer = models.load(config)
    found = matrices.load(config.matrix.path)
    _, upstream, cut = texts.read(config.upstream, config, model, tokenizer)
    column = _columns(found, upstream)
    rng = np.random.Generator(np.random.Philox(key=[config.train.seed, 4]))
    shuffled = rng.permutation(len(column))
    pool, held = np.split(shuffled, [round(len(column) * c.pool)])
    observed = rng.choice(pool, min(c.observed, len(pool)), replace=False)

    jobs: list[Task] = []
    heldout: dict[str, list[Encoded]] = {}
    for spec in config.tasks:
        name = texts.task_name(spec)
        _, rows, _ = texts.read((spec,), config, model, tokenizer)
        keep = texts.held_out(rows, max(1, round(len(rows) * c.task_heldout)))
        if keep < 1:
            raise UserError(f"task {name} has {len(rows)} rows: too few to hold some out")
        heldout[name] = rows[keep:]
        z_J = _forgetting(found, name, column, observed, c.method)
        for seed, strategy in itertools.product(range(c.seeds), c.strategies):
            jobs.append(
                _job(config, name, rows[:keep], strategy, seed, z_J[strategy][pool],
                     [upstream[i] for i in pool])
            )  # fmt: skip
    scored = upstream
    if not config.data.eos_scored:
        _, scored, _ = texts.read(config.upstream, config, model, tokenizer, scored=True)
    evaluated = [scored[i] for i in held] + [e for rows in heldout.values() for e in rows]
    done = fleet.train_and_score(config, work, "replay", model, params, jobs, evaluated)
    if done.figures["failed"]:
        raise UserError(
            f"the loss of {', '.join(done.figures['failed'])} was not finite, so strategies cannot "
            f"be compared; {fleet.ADVICE}"
        )
    assert done.table is not None
    counts = {name: len(rows) for name, rows in heldout.items()}
    useful = done.figures["useful_fraction"]
    _finish(work, config, list(heldout), done.table, len(held), counts,
            {"useful_fraction": useful, "over_context": cut, "candidates": len(pool),
             "observed": len(observed)})  # fmt: skip


def _check(config: ConfigDict) -> None:
    c = config.replay
    for strategy in c.strategies:
        if strategy not in STRATEGIES:
            raise UserError(
                f"replay.strategies names {strategy!r}{nearest(strategy, STRATEGIES)}; there are "
                f"{', '.join(STRATEGIES)}"
            )
    if config.data.too_long == "windows":
        raise UserError("replay mixes whole examples: set data.too_long=truncate, left or drop")
    if not c.strategies or not config.tasks:
        raise UserError("replay needs at least one task (tasks) and one of replay.strategies")
    for key, low, high in (("ratio", 0, 1), ("pool", 0, 1), ("task_heldout", 0, 1)):
        if not low < c[key] < high:
            raise UserError(f"replay.{key} is {c[key]}; it must lie between {low} and {high}")


def _columns(found: matrices.Matrix, upstream: Sequence[Encoded]) -> np.ndarray:
    """The matrix column of every upstream example."""
    where = {name: j for j, name in enumerate(found.examples)}
    missing = [e.name for e in upstream if e.name not in where]
    if missing:
        raise UserError(
            f"{len(missing)} upstream examples are no columns of the matrix, {missing[0]} first; "
            "give the upstream (and data.shuffle) that the matrix was made with"
        )
    return np.array([where[e.name] for e in upstream])


def _forgetting(
    found: matrices.Matrix, name: str, column: np.ndarray, observed: np.ndarray, method: str
) -> dict[str, np.ndarray]:
    """What each strategy knows of a task's forgetting of the upstream examples.

    The prediction sees the task's own row at the observed examples only, and the other tasks' rows.
    """
    row = found.rows((name,))[0]
    z_MxN = np.asarray(found.z_MxN)[:, column]
    others = np.delete(z_MxN, row, axis=0)
    predicted = associations.predict_rows(
        others, observed[None], z_MxN[row, observed][None], method
    )[0]
    return {
        "none": np.zeros(len(column)),
        "random": np.zeros(len(column)),
        "predicted": predicted,
        "ground_truth": z_MxN[row],
    }


def _paired(difference: np.ndarray) -> dict[str, float]:
    """Mean paired difference with its interval; a pair is one task under one seed."""
    found = interval(difference)
    return {"pairs": found.pop("seeds"), **found}


def _job(
    config: ConfigDict,
    name: str,
    rows: Sequence[Encoded],
    strategy: str,
    seed: int,
    z_J: np.ndarray,
    candidates: Sequence[Encoded],
) -> Task:
    """One fine-tune; strategies of one task and seed share initialisation and task examples."""
    c = config.replay
    own = texts.task_seed(config.train.seed, name, seed)
    label = f"{name} | {strategy} | seed {seed}"
    if strategy == "none":
        return Task(label, rows, own, config.train.steps)
    extra_steps = math.ceil(config.train.steps * c.ratio)
    drawn = draw(weights(z_J, c.temperature), extra_steps * config.train.batch_size, own)
    order = mixing.inserted(len(rows), config.train.steps * config.train.batch_size, drawn, own)
    return Task(label, [*rows, *candidates], own, config.train.steps + extra_steps, order)


def _finish(
    work: Workdir,
    config: ConfigDict,
    names: Sequence[str],
    scored: xr.Dataset,
    n_upstream: int,
    n_heldout: dict[str, int],
    figures: dict[str, Any],
) -> None:
    """Forgetting and task loss by strategy, and paired differences to random replay."""
    c = config.replay
    tokens = scored.tokens.values[0]
    nll = dict(zip(scored.model.values.tolist(), scored.nll_sum.values, strict=True))
    base = nll["base"][:n_upstream] / tokens[:n_upstream]
    ends = n_upstream + np.cumsum([0, *n_heldout.values()])
    z: dict[str, list[float]] = {s: [] for s in c.strategies}
    loss: dict[str, list[float]] = {s: [] for s in c.strategies}
    for strategy, (m, name), seed in itertools.product(
        c.strategies, enumerate(names), range(c.seeds)
    ):
        of = nll[f"{name} | {strategy} | seed {seed}"]
        z[strategy].append(float(np.nanmean(of[:n_upstream] / tokens[:n_upstream] - base)))
        rows = slice(ends[m], ends[m + 1])
        loss[strategy].append(float(np.nansum(of[rows]) / tokens[rows].sum()))
    pairs = [(a, b) for a, b in (("predicted", "random"), ("ground_truth", "random"),
                                 ("random", "none")) if a in z and b in z]  # fmt: skip
    many = len(names) * c.seeds > 1
    work.finish(
        {
            "replay": {
                s: {
                    "upstream_nll": float(base.mean() + np.mean(z[s])),
                    "task_loss": float(np.mean(loss[s])),
                    "mean_z": float(np.mean(z[s])),
                    "z": z[s],
                }
                for s in c.strategies
            },
            "paired_test": {
                f"{a} − {b}": _paired(np.subtract(z[a], z[b])) for a, b in pairs if many
            },
            "base_upstream_nll": float(base.mean()),
            "tasks": len(names),
            "seeds": c.seeds,
            "evaluated": n_upstream,
            **models.training_figures(work.metrics.stage("replay")),
            **figures,
            "seconds": work.seconds(),
        }
    )
    report.build(work.path)
    shown = ", ".join(f"{s} {np.mean(z[s]):+.3f}" for s in c.strategies)
    print(f"mean z on {n_upstream} held-out upstream examples: {shown}; "
          f"page in {work / 'report.html'}", file=sys.stderr)  # fmt: skip
