"""`forget-jax probes`: which upstream examples to measure for the next task, and how many."""

import sys

from ml_collections import ConfigDict

from forget_jax.associations import matrix as matrices
from forget_jax.associations import probes
from forget_jax.commands import report
from forget_jax.commands.config import plain
from forget_jax.errors import UserError
from forget_jax.files import PathLike
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir

COUNTS = (5, 10, 20, 30, 50, 100)


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Chooses probes for every aim, and estimates the error for several numbers of them."""
    if not config.matrix.path:
        raise UserError("give matrix.path (an association matrix)")
    work = Workdir(workdir, "probes", plain(config))
    if report.has_ended(work):
        return
    found = matrices.load(config.matrix.path)
    rows = found.rows(config.split.train_tasks) if config.split.train_tasks else slice(None)
    train = found.z_MxN[rows]
    columns = {
        aim: [found.examples[j] for j in probes.choose(train, config.observed, aim)]
        for aim in probes.AIMS
    }
    errors = []
    counts = sorted({*COUNTS, config.observed})
    with Progress("held-out tasks", len(counts), unit="number of probes") as progress:
        for number, count in enumerate(counts):
            errors += probes.expected_errors(train, (count,), seeds=config.seeds)
            progress.at(number + 1, f"{count} probes")
    summary = work.finish(
        {
            "columns": columns["row"],
            "columns_by_aim": columns,
            "expected_errors": errors,
            "observed": config.observed,
            "tasks": len(train),
            "seconds": work.seconds(),
        }
    )
    report.build(workdir)
    here = next((e for e in errors if e["observed"] == config.observed), None)
    expected = f"; expected RMSE {here['rmse']:.4f} with random probes" if here else ""
    print(f"measure first: {', '.join(summary['columns'][:5])}, …{expected}", file=sys.stderr)
