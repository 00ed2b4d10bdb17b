"""`forget-jax evaluate`: how well every method predicts rows of test tasks from a few entries."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from forget_jax import associations
from forget_jax.associations.evaluation import interval
from forget_jax.associations.matrix import Matrix
from forget_jax.commands import matrices
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Evaluate
from forget_jax.commands.summaries import Evaluate as Summary
from forget_jax.commands.summaries import Method, MethodsDiffer
from forget_jax.commands.summaries.codec import decode
from forget_jax.errors import UserError
from forget_jax.files import dump_json
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir


def check(settings: Evaluate) -> None:
    """Refuses a run without a matrix or without tasks to predict."""
    if not settings.matrix.path or not settings.split.test_tasks:
        raise UserError(
            "give matrix.path (an association matrix) and split.test_tasks (row numbers or names "
            "of the tasks to predict)"
        )


def run(settings: Evaluate, work: Workdir) -> Ended:
    """Evaluates every method under the paper's protocol (arXiv 2406.14026 §4)."""
    found = matrices.load(settings.matrix.path)
    test = found.rows(settings.split.test_tasks)
    train = _train_rows(found, settings.split.train_tasks, test)
    methods: dict[str, dict[str, Any]] = {}
    with Progress("evaluate", len(settings.methods), unit="method") as progress:
        for number, method in enumerate(settings.methods):
            methods |= associations.evaluate(
                found.z_MxN, train, test, settings.observed, settings.seeds, [method]
            )
            progress.at(number + 1, f"{method} RMSE {methods[method]['rmse']:.4f}")
    ranked = [name for name, m in methods.items() if np.isfinite(m["rmse"])]
    if not ranked:
        raise UserError(
            f"no method gives a finite RMSE on {settings.matrix.path}; look for entries that are "
            "far beyond the others, or take other methods"
        )
    best = min(ranked, key=lambda name: methods[name]["rmse"])
    known = [name for name in ranked if np.isfinite(methods[name]["precision_at_k"])]
    top = max(known, key=lambda name: methods[name]["precision_at_k"], default=None)
    summary = Summary(
        methods={name: _method(m) for name, m in methods.items()},
        best=best,
        paired=_paired(methods, best, ranked, "rmse"),
        k=methods[best]["k"],
        best_at_k=top,
        paired_at_k=_paired(methods, top, known, "precision_at_k") if top else {},
        observed=settings.observed,
        seeds=settings.seeds,
        train_tasks=tuple(found.tasks[i] for i in train),
        test_tasks=tuple(found.tasks[i] for i in test),
        seconds=work.seconds(),
    )
    shown = ", ".join(
        f"{name} {m.rmse:.4f}" if name in ranked else f"{name} without a finite figure"
        for name, m in summary.methods.items()
    )
    return Ended(summary, f"RMSE on {len(test)} test tasks: {shown}")


def _method(found: dict[str, Any]) -> Method:
    """A method's figures, its precision with an interval over test tasks."""
    by_task = np.array(found.pop("precision_at_k_by_task"))
    by_task = by_task[~np.isnan(by_task)]
    over = interval(by_task) if by_task.size > 1 else {"low": None, "high": None}
    found |= {f"precision_at_k_{end}": over[end] for end in ("low", "high")}
    if "reliability" in found:
        found["reliability"] = [b._asdict() for b in found["reliability"]]
    return decode(Method, json.loads(dump_json({k: v for k, v in found.items() if k != "k"})))


def _paired(
    methods: dict[str, Any], best: str, names: Sequence[str], metric: str
) -> dict[str, MethodsDiffer]:
    """The best method against each other one; none under one seed."""
    seeds = len(methods[best]["per_seed"][metric])
    return {
        f"{best} − {name}": decode(
            MethodsDiffer, associations.paired_difference(methods, best, name, metric)
        )
        for name in names
        if name != best and seeds > 1
    }


def _train_rows(found: Matrix, names: Sequence[str], test: Sequence[int]) -> list[int]:
    """The rows to learn from: those named, or all that are not tested."""
    if names:
        return found.rows(tuple(names))
    return [i for i in range(len(found.tasks)) if i not in set(test)]
