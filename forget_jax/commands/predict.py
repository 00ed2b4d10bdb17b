"""`forget-jax predict`: what new tasks will make the model forget, from the scores of their probes.

Rows with gaps are filled: those of tasks whose probes were scored, joined by the examples' names to
a matrix of other tasks; or those of the matrix itself.
"""

import dataclasses
import io
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from forget_jax import associations, files
from forget_jax.associations.calibration import Judged
from forget_jax.associations.matrix import Matrix
from forget_jax.associations.online import FEWEST, PredictedRow, Predictor
from forget_jax.commands import evaluate, matrices, training_losses
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Predict
from forget_jax.commands.summaries import (
    Forgotten,
    MeanForgetting,
    PredictedTask,
    Probabilities,
    ReliabilityBin,
    RobustMean,
)
from forget_jax.commands.summaries import Predict as Summary
from forget_jax.errors import UserError
from forget_jax.report.section import number
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir

SHOWN = 12  # examples of the page, for each task
MOST_FITS = 20  # sets of known columns that intervals are calibrated for one by one
KNOWN = 0.5  # share of its entries above which a row is learned from


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows to fill and rows to learn from.

    Attributes:
      matrix: all of them, NaN where nothing was measured.
      wanted: numbers of the rows to fill.
      train: numbers of the rows to learn from; a row is not learned from where it is filled.
      losses: by task, what the losses of its training say (`training_losses`).
    """

    matrix: Matrix
    wanted: list[int]
    train: list[int]
    losses: Mapping[str, np.ndarray]

    def others(self, row: int) -> list[int]:
        """The rows that a row is predicted from."""
        return [i for i in self.train if i != row]


def check(settings: Predict) -> None:
    """Refuses a run without a matrix."""
    if not settings.matrix.path:
        raise UserError(
            "give matrix.path (a workdir of associate, or another matrix) and probes.path (the "
            "scores of a new task's probes), or a matrix whose rows have gaps"
        )
    if settings.split.test_tasks and settings.probes.path:
        raise UserError(
            "give probes.path (a new task) or split.test_tasks (a test of methods), not both"
        )


def run(settings: Predict, work: Workdir) -> Ended:
    """Fills rows, with intervals, and says what will be forgotten most."""
    if settings.split.test_tasks:
        print("predict with split.test_tasks is now called evaluate", file=sys.stderr)
        return evaluate.run(settings, work)
    rows = _without_unknown(_with_probes(settings) if settings.probes.path else _gaps(settings))
    texts = matrices.beginnings(settings.matrix.path)
    tasks: dict[str, PredictedTask] = {}
    frames = []
    with Progress("predict", len(rows.wanted), unit="task") as progress:
        for number_, (i, predictor, row) in enumerate(_predicted(rows, settings), 1):
            name = rows.matrix.tasks[i]
            frame = _frame(rows.matrix, i, row)
            tasks[name] = _task(frame, predictor, row, len(rows.others(i)), texts)
            frames.append(frame)
            progress.at(number_, name)
    table = pd.concat(frames, ignore_index=True)
    data = io.BytesIO()
    table.to_parquet(data, index=False)
    files.write_bytes(work / "predicted.parquet", data.getvalue())
    summary = Summary(
        tasks=tasks,
        method=settings.method,
        coverage=settings.coverage,
        examples=len(rows.matrix.examples),
        predicted=int((~table.measured).sum()),
        seconds=work.seconds(),
    )
    return Ended(summary, f"{_line(tasks)}; table in {work / 'predicted.parquet'}")


def _line(tasks: Mapping[str, PredictedTask], most: int = 3) -> str:
    said = []
    for name, task in list(tasks.items())[:most]:
        mean = task.mean
        worst = max(task.sources.items(), key=lambda item: item[1].z, default=None)
        by = f", most of {worst[0]} ({number(worst[1].z, sign=True)})" if worst else ""
        said.append(
            f"{name}: mean z {number(mean.z, sign=True)} [{number(mean.low, sign=True)}, "
            f"{number(mean.high, sign=True)}] from {mean.measured} measured of {mean.examples} "
            f"examples{by}"
        )
    more = [f"and {len(tasks) - most} more tasks"] if len(tasks) > most else []
    return "; ".join(said + more)


def _with_probes(settings: Predict) -> Rows:
    """The matrix, and below it a row for each scored model, known at its probes."""
    found = matrices.load(settings.matrix.path)
    probes, base = matrices.load_probes(settings.probes.path)
    if found.metric == "exact_match":
        raise UserError(
            f"{settings.matrix.path} is a matrix of exact match, the probes are losses: use a "
            "matrix that associate made with metric=nll"
        )
    _check_base(settings, base)
    where = {name: j for j, name in enumerate(found.examples)}
    columns = [j for j, name in enumerate(probes.examples) if name in where]
    unknown = [name for name in probes.examples if name not in where]
    if not columns:
        raise UserError(
            f"{settings.probes.path}: none of its {len(unknown)} examples is a column of "
            f"{settings.matrix.path} ({unknown[0]} is not): score the probes.jsonl that "
            "`forget-jax probes` writes"
        )
    if unknown:
        print(
            f"{len(unknown)} scored examples are no columns of the matrix and are left out, "
            f"{unknown[0]} first",
            file=sys.stderr,
        )
    new_TxN = np.full((len(probes.tasks), len(where)), np.nan)
    new_TxN[:, [where[probes.examples[j]] for j in columns]] = probes.z_MxN[:, columns]
    again = [name for name in probes.tasks if name in found.tasks]
    if again:
        print(f"{again[0]} is a row of the matrix too: that row is not used", file=sys.stderr)
    kept = [i for i, name in enumerate(found.tasks) if name not in again]
    joined = dataclasses.replace(
        found,
        z_MxN=np.concatenate([np.asarray(found.z_MxN, float)[kept], new_TxN]),
        tasks=(*(found.tasks[i] for i in kept), *probes.tasks),
    )
    named = settings.split.train_tasks
    train = joined.rows(named) if named else list(range(len(kept)))
    wanted = list(range(len(kept), len(joined.tasks)))
    losses = training_losses.of_matrix(settings.matrix.path)
    losses |= training_losses.of_adapters(probes.tasks)
    train = [i for i in train if i < len(kept)]
    return _checked(settings, Rows(joined, wanted, train, losses))


def _check_base(settings: Predict, base: pd.DataFrame) -> None:
    """Refuses probes that were tokenised otherwise, or scored under another base."""
    moved = matrices.base_moved(settings.matrix.path, base)
    if moved is None:
        return
    other = moved.retokenised
    if len(other):
        first = other.iloc[0]
        raise UserError(
            f"{settings.probes.path}: {len(other)} probes have other numbers of target tokens than "
            f"in {settings.matrix.path}, such as {other.index[0]}: {int(first.tokens_here)} and "
            f"{int(first.tokens_there)}; score them with the `data` settings of that run"
        )
    if moved.is_another:
        raise UserError(
            f"{settings.probes.path}: its base gives the probes another loss than that of "
            f"{settings.matrix.path} (by {moved.nll:.2f} nats a token): give score the same "
            "model.path"
        )


def _gaps(settings: Predict) -> Rows:
    """The matrix's own rows with gaps; learned from are those that know most of their entries."""
    found = matrices.load(settings.matrix.path)
    known_MxN = ~np.isnan(found.z_MxN)
    share_M = known_MxN[:, known_MxN.any(0)].mean(1)
    wanted = [i for i, share in enumerate(share_M) if 0 < share < 1]
    if empty := [found.tasks[i] for i in np.flatnonzero(share_M == 0)]:
        print(
            f"{len(empty)} tasks are left out, for nothing of them is known, {empty[0]} first",
            file=sys.stderr,
        )
    if not wanted:
        raise UserError(
            f"{settings.matrix.path} has no row with gaps to fill; give probes.path (scores of a "
            "new task's probes), or test methods on its rows with `forget-jax evaluate`"
        )
    named = settings.split.train_tasks
    train = found.rows(named) if named else np.flatnonzero(share_M > KNOWN).tolist()
    losses = training_losses.of_matrix(settings.matrix.path)
    return _checked(settings, Rows(found, wanted, train, losses))


