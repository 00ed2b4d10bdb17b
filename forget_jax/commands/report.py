"""`forget-jax report`: rebuilds a workdir's report.html from its files alone."""

import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from forget_jax import distributed, files
from forget_jax.associations import matrix
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.report import (
    Section,
    bench_section,
    factoids_section,
    matrix_section,
    methods_section,
    page,
    probes_section,
    rank_section,
    replay_section,
    scaling_section,
    score_section,
    timing_section,
    training_section,
)
from forget_jax.runs.workdir import Metrics, Workdir
from forget_jax.scoring import disk


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Rebuilds the page of any workdir."""
    print(f"wrote {build(workdir)}", file=sys.stderr)


def has_ended(work: Workdir) -> bool:
    """Whether the run has ended before; says so, and makes its page if that is missing."""
    if not distributed.agreed(work.done is not None):
        return False
    if not (work / "report.html").exists():
        build(work.path)
    print(f"{work.path} has ended already; see {work / 'report.html'}", file=sys.stderr)
    return True


def build(workdir: PathLike) -> Path:
    """Writes report.html and returns its path; of many processes only process 0 does.

    Raises:
      UserError: the workdir holds no run that has ended.
    """
    work = Path(workdir)
    if not distributed.is_writer():
        return work / "report.html"
    if not (work / "summary.json").exists():
        raise UserError(f"{workdir} holds no run that has ended (no summary.json)")
    summary = files.read_json(work / "summary.json")
    command = summary["command"]
    sections = SECTIONS[command](work, summary)
    html = page(f"forget_jax: {command}", sections, _facts(summary))
    files.write_text(work / "report.html", html)
    return work / "report.html"


def _facts(summary: dict[str, Any]) -> dict[str, str]:
    """The summary's plain figures, for the head of the page."""
    facts = {}
    for key, value in summary.items():
        if isinstance(value, float):
            facts[key.replace("_", " ")] = f"{value:,.4g}"
        elif isinstance(value, int | str):
            facts[key.replace("_", " ")] = f"{value:,}" if isinstance(value, int) else value
    return facts


def _training(work: Path, summary: dict[str, Any], stage: str, title: str) -> Section:
    records = Metrics(work / "metrics.jsonl").stage(stage)
    curves: dict[str, dict[str, list[float]]] = {}
    for record in records:
        for name, loss in record["loss"].items():
            curve = curves.setdefault(name, {"step": [], "loss": []})
            curve["step"].append(record["step"])
            curve["loss"].append(loss)
    facts = _heldout(records)
    for name, why in summary.get("failed", {}).items():
        facts[f"left out: {name}"] = f"its loss was not finite at step {why['step']}"
    return training_section(curves, facts, key=f"{stage}-training", title=title)


def _heldout(records: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The least held-out loss of every task that has one, and when it was taken."""
    taken: dict[str, list[tuple[float, int]]] = {}
    for record in records:
        for name, loss in record.get("heldout", {}).items():
            if loss is not None:
                taken.setdefault(name, []).append((loss, record["step"]))
    return {
        f"held-out loss of {name}": f"{min(pairs)[0]:.3f} at step {min(pairs)[1]}, the least of "
        f"{len(pairs)} taken; that state is the result"
        for name, pairs in taken.items()
    }


def _pretrain(work: Path, summary: dict[str, Any]) -> list[Section]:
    return [_training(work, summary, "pretrain", "Training the base")]


def _finetune(work: Path, summary: dict[str, Any]) -> list[Section]:
    return [_training(work, summary, "finetune", "Training")]


def _score(work: Path, summary: dict[str, Any]) -> list[Section]:
    table = disk.read(work / "scores.zarr")
    nll = table.nll_sum.values / table.tokens.values
    names = [str(m) for m in table.model.values]
    return [
        score_section(
            dict(zip(names, nll, strict=True)),
            dict(zip(names, table.tokens.values.sum(1).tolist(), strict=True)),
        )
    ]


def _associate(work: Path, summary: dict[str, Any]) -> list[Section]:
    found = matrix.load(work / "forgetting.zarr")
    texts = {r["name"]: r["text"] for r in files.read_json(work / "examples.json")}
    return [
        matrix_section(
            np.asarray(found.z_MxN),
            found.tasks,
            found.examples,
            found.sources,
            [texts[name] for name in found.examples],
            repeat=summary["test_retest"],
            metric=found.metric or "nll",
        ),
        rank_section(
            summary["r2_rank"],
            summary["r2_additive"],
            summary["r2_row"],
            summary["r2_column"],
            f1_rank=summary.get("f1_rank", ()),
        ),
        _training(work, summary, "associate", "Training on the tasks"),
    ]


def _predict(work: Path, summary: dict[str, Any]) -> list[Section]:
    return [methods_section(summary["methods"], summary["observed"], summary["seeds"])]


def _probes(work: Path, summary: dict[str, Any]) -> list[Section]:
    return [probes_section(summary["expected_errors"], summary["columns_by_aim"])]


def _replay(work: Path, summary: dict[str, Any]) -> list[Section]:
    return [replay_section(summary["replay"], summary["paired_test"], summary["seeds"])]


def _scaling(work: Path, summary: dict[str, Any]) -> list[Section]:
    points = pd.read_csv(io.BytesIO((work / "points.csv").read_bytes()))
    if not {"P", "steps", "l_ft", "l_f"} <= set(points):
        raise UserError("points.csv needs the columns P, steps, l_ft and l_f to be drawn")
    if "run" not in points:
        points["run"] = points["P"].astype(str)
    return [
        scaling_section(
            points.to_dict("list"), summary["laws"], summary["curves"], summary["seeds"]
        )
    ]


def _factoids(work: Path, summary: dict[str, Any]) -> list[Section]:
    return [factoids_section(summary["by_seed"], summary["seeds"])]


# What the reader wants to know first comes first.
STORY = ("associate", "predict", "replay", "scaling", "factoids", "pretrain")


def _quickstart(work: Path, summary: dict[str, Any]) -> list[Section]:
    found = []
    for stage in STORY:
        found += SECTIONS[stage](work / stage, files.read_json(work / stage / "summary.json"))
    found.sort(key=lambda section: section.key.endswith("-training"))  # stable: training last
    seconds = {k: v for k, v in summary["seconds"].items() if k != "total"}
    return [*found, timing_section(seconds)]


SECTIONS: dict[str, Callable[[Path, dict[str, Any]], list[Section]]] = {
    "export": lambda work, summary: [],
    "bench": lambda work, summary: [
        bench_section(*(summary[key] for key in ("what", "rows", "ratio", "notes")))
    ],
    "quickstart": _quickstart,
    "pretrain": _pretrain,
    "finetune": _finetune,
    "score": _score,
    "associate": _associate,
    "predict": _predict,
    "probes": _probes,
    "replay": _replay,
    "factoids": _factoids,
    "scaling": _scaling,
}
