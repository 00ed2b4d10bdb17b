"""`forget-jax predict`: complete the rows of test tasks from a few entries, method by method."""

import sys
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from forget_jax import associations
from forget_jax.associations import matrix as matrices
from forget_jax.associations.completion import METHODS
from forget_jax.commands import report
from forget_jax.commands.config import plain
from forget_jax.errors import UserError, nearest
from forget_jax.files import PathLike
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Evaluates every method under the paper's protocol (arXiv 2406.14026 §4)."""
    for method in config.methods:
        if method not in METHODS:
            raise UserError(
                f"methods names {method!r}{nearest(method, METHODS)}; "
                f"there are {', '.join(METHODS)}"
            )
    if not config.matrix.path or not config.split.test_tasks:
        raise UserError(
            "give matrix.path (an association matrix) and split.test_tasks (row numbers or names "
            "of the tasks to predict)"
        )
    work = Workdir(workdir, "predict", plain(config))
    if report.has_ended(work):
        return
    found = matrices.load(config.matrix.path)
    test = found.rows(config.split.test_tasks)
    train = _train_rows(found, config.split.train_tasks, test)
    methods: dict[str, dict[str, Any]] = {}
    with Progress("predict", len(config.methods), unit="method") as progress:
        for number, method in enumerate(config.methods):
            methods |= associations.evaluate(
                found.z_MxN, train, test, config.observed, config.seeds, [method]
            )
            progress.at(number + 1, f"{method} RMSE {methods[method]['rmse']:.4f}")
    best = min(methods, key=lambda name: methods[name]["rmse"])
    work.finish(
        {
            "methods": methods,
            "best": best,
            "paired": {
                f"{best} − {name}": associations.paired_difference(methods, best, name)
                for name in methods
                if name != best and config.seeds > 1
            },
            "observed": config.observed,
            "seeds": config.seeds,
            "train_tasks": [found.tasks[i] for i in train],
            "test_tasks": [found.tasks[i] for i in test],
            "seconds": work.seconds(),
        }
    )
    report.build(workdir)
    shown = ", ".join(f"{name} {m['rmse']:.4f}" for name, m in methods.items())
    print(f"RMSE on {len(test)} test tasks: {shown}; page in {work / 'report.html'}",
          file=sys.stderr)  # fmt: skip


def _train_rows(found: matrices.Matrix, names: Sequence[str], test: Sequence[int]) -> list[int]:
    """The rows to learn from: those named, or all that are not tested."""
    if names:
        return found.rows(tuple(names))
    return [i for i in range(len(found.tasks)) if i not in set(test)]