def _checked(settings: Predict, rows: Rows) -> Rows:
    """Refuses too few rows to learn from."""
    least = min(len(rows.others(i)) for i in rows.wanted)
    if least < FEWEST:
        raise UserError(
            f"{settings.matrix.path} has {least} tasks to learn from (rows that know more than "
            f"half of their entries, or split.train_tasks); a prediction needs {FEWEST}"
        )
    return rows


def _without_unknown(rows: Rows) -> Rows:
    """The same without columns that no task to learn from knows, which is said."""
    found = rows.matrix
    known_N = ~np.isnan(found.z_MxN[rows.train]).all(0)
    left = [name for name, known in zip(found.examples, known_N, strict=True) if not known]
    if left:
        print(
            f"{len(left)} examples are left out, for no task that is learned from knows them, "
            f"{left[0]} first",
            file=sys.stderr,
        )
    kept = found.columns(np.flatnonzero(known_N))
    share_M = np.isnan(kept.z_MxN).mean(1)
    wanted = [i for i in rows.wanted if 0 < share_M[i] < 1]
    if not wanted:
        raise UserError(
            "there is nothing to predict: of the examples that the other tasks know, a row to fill "
            "knows all or none"
        )
    return Rows(kept, wanted, rows.train, rows.losses)


def _predicted(rows: Rows, settings: Predict) -> Iterator[tuple[int, Predictor, PredictedRow]]:
    """Every wanted row with its predictor; rows alike in what is known share one."""
    z_MxN = np.asarray(rows.matrix.z_MxN, np.float32)
    groups = list(rows.matrix.groups().values())
    options: dict[str, Any] = {}
    if settings.method == "auto":
        options["side"] = matrices.side(settings.matrix.path, rows.matrix)
    known = {i: np.flatnonzero(~np.isnan(z_MxN[i])) for i in rows.wanted}
    exact = len({columns.tobytes() for columns in known.values()}) <= MOST_FITS
    fits: dict[tuple[bytes, bytes], Predictor] = {}
    for i, columns_S in known.items():
        others = np.array(rows.others(i))
        count = columns_S.size if exact else 2 ** int(np.log2(columns_S.size))
        key = (others.tobytes(), columns_S.tobytes() if exact else bytes([count.bit_length()]))
        tasks = [rows.matrix.tasks[k] for k in (*others, i)]
        learned = [rows.losses[task] for task in tasks[:-1] if task in rows.losses]
        if key not in fits:
            beside: dict[str, Any] = (
                {"tasks": np.array(learned)} if len(learned) == len(others) else {}
            )
            fits[key] = associations.fit_predictor(
                z_MxN[others],
                count,
                settings.coverage,
                method=settings.method,
                columns=columns_S if exact else None,
                groups=groups,
                **options,
                **beside,
            )
        predictor = fits[key]
        if tasks[-1] in rows.losses:
            predictor = predictor.knowing(rows.losses[tasks[-1]])
        yield i, predictor, associations.predict_row(predictor, columns_S, z_MxN[i, columns_S])


