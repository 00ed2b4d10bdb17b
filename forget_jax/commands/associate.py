"""`forget-jax associate`: M tasks fine-tuned together, N upstream examples scored, the matrix."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from ml_collections import ConfigDict

from forget_jax import files
from forget_jax.associations import additive_r2, column_r2, rank_r2, row_r2
from forget_jax.associations.matrix import Matrix
from forget_jax.associations.matrix import save as save_matrix
from forget_jax.commands import fleet, models, report, texts
from forget_jax.commands.workdir import Workdir
from forget_jax.data.examples import Example
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.files import PathLike
from forget_jax.training.loop import Task

Tree = Any


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Measures the forgetting matrix; resumes, and does nothing where it has ended."""
    work = Workdir(workdir, "associate", config)
    if report.has_ended(work):
        return
    model, params, tokenizer = models.load(config)
    names = [texts.task_name(spec) for spec in config.tasks]
    if len(set(names)) < len(names) or not names:
        twice = next((n for n in names if names.count(n) > 1), None)
        raise UserError(f"two tasks are called {twice}" if twice else "config.tasks names no task")
    training: dict[str, list[Encoded]] = {}
    cut: dict[str, dict[str, int]] = {}
    for name, spec in zip(names, config.tasks, strict=True):
        _, training[name], cut[name] = texts.read((spec,), config, model, tokenizer)
    upstream, encoded, cut["upstream"] = texts.read(config.upstream, config, model, tokenizer)
    _write_texts(work, upstream)

    again = names[: config.repeat_tasks]
    jobs = [Task(n, training[n], _seed(config, n, 0), config.train.steps) for n in names]
    jobs += [
        Task(_repeated(n), training[n], _seed(config, n, 1), config.train.steps) for n in again
    ]
    scored, useful = fleet.train_and_score(config, work, "associate", model, params, jobs, encoded)
    _finish(
        work,
        names,
        [_repeated(n) for n in again],
        encoded,
        scored,
        {"useful_fraction": useful, "over_context": cut},
        config.r2_ranks,
    )


def _seed(config: ConfigDict, name: str, repeat: int) -> int:
    return texts.task_seed(config.train.seed, name, repeat)


def _repeated(name: str) -> str:
    return f"{name} (second seed)"


def _write_texts(work: Workdir, upstream: Sequence[Example]) -> None:
    """The beginnings of the upstream examples, for the page."""
    rows = [{"name": e.name, "text": texts.whole(e)[:600]} for e in upstream]
    files.write_json(work / "examples.json", rows)


def _finish(
    work: Workdir,
    names: Sequence[str],
    repeated: Sequence[str],
    encoded: Sequence[Encoded],
    scored: xr.Dataset,
    figures: dict[str, Any],
    ranks: int,
) -> None:
    """The matrix from the scores, its statistics, summary and page."""
    tokens_N = scored.tokens.values[0]
    nll = dict(zip(scored.model.values.tolist(), scored.nll_sum.values, strict=True))
    z_MxN = np.stack([(nll[n] - nll["base"]) / tokens_N for n in names])
    z_again = np.array([(nll[n] - nll["base"]) / tokens_N for n in repeated])
    found = Matrix(
        z_MxN, tuple(names), tuple(e.name for e in encoded), tuple(e.source for e in encoded)
    )
    save_matrix(work / "forgetting.zarr", found)
    known = np.isfinite(z_MxN)
    records = work.metrics.stage("associate")
    again = np.corrcoef(z_MxN[: len(repeated)].ravel(), z_again.ravel())[0, 1] if repeated else None
    summary = work.finish(
        {
            "tasks": len(names),
            "examples": len(encoded),
            "mean_z": float(z_MxN[known].mean()),
            "share_positive": float((z_MxN[known] > 0).mean()),
            "mean_z_by_task": {n: float(np.nanmean(z)) for n, z in zip(names, z_MxN, strict=True)},
            "r2_rank": rank_r2(z_MxN, min(ranks, *z_MxN.shape)),
            "r2_additive": additive_r2(z_MxN),
            "r2_row": row_r2(z_MxN),
            "r2_column": column_r2(z_MxN),
            "test_retest": None if again is None else float(again),
            "seed_rmse": None
            if not repeated
            else float(np.sqrt(np.mean((z_MxN[: len(repeated)] - z_again) ** 2))),
            "base_nll_mean": float(np.nansum(nll["base"]) / tokens_N.sum()),
            "missing": int((~known).sum()),
            **models.training_figures(records),
            **figures,
            "seconds": work.seconds(),
        }
    )
    report.build(work.path)
    print(
        f"{len(names)} x {len(encoded)} matrix: mean z {summary['mean_z']:.3f} nats, "
        f"{summary['share_positive']:.0%} above zero, additive R² {summary['r2_additive']:.2f}, "
        f"rank 3 R² {summary['r2_rank'][min(2, len(summary['r2_rank']) - 1)]:.2f}; "
        f"page in {work / 'report.html'}",
        file=sys.stderr,
    )
