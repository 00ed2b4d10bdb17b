"""`forget-jax quickstart`: every command in turn, small and offline, and one page of it all."""

import importlib
import sys
from typing import Any

from ml_collections import ConfigDict

from forget_jax import files
from forget_jax.commands import models, report
from forget_jax.commands.config import plain
from forget_jax.files import PathLike
from forget_jax.runs.workdir import Workdir

STAGES = ("pretrain", "associate", "predict", "replay", "scaling", "factoids")


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Runs the stages, each in a folder of its own, and resumes at the first that has not ended."""
    work = Workdir(workdir, "quickstart", plain(config))
    if report.has_ended(work):
        return
    base = str(work / "pretrain" / "model")
    matrix = str(work / "associate" / "forgetting.zarr")
    for number, stage in enumerate(STAGES):
        print(f"\n== {number + 1} of {len(STAGES)}: {stage} ==", file=sys.stderr)
        c = ConfigDict(config[stage].to_dict())
        if stage not in ("pretrain", "predict"):
            c.model.path = base
        if stage in ("predict", "replay"):
            c.matrix.path = matrix
        with models.mesh(c):
            importlib.import_module(f"forget_jax.commands.{stage}").run(c, work / stage)
        work.tick()
    ended = {stage: files.read_json(work / stage / "summary.json") for stage in STAGES}
    seconds = {stage: ended[stage]["seconds"] for stage in STAGES}
    total = work.seconds()
    seconds["imports, pages and the rest"] = total - sum(seconds.values())
    work.finish({**_headlines(ended), "seconds": {**seconds, "total": total}})
    report.build(workdir)
    print("\n" + "\n".join(f"{stage:>28} {s:6.1f} s" for stage, s in seconds.items()))
    print(f"{'total':>28} {total:6.1f} s\n\nopen {work / 'report.html'}")


def _headlines(ended: dict[str, Any]) -> dict[str, Any]:
    """What the whole run's summary holds of each stage's."""
    wanted = {
        "pretrain": ("parameters", "heldout_loss", "unigram_loss"),
        "associate": (
            *("tasks", "examples", "mean_z", "share_positive", "r2_rank", "r2_additive"),
            *("test_retest", "useful_fraction"),
        ),
        "predict": ("methods", "best"),
        "replay": ("replay", "paired_test"),
        "scaling": ("laws", "points", "runs"),
        "factoids": ("factoids", "facts_a", "facts_b"),
    }
    return {key: ended[stage][key] for stage, keys in wanted.items() for key in keys}