def _frame(found: Matrix, i: int, row: PredictedRow) -> pd.DataFrame:
    """A task's row of the table: what was measured as it was, the rest predicted."""
    measured_N = np.asarray(found.z_MxN[i], float)
    known_N = ~np.isnan(measured_N)
    filled = {
        name: np.where(known_N, measured_N, values)
        for name, values in (("z", row.mean_N), ("low", row.low_N), ("high", row.high_N))
    }
    frame = pd.DataFrame(
        {
            "task": found.tasks[i],
            "example": np.array(found.examples, object),
            "source": np.array(found.sources or ("",) * known_N.size, object),
            **filled,
            "measured": known_N,
        }
    )
    if row.probability_N is not None:
        frame["probability"] = np.where(known_N, measured_N, row.probability_N)
    return frame


def _task(
    frame: pd.DataFrame,
    predictor: Predictor,
    row: PredictedRow,
    learned_from: int,
    texts: Mapping[str, str],
) -> PredictedTask:
    measured_N = np.where(frame.measured, frame.z, np.nan)
    figures = associations.predict_means(predictor, row, measured_N)
    columns_S = np.flatnonzero(frame.measured)
    robust_GxF = np.stack(associations.robust_means(predictor, columns_S, measured_N[columns_S]), 1)
    groups = predictor.groups_GxN
    means = [
        MeanForgetting(
            z=float(z),
            low=float(low),
            high=float(high),
            examples=int(mask.sum()),
            measured=int((mask & frame.measured.to_numpy()).sum()),
            robust=None if np.isnan(robust_F).any() else _robust(*robust_F),
        )
        for z, low, high, mask, robust_F in zip(*figures, groups, robust_GxF, strict=True)
    ]
    sources = [frame.source.iloc[int(mask.argmax())] for mask in groups[1:]]
    by_source = dict(zip(sources, means[1:], strict=True))
    return PredictedTask(
        mean=means[0],
        sources=dict(sorted(by_source.items(), key=lambda item: -item[1].z)),
        most_forgotten=_most(frame, texts),
        expected_rmse=predictor.rmse,
        learned_from=learned_from,
        side=dict(predictor.side),
        training_losses=predictor.tasks is not None and predictor.tasks.is_known,
        probabilities=None if predictor.judged is None else _probabilities(predictor.judged),
    )


def _probabilities(judged: Judged) -> Probabilities:
    bins = tuple(ReliabilityBin(**b._asdict()) for b in judged.reliability)
    return Probabilities(brier=judged.brier, brier_base=judged.brier_base, reliability=bins)


def _robust(z: float, low: float, high: float) -> RobustMean:
    return RobustMean(z=float(z), low=float(low), high=float(high))


def _most(frame: pd.DataFrame, texts: Mapping[str, str]) -> tuple[Forgotten, ...]:
    chosen = frame.sort_values("z", ascending=False, kind="stable").head(SHOWN)
    return tuple(
        Forgotten(
            example=e.example,
            source=e.source,
            z=float(e.z),
            low=float(e.low),
            high=float(e.high),
            measured=bool(e.measured),
            text=texts.get(e.example, ""),
            probability=getattr(e, "probability", None),
        )
        for e in chosen.itertuples()
    )
