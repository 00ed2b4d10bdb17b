"""`forget-jax report`: rebuilds a workdir's report.html from its files alone.

A large matrix lies beside it, in the folder `report`.
"""

from collections.abc import Sequence
from typing import assert_never

from forget_jax import distributed, files
from forget_jax import report as room
from forget_jax.commands import summaries
from forget_jax.commands.pages import checks, experiments, laws, matrices
from forget_jax.commands.summaries import Summary
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.report import Section

# Figures that are written in larger units, by their key: their name then, and the unit.
UNITS = {
    "peak_memory": ("peak memory, GiB", 2**30),
    "peak_bytes": ("peak memory, GiB", 2**30),
    "bytes": ("size, MiB", 2**20),
    "flops_per_second": ("GFLOP a second", 1e9),
    "matmul_flops": ("matmul, GFLOP a second", 1e9),
}


def build(workdir: PathLike, bare: PathLike = "") -> Path:
    """Writes report.html and returns its path; of many processes only process 0 does.

    Args:
      workdir: of a run that has ended; with `bare`, any folder to write to.
      bare: a matrix that is no run's, whose page is made.

    Raises:
      UserError: the workdir holds no run that has ended, or one of another version; or no matrix.
    """
    work = Path(workdir)
    if not distributed.is_writer():
        return work / "report.html"
    if bare:
        if (work / "summary.json").exists():
            raise UserError(f"{workdir} is a run's folder: give another --workdir for the page")
        return _written(work, *matrices.of_matrix(bare))
    if not (work / "summary.json").exists():
        raise UserError(f"{workdir} holds no run that has ended (no summary.json)")
    summary = summaries.load(work / "summary.json")
    found = sections(work, summary)
    return _written(work, found, _page(summary, found))


def _written(work: Path, found: Sequence[Section], page: str) -> Path:
    """Writes a page, after what its sections have too much of to carry in it."""
    for section in found:
        for name, text in section.files.items():
            files.write_text(work / "report" / name, text)
    files.write_text(work / "report.html", page)
    return work / "report.html"


def html(folder: Path, summary: Summary) -> str:
    """The page of a run.

    Args:
      folder: the run's, for its metrics and tables.
      summary: its figures.

    Raises:
      UserError: a file of the run is not there or cannot be drawn.
    """
    return _page(summary, sections(folder, summary))


def _page(summary: Summary, found: Sequence[Section]) -> str:
    return room.page(f"forget_jax: {summary.command}", found, _facts(summary))


def sections(folder: Path, summary: Summary) -> list[Section]:
    """The chapters of a run's page; arguments and errors are those of `html`."""
    match summary:
        case summaries.Export():
            return []
        case summaries.Pretrain():
            return [experiments.training(folder, "pretrain", "Training the base")]
        case summaries.Finetune():
            return [experiments.training(folder, "finetune", "Training")]
        case summaries.Score():
            return matrices.score(folder)
        case summaries.Associate():
            return matrices.associate(folder, summary)
        case summaries.Evaluate():
            return [matrices.evaluate(summary)]
        case summaries.Predict():
            return [matrices.predicted(name, task, summary) for name, task in summary.tasks.items()]
        case summaries.Probes():
            return [matrices.probes(summary)]
        case summaries.Replay():
            return [experiments.replay(summary)]
        case summaries.Check():
            return checks.check(summary)
        case summaries.Mix():
            return [experiments.mix(summary)]
        case summaries.Scaling():
            return [laws.scaling(folder, summary)]
        case summaries.Plan():
            return [laws.plan(folder, summary)]
        case summaries.Factoids():
            return [experiments.factoids(summary)]
        case summaries.Bench():
            return [room.bench_section(summary.what, summary.rows, summary.ratio, summary.notes)]
        case summaries.Quickstart():
            return _quickstart(folder, summary)
        case _:
            assert_never(summary)


def _facts(summary: Summary) -> dict[str, str]:
    """The summary's plain figures, for the end of the page."""
    facts = {}
    for key, value in summaries.to_json(summary).items():
        if key in UNITS and isinstance(value, int | float):
            name, size = UNITS[key]
            facts[name] = f"{value / size:,.4g}"
        elif isinstance(value, float):
            facts[key.replace("_", " ")] = f"{value:,.4g}"
        elif isinstance(value, int | str):
            facts[key.replace("_", " ")] = f"{value:,}" if isinstance(value, int) else value
    return facts


# What the reader wants to know first comes first.
STORY = ("associate", "predict", "replay", "scaling", "factoids", "pretrain")


def _quickstart(folder: Path, summary: summaries.Quickstart) -> list[Section]:
    found = []
    for stage in STORY:
        if stage not in summary.seconds:
            continue  # no base was trained
        found += sections(folder / stage, summaries.load(folder / stage / "summary.json"))
    found.sort(key=lambda section: section.key.endswith("-training"))  # stable: training last
    seconds = {k: v for k, v in summary.seconds.items() if k != summaries.TOTAL}
    return [*found, room.timing_section(seconds)]
