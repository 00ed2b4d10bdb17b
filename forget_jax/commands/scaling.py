"""`forget-jax scaling`: forgetting over ranks and steps, or a given table of points, and its laws.

All ranks and seeds train together: a lower rank is a higher one whose other ranks stay zero. The
learning rate after warm-up is constant, so every number of steps is a point of one trajectory.
"""

import dataclasses
import io
import itertools
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from forget_jax import files, scaling
from forget_jax.commands import models, report, texts
from forget_jax.commands.config import plain
from forget_jax.data.batches import Buckets
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.files import PathLike
from forget_jax.fleet import together as fleet
from forget_jax.lm import lora
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import divergence, likelihood
from forget_jax.training.loop import Task
from forget_jax.training.step import scale_updates


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Measures the grid (or reads it), fits the laws, writes the page; resumes."""
    work = Workdir(workdir, "scaling", plain(config))
    if report.has_ended(work):
        return
    points = _read(config.points.path) if config.points.path else _measure(config, work)
    files.write_text(work / "points.csv", points.to_csv(index=False))
    fits, failed = {}, {}
    with Progress("fit laws", len(config.laws), unit="law") as progress:
        for number, law in enumerate(config.laws):
            try:
                fits[law] = scaling.fit(law, points, target=config.target or None)
            except UserError as e:
                failed[law] = str(e)
            progress.at(number + 1, law)
    if not fits:
        raise UserError(f"no law could be fitted; {next(iter(failed.values()), 'laws is empty')}")
    summary = work.finish(
        {
            "laws": {name: _figures(f) for name, f in fits.items()},
            "not_fitted": failed,
            "points": len(points),
            "runs": int(points["run"].nunique()) if "run" in points else None,
            "seeds": int(points["seed"].nunique()) if "seed" in points else 1,
            "curves": _curves(fits, points),
            "seconds": work.seconds(),
        }
    )
    report.build(workdir)
    best = min(fits, key=lambda n: fits[n].bic)
    print(
        f"{len(points)} points; lowest BIC: {best} (R² {summary['laws'][best]['r2']:.3f}); "
        f"page in {work / 'report.html'}",
        file=sys.stderr,
    )


def _figures(f: scaling.Fit) -> dict[str, Any]:
    """What the summary holds of a fit."""
    return {
        "params": f.params,
        "ci": f.ci,
        "r2": f.r2,
        "bic": f.bic,
        "heldout_error": f.heldout_error,
        "heldout": f.heldout,
        "converged": f.converged,
        "warnings": f.warnings,
    }


def _read(path: str) -> pd.DataFrame:
    """A table of points that somebody measured."""
    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    file = files.Path(path)
    if not file.exists():
        raise UserError(f"points.path: {path} does not exist")
    if file.suffix in (".jsonl", ".json"):
        return pd.read_json(io.BytesIO(file.read_bytes()), lines=file.suffix == ".jsonl")
    if file.suffix not in readers:
        raise UserError(f"points.path: {path} is not .csv, .parquet, .json or .jsonl")
    return readers[file.suffix](io.BytesIO(file.read_bytes()))


def _curves(fits: dict[str, scaling.Fit], points: pd.DataFrame) -> dict[str, Any]:
    """The predicted surface of every law over (P, steps), for the picture."""
    if not {"P", "steps"} <= set(points):
        return {}
    sizes = np.unique(points["P"])
    steps = np.geomspace(points["steps"].min(), points["steps"].max(), 40)
    curves = {}
    for name, f in fits.items():
        if set(scaling.LAWS[name].columns) <= {"P", "steps"}:
            predicted = f.predict(P=sizes[:, None], steps=steps[None])
            surface = np.broadcast_to(predicted, (len(sizes), len(steps)))
            curves[name] = {"P": sizes, "steps": steps, "l_f": surface}
    return curves


def _measure(config: ConfigDict, work: Workdir) -> pd.DataFrame:
    """Trains the grid and measures every point: l_ft on held-out task rows, l_f on upstream."""
    if not config.ranks or not config.steps:
        raise UserError("ranks and steps name at least one value each")
    most = max(config.ranks)
    grid = ConfigDict(config.to_dict())
    grid.lora = {**grid.lora, "rank": most, "alpha": float(most), "rslora": False}  # scale 1
    model, params, tokenizer = models.load(grid)
    _, rows, _ = texts.read((config.task,), config, model, tokenizer)
    keep = texts.held_out(rows, max(1, round(len(rows) * config.task_heldout)))
    if config.metric not in divergence.MEASURES:
        raise UserError(
            f"metric is {config.metric!r}; it must be one of {', '.join(divergence.MEASURES)}"
        )
    if keep < 1:
        raise UserError(f"{config.task} has {len(rows)} rows: too few to hold some out")
    _, upstream, _ = texts.read(config.upstream, config, model, tokenizer, scored=True)
    marks = sorted(set(config.steps))
    settings = list(itertools.product(config.ranks, range(config.seeds)))
    jobs = [
        Task(
            f"rank {r} seed {s}",
            rows[:keep],
            texts.task_seed(config.train.seed, config.task, s),
            marks[0],
            rank=r,
            scale=config.lora.alpha / (r**0.5 if config.lora.rslora else r),
        )
        for r, s in settings
    ]
    adapter = models.adapter(grid)
    assert adapter is not None
    one = jax.eval_shape(lambda: lora.init(adapter, params, jax.random.key(0)))
    per_rank = sum(x.size for x in jax.tree.leaves(one)) // most
    found = []
    for mark in marks:
        kept = work / "points" / f"{mark}.json"
        if not kept.exists():
            tasks = [dataclasses.replace(job, steps=mark) for job in jobs]
            outcome = fleet.run_training(
                grid, work, "scaling", model, params, tasks, f"train {len(jobs)} runs to {mark}"
            )
            scale_M = jnp.array([job.scale for job in jobs], jnp.float32)
            trained = scale_updates(fleet.all_trained(outcome), scale_M)
            measured = _points(grid, model, params, trained, rows[keep:], upstream, mark)
            files.write_json(
                kept,
                [
                    {"P": per_rank * r, "steps": mark, "rank": r, "seed": s,
                     "run": f"r{r}s{s}", **point}
                    for (r, s), point in zip(settings, measured, strict=True)
                ],
            )  # fmt: skip
            work.tick()
        found += files.read_json(kept)
    return pd.DataFrame(found)


def _points(
    config: ConfigDict,
    model: Any,
    params: Any,
    adapters_K: Any,
    task: Sequence[Encoded],
    upstream: Sequence[Encoded],
    mark: int,
) -> list[dict[str, float]]:
    """Every run's figures after `mark` steps, each a mean over tokens, in nats."""
    adapter = models.adapter(config)
    assert adapter is not None
    tokens = sum(e.tokens for e in upstream)
    c = config.score
    with Progress(f"measure at step {mark}", len(upstream), unit="example") as progress:
        l_ft = likelihood.score(
            model, adapter, params, adapters_K, task, Buckets.of(task, c.buckets), c.rows
        ).sum(1) / sum(e.tokens for e in task)
        sums = divergence.diverge(
            model, adapter, params, adapters_K, upstream, Buckets.of(upstream, c.buckets), c.rows,
            on_batch=progress.at,
        )  # fmt: skip
    means = {name: values.sum(1) / tokens for name, values in sums.items()}
    return [
        {
            "l_ft": float(l_ft[k]),
            "l_f": float(means[config.metric][k]),
            **{name: float(values[k]) for name, values in means.items()},
        }
        for k in range(len(l_ft))
    ]
