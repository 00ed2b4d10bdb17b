"""`forget-jax probes`: which upstream examples to measure for the next task, and how many."""

import numpy as np

from forget_jax import associations
from forget_jax.associations import matrix as matrices
from forget_jax.associations.probes import AIMS
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Probes
from forget_jax.commands.summaries import ExpectedError, ProbesDiffer
from forget_jax.commands.summaries import Probes as Summary
from forget_jax.errors import UserError
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir

COUNTS = (5, 10, 20, 30, 50, 100)


def check(settings: Probes) -> None:
    """Refuses a run without a matrix."""
    if not settings.matrix.path:
        raise UserError("give matrix.path (an association matrix)")


def run(settings: Probes, work: Workdir) -> Ended:
    """Chooses probes for every aim, and estimates the error for several numbers of them."""
    found = matrices.load(settings.matrix.path)
    rows = found.rows(settings.split.train_tasks) if settings.split.train_tasks else slice(None)
    train_MxN = found.z_MxN[rows]
    columns = {
        aim: tuple(
            found.examples[j] for j in associations.choose_probes(train_MxN, settings.observed, aim)
        )
        for aim in AIMS
    }
    errors = []
    counts = sorted({*COUNTS, settings.observed})
    with Progress("held-out tasks", len(counts), unit="number of probes") as progress:
        for number, count in enumerate(counts):
            errors += associations.expected_errors(train_MxN, (count,), seeds=settings.seeds)
            progress.at(number + 1, f"{count} probes")
    summary = Summary(
        columns=columns["row"],
        columns_by_aim=columns,
        expected_errors=tuple(ExpectedError(**e) for e in errors),
        against_random=_against_random(train_MxN, settings),
        observed=settings.observed,
        tasks=len(train_MxN),
        seconds=work.seconds(),
    )
    here = next((e for e in summary.expected_errors if e.observed == settings.observed), None)
    expected = f"; expected RMSE {here.rmse:.4f} with random probes" if here else ""
    return Ended(summary, f"measure first: {', '.join(summary.columns[:5])}, …{expected}")


def _against_random(z_MxN: np.ndarray, settings: Probes) -> dict[str, ProbesDiffer] | None:
    """Every aim's design against random probes, on every fourth task; None if there are too few."""
    held = np.arange(len(z_MxN)) % 4 == 3
    if (~held).sum() < 4 or settings.seeds < 2 or settings.observed > z_MxN.shape[1] // 2:
        return None
    train_MxN, test_TxN = z_MxN[~held], z_MxN[held]
    halves = range(settings.seeds)
    found = {}
    for aim, metric in AIMS.items():
        compared = associations.compare_probes(train_MxN, test_TxN, settings.observed, halves, aim)
        found[aim] = ProbesDiffer(metric=metric, **compared[metric])
    return found
