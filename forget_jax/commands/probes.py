"""`forget-jax probes`: which upstream examples to measure for the next task, and how many.

They are written as a data set that `score` reads, so that the next commands are `score` (of base
and fine-tune, on these alone) and `predict`.
"""

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from forget_jax import associations, files, foreign
from forget_jax.associations.probes import AIMS
from forget_jax.commands import matrices
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Probes
from forget_jax.commands.summaries import ExpectedError, ExpectedMean, ProbesDiffer
from forget_jax.commands.summaries import Probes as Summary
from forget_jax.data.settings import Data
from forget_jax.errors import UserError
from forget_jax.files import Path
from forget_jax.randomness import generator
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir

RANDOM = "random"  # the aim that chooses nothing
COUNTS = (5, 10, 20, 30, 50, 100)


def check(settings: Probes) -> None:
    """Refuses a run without a matrix."""
    if not settings.matrix.path:
        raise UserError("give matrix.path (a workdir of associate, or another matrix)")


def run(settings: Probes, work: Workdir) -> Ended:
    """Chooses probes for every aim, writes those of one, and estimates errors by their number."""
    found = matrices.load(settings.matrix.path)
    rows = found.rows(settings.split.train_tasks) if settings.split.train_tasks else slice(None)
    train_MxN = found.z_MxN[rows]
    columns = {
        aim: tuple(
            found.examples[j] for j in associations.choose_probes(train_MxN, settings.observed, aim)
        )
        for aim in AIMS
    }
    columns[RANDOM] = _random(found.examples, settings.observed)
    texts = _write(settings, work, columns[settings.aim])
    errors = []
    counts = sorted({*COUNTS, settings.observed})
    with Progress("held-out tasks", len(counts), unit="number of probes") as progress:
        for number, count in enumerate(counts):
            errors += associations.expected_errors(
                train_MxN, (count,), seeds=settings.seeds, groups=found.groups()
            )
            progress.at(number + 1, f"{count} probes")
    summary = Summary(
        columns=columns[settings.aim],
        columns_by_aim=columns,
        expected_errors=tuple(_expected(e) for e in errors),
        against_random=_against_random(train_MxN, settings),
        observed=settings.observed,
        aim=settings.aim,
        texts=texts,
        tasks=len(train_MxN),
        seconds=work.seconds(),
    )
    here = next((e for e in summary.expected_errors if e.observed == settings.observed), None)
    expected = f"; expected RMSE {here.rmse:.4f} with random probes" if here else ""
    return Ended(summary, f"measure first: {', '.join(summary.columns[:5])}, …{expected}")


def _expected(record: Mapping[str, Any]) -> ExpectedError:
    means = {name: ExpectedMean(**mean) for name, mean in record["means"].items()}
    return ExpectedError(**{**record, "means": means})


def _random(examples: Sequence[str], count: int) -> tuple[str, ...]:
    chosen = generator(0, "random probes").choice(len(examples), count, replace=False)
    return tuple(examples[j] for j in chosen)


def _write(settings: Probes, work: Workdir, names: Sequence[str]) -> bool:
    """Writes probes.jsonl and says what to do with it; whether it holds texts."""
    place, path = work / "probes.jsonl", settings.matrix.path
    rows = matrices.kept_examples(path, names)
    lines = rows if rows is not None else [json.dumps({"name": name}) for name in names]
    files.write_text(place, "".join(f"{line}\n" for line in lines))
    if rows is None:
        print(
            f"beside {path} lie no texts: {place} lists the names alone; give score those rows of "
            "your upstream data, with these names (FILE#N is row N of FILE, counted from 0)",
            file=sys.stderr,
        )
        return False
    print(
        f"score them: {score_command(path, place)}\nthen: forget-jax predict "
        f"--config.matrix.path={shlex.quote(path)} --config.probes.path=WORKDIR_OF_SCORE",
        file=sys.stderr,
    )
    return True


def score_command(path: str, place: Path) -> str:
    """The command that scores the probes as the matrix's own run scored them."""
    kept = matrices.place(path).parent / "config.json"
    held: Mapping[str, object] = files.read_json(kept) if kept.exists() else {}
    fields: dict[str, object] = {}
    for group in ("model", "data"):
        given = foreign.record(held.get(group, {}), str(kept))
        fields |= {f"{group}.{name}": value for name, value in given.items()}
    usual = {f"data.{f.name}": f.default for f in dataclasses.fields(Data)} | {
        "model.dtype": "float32"
    }
    passed = {
        name: value
        for name, value in fields.items()
        if usual.get(name, "") != value and name not in ("data.columns", "data.shuffle")
    }
    passed |= {"data.path": str(place), "adapters": "YOUR_ADAPTER"}
    options = " ".join(f"--config.{name}={shlex.quote(str(x))}" for name, x in passed.items())
    return f"forget-jax score {options}"


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
