"""`forget-jax associate`: M tasks fine-tuned together, N upstream examples scored, the matrix."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from ml_collections import ConfigDict

from forget_jax import files
from forget_jax.associations import additive_r2, column_r2, logistic_f1, rank_r2, row_r2
from forget_jax.associations.matrix import Matrix
from forget_jax.associations.matrix import save as save_matrix
from forget_jax.commands import models, report, texts
from forget_jax.commands.config import plain
from forget_jax.data.examples import Example
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.files import PathLike
from forget_jax.fleet import together as fleet
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import recite as recite_upstream
from forget_jax.scoring.recite import Recited

METRICS = ("nll", "exact_match")


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
    figures: dict[str, Any]

    def z(self, names: Sequence[str]) -> np.ndarray:
        """Forgetting of the columns by each named model: its loss less the base's."""
        base = self.loss["base"]
        return np.array([(self.loss[n] - base)[self.columns] for n in names])


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Measures the forgetting matrix; resumes, and does nothing where it has ended."""
    if config.metric not in METRICS:
        raise UserError(f"metric is {config.metric!r}; it must be one of {', '.join(METRICS)}")
    work = Workdir(workdir, "associate", plain(config))
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
    read, encoded, cut["upstream"] = texts.read(
        config.upstream, config, model, tokenizer, scored=True
    )
    kept = {e.name for e in encoded}
    upstream = [e for e in read if e.name in kept]
    _write_texts(work, upstream)

    own = models.own_values(config.train, names)
    again = names[: config.repeat_tasks]
    jobs = [
        models.task(config.train, shown, training[n], _seed(config, n, repeat), own[n])
        for repeat, shown, n in [(0, n, n) for n in names] + [(1, _repeated(n), n) for n in again]
    ]

    def recite(names: Sequence[str]) -> Recited:
        return recite_upstream.recite(config, work, model, params, tokenizer, upstream, names)

    if config.metric == "exact_match":
        recite_upstream.check(config, model, upstream)
        if work.has_part(0):
            _mistakes(recite(["base"]))  # refuses a base that knows nothing before any training

    done = fleet.train_and_score(config, work, "associate", model, params, jobs, encoded)
    lost = done.figures["failed"]
    recited = None
    if config.metric == "exact_match":
        together = models.tasks_together(config, work, model, len(jobs))
        mine = ["base"] if work.has_part(0) else []
        mine += [j.name for i, j in enumerate(jobs) if work.has_part(i // together)]
        recited = recite([n for n in mine if n not in lost])
    if done.table is None:
        print(
            f"part {config.part} is done; the same command without --config.part makes the matrix",
            file=sys.stderr,
        )
        return
    names = [n for n in names if n not in lost]
    again = [n for n in again if n in names and _repeated(n) not in lost]
    measured = _nll(done.table) if recited is None else _mistakes(recited)
    _finish(
        work,
        config,
        names,
        [_repeated(n) for n in again],
        upstream,
        measured,
        {
            "base_nll_mean": _mean_nll(done.table),
            **done.figures,
            "over_context": cut,
        },
    )


def _seed(config: ConfigDict, name: str, repeat: int) -> int:
    return texts.task_seed(config.train.seed, name, repeat)


def _repeated(name: str) -> str:
    return f"{name} (second seed)"


def _write_texts(work: Workdir, upstream: Sequence[Example]) -> None:
    """The beginnings of the upstream examples, for the page."""
    rows = [{"name": e.name, "text": texts.whole(e)[:600]} for e in upstream]
    files.write_json(work / "examples.json", rows)


def _nll(scored: xr.Dataset) -> Measured:
    """Mean NLL of every example, in nats a token; all of them can be forgotten."""
    nll_KxN = scored.nll_sum.values / scored.tokens.values
    loss = dict(zip(scored.model.values.tolist(), nll_KxN, strict=True))
    return Measured(loss, np.arange(nll_KxN.shape[1]), {})


def _mean_nll(scored: xr.Dataset) -> float:
    """The base's mean NLL over tokens."""
    base = scored.sel(model="base")
    return float(np.nansum(base.nll_sum) / base.tokens.sum())


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


def _statistics(z_MxN: np.ndarray, config: ConfigDict) -> dict[str, Any]:
    """R² of simple models on the examples that every task has a figure for."""
    rows = np.isfinite(z_MxN).any(1)
    whole = z_MxN[rows][:, np.isfinite(z_MxN[rows]).all(0)]
    if not whole.size:
        return {"r2_rank": [], "r2_additive": None, "r2_row": None, "r2_column": None}
    ranks = min(config.r2_ranks, *whole.shape)
    found = {
        "r2_rank": rank_r2(whole, ranks),
        "r2_additive": additive_r2(whole),
        "r2_row": row_r2(whole),
        "r2_column": column_r2(whole),
    }
    if config.metric == "exact_match":
        found["f1_rank"] = logistic_f1(whole, ranks)
    return found


def _retest(z_RxN: np.ndarray, again_RxN: np.ndarray) -> dict[str, float | None]:
    """Agreement of the same tasks under two seeds."""
    both = np.isfinite(z_RxN) & np.isfinite(again_RxN) if len(z_RxN) else np.zeros(0, bool)
    if not both.any():
        return {"test_retest": None, "seed_rmse": None}
    first, second = z_RxN[both], again_RxN[both]
    varies = first.std() > 0 and second.std() > 0
    return {
        "test_retest": float(np.corrcoef(first, second)[0, 1]) if varies else None,
        "seed_rmse": float(np.sqrt(np.mean((first - second) ** 2))),
    }


def _finish(
    work: Workdir,
    config: ConfigDict,
    names: Sequence[str],
    repeated: Sequence[str],
    upstream: Sequence[Example],
    measured: Measured,
    figures: dict[str, Any],
) -> None:
    """The matrix, its statistics, summary and page."""
    columns = [upstream[j] for j in measured.columns]
    z_MxN = measured.z(names)
    found = Matrix(
        z_MxN,
        tuple(names),
        tuple(e.name for e in columns),
        tuple(e.source for e in columns),
        config.metric,
    )
    save_matrix(work / "forgetting.zarr", found)
    known = np.isfinite(z_MxN)
    summary = work.finish(
        {
            "metric": config.metric,
            "tasks": len(names),
            "examples": len(columns),
            "mean_z": float(z_MxN[known].mean()),
            "share_positive": float((z_MxN[known] > 0).mean()),
            "mean_z_by_task": {
                n: float(z[k].mean()) if k.any() else None
                for n, z, k in zip(names, z_MxN, known, strict=True)
            },
            **_statistics(z_MxN, config),
            **_retest(z_MxN[: len(repeated)], measured.z(repeated)),
            "missing": int((~known).sum()),
            **measured.figures,
            **models.training_figures(work.metrics.stage("associate")),
            **figures,
            "seconds": work.seconds(),
        }
    )
    report.build(work.path)
    unit = "nats" if config.metric == "nll" else "of the right answers"
    r2 = summary["r2_rank"][:3]
    simple = (
        f", additive R² {summary['r2_additive']:.2f}, rank {len(r2)} R² {r2[-1]:.2f}" if r2 else ""
    )
    print(
        f"{len(names)} x {len(columns)} matrix: mean z {summary['mean_z']:.3f} {unit}, "
        f"{summary['share_positive']:.0%} above zero{simple}; page in {work / 'report.html'}",
        file=sys.stderr,
    )
