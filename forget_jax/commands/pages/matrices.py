"""Chapters on matrices: what was scored, forgotten, completed and predicted."""

from collections.abc import Sequence

import numpy as np

from forget_jax import report as room
from forget_jax.associations.components import leading_components
from forget_jax.associations.summary import statistics
from forget_jax.commands import summaries
from forget_jax.commands.matrices import BEGINNING, beginnings, load
from forget_jax.commands.pages import experiments
from forget_jax.files import Path, PathLike
from forget_jax.report import Section
from forget_jax.scoring import disk

COMPONENTS = 3  # of a matrix, at most
COMPLETE = 50_000_000  # entries beyond which components are not sought for a page
MATRIX = "forgetting.zarr"
RANKS = 5  # of the R² table of a bare matrix


def score(folder: Path) -> list[Section]:
    """Losses by model, after the matrix of the fine-tunes among them."""
    table = disk.read(folder / "scores.zarr")
    names = [str(m) for m in table.model.values]
    scores = room.score_section(
        dict(zip(names, table.nll_sum.values, strict=True)),
        dict(zip(names, table.tokens.values, strict=True)),
    )
    if not (folder / MATRIX).exists():
        return [scores]
    return [room.matrix_section(forgetting(folder / MATRIX)), scores]


def forgetting(path: PathLike) -> room.Forgetting:
    """A matrix by its path, with the texts that lie beside it."""
    found = load(path)
    texts = beginnings(path, BEGINNING)
    z_MxN = np.asarray(found.z_MxN)
    labels, component_N = _components(z_MxN, found.tasks)
    return room.Forgetting(
        z_MxN,
        found.tasks,
        found.examples,
        found.sources or ("",) * len(found.examples),
        [texts.get(name, "") for name in found.examples] if texts else None,
        found.metric or "nll",
        components=labels,
        component_N=component_N,
    )


def _components(z_MxN: np.ndarray, tasks: Sequence[str]) -> tuple[list[str], np.ndarray | None]:
    """Leading components of the complete columns, by their strongest tasks; and by example which it
    has most of, -1 where an entry is missing.
    """
    whole_N = np.isfinite(z_MxN).all(0)
    rank = min(COMPONENTS, len(tasks), int(whole_N.sum()))
    if len(tasks) < 2 or rank < 2 or z_MxN.size > COMPLETE:
        return [], None
    found = leading_components(z_MxN[:, whole_N], rank, n_tasks=2)
    sizes_RxN = [np.abs(c.example_N) * np.linalg.norm(c.task_M) for c in found]
    component_N = np.full(len(whole_N), -1)
    component_N[whole_N] = np.argmax(sizes_RxN, axis=0)
    labels = [
        f"{k + 1}: strongest under {' and '.join(tasks[i] for i in c.top_tasks)}"
        for k, c in enumerate(found)
    ]
    return labels, component_N


def of_matrix(path: PathLike) -> tuple[list[Section], str]:
    """The sections of a matrix that is no run's, and their page."""
    found = forgetting(path)
    simple = statistics(found.z_MxN, RANKS, found.metric == "exact_match")
    made = [room.matrix_section(found)]
    if simple["r2_rank"]:
        rank, additive, row, column, *f1 = simple.values()
        made.append(room.rank_section(rank, additive, row, column, f1_rank=f1[0] if f1 else ()))
    facts = {"matrix": str(path), "tasks": f"{len(found.tasks):,}"}
    facts["examples"] = f"{len(found.examples):,}"
    return made, room.page("forget_jax: matrix", made, facts)


def associate(folder: Path, summary: summaries.Associate) -> list[Section]:
    """The matrix, its ranks, and the training behind it."""
    return [
        room.matrix_section(forgetting(folder / MATRIX), repeat=summary.test_retest),
        room.rank_section(
            summary.r2_rank,
            summary.r2_additive,
            summary.r2_row,
            summary.r2_column,
            f1_rank=summary.f1_rank or (),
        ),
        *(
            [experiments.training(folder, "associate", "Training on the tasks", summary.failed)]
            if summary.training.steps
            else []
        ),
    ]


def evaluate(summary: summaries.Evaluate) -> Section:
    """Ways of completing rows, side by side."""
    methods = {
        name: room.Completed(
            *(m.rmse, m.rmse_std, m.f1, m.seconds),
            *(m.precision_at_k, m.precision_at_k_low, m.precision_at_k_high),
            *(m.brier, m.brier_clipped, m.brier_base),
            reliability=_reliability(m.reliability or ()),
        )
        for name, m in summary.methods.items()
    }
    paired = {
        name: room.PairedTest(t.seeds, t.mean, t.low, t.high, t.p)
        for name, t in summary.paired.items()
    }
    return room.methods_section(methods, summary.observed, summary.seeds, paired, summary.k)


def _reliability(bins: Sequence[summaries.ReliabilityBin]) -> list[room.Reliability]:
    return [room.Reliability(b.predicted, b.observed, b.entries) for b in bins]


def predicted(name: str, task: summaries.PredictedTask, summary: summaries.Predict) -> Section:
    """A task's row as it is predicted: means by source, and what is forgotten most."""
    means = {
        source: room.PredictedMean(
            m.z,
            m.low,
            m.high,
            m.examples,
            m.measured,
            (m.robust.z, m.robust.low, m.robust.high) if m.robust else None,
        )
        for source, m in {"all examples": task.mean, **task.sources}.items()
    }
    most = [
        room.PredictedExample(
            e.example, e.source, e.z, e.low, e.high, e.measured, e.text, e.probability
        )
        for e in task.most_forgotten
    ]
    p = task.probabilities
    likely = None
    if p is not None:
        bins = _reliability(p.reliability)
        likely = room.PredictedProbabilities(p.brier, p.brier_base, bins)
    return room.predicted_section(
        name,
        means,
        most,
        summary.coverage,
        room.Learned(task.expected_rmse, task.side, task.training_losses),
        likely,
    )


def probes(summary: summaries.Probes) -> Section:
    """What so many probes are expected to leave open."""
    expected = [vars(e) for e in summary.expected_errors]
    means = {
        name or "all examples": {
            float(e.observed): e.means[name].bound for e in summary.expected_errors
        }
        for name in (summary.expected_errors[0].means if summary.expected_errors else ())
    }
    compared = {aim: vars(found) for aim, found in (summary.against_random or {}).items()}
    return room.probes_section(expected, summary.columns_by_aim, compared, means)
