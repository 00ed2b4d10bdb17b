"""`forget-jax quickstart`: every command in turn, small and offline, and one page of it all."""

import dataclasses
import math
import sys
from typing import Any

import numpy as np

from forget_jax.associations.matrix import Matrix
from forget_jax.commands import summaries
from forget_jax.commands.driver import Ended, drive, module_of
from forget_jax.commands.settings import Quickstart
from forget_jax.commands.summaries import Quickstart as Summary
from forget_jax.data.reading import task_names
from forget_jax.files import Path
from forget_jax.lm.hf import about, layout
from forget_jax.runs.workdir import Workdir

COMMAND = {"predict": "evaluate"}  # of the stages that are called otherwise
STAGES = ("pretrain", "associate", "predict", "replay", "scaling", "factoids")


def check(settings: Quickstart) -> None:
    """Refuses what a later stage would, before the first one begins."""
    for stage in stages(settings):
        further = getattr(module_of(COMMAND.get(stage, stage)), "check", None)
        if further is not None:
            further(_joined(settings, stage, Path("quickstart")))
    tasks = task_names(settings.associate.tasks)
    made = Matrix(np.zeros((len(tasks), 1)), tuple(tasks), ("",), ("",))
    made.rows((*settings.predict.split.test_tasks, *settings.predict.split.train_tasks))
    made.rows(tuple(task_names(settings.replay.tasks)))


def run(settings: Quickstart, work: Workdir) -> Ended:
    """Runs the stages, each in a folder of its own, and resumes at the first that has not ended."""
    chosen = stages(settings)
    for number, stage in enumerate(chosen):
        print(f"\n== {number + 1} of {len(chosen)}: {stage} ==", file=sys.stderr)
        drive(COMMAND.get(stage, stage), _joined(settings, stage, work.path), work / stage)
        work.tick()
    summary = _summary(work, settings.base)
    shown = [f"{stage:>28} {seconds:6.1f} s" for stage, seconds in summary.seconds.items()]
    print("\n" + "\n".join(shown))
    return Ended(summary, "\nall stages have ended")


def stages(settings: Quickstart) -> tuple[str, ...]:
    """The stages that run: a base that is given need not be trained first."""
    return tuple(stage for stage in STAGES if stage != "pretrain" or not settings.base)


def _joined(whole: Quickstart, stage: str, folder: Path) -> Any:
    """A stage's settings with the base and the matrix that the stages before it made."""
    settings = getattr(whole, stage)
    made = {
        "model": ("path", whole.base or str(folder / "pretrain" / "model")),
        "matrix": ("path", str(folder / "associate" / "forgetting.zarr")),
    }
    for group, (field, value) in made.items():
        held: Any = getattr(settings, group, None)
        if hasattr(held, field):
            changed = dataclasses.replace(held, **{field: value})
            settings = dataclasses.replace(settings, **{group: changed})
    return settings


def _summary(work: Workdir, base: str) -> Summary:
    """The headlines of all stages."""

    def ended(kind: type[Any], stage: str = "") -> Any:
        return summaries.read(kind, work / (stage or kind.command) / "summary.json")

    pretrain: summaries.Pretrain | None = None if base else ended(summaries.Pretrain)
    associate: summaries.Associate = ended(summaries.Associate)
    predict: summaries.Evaluate = ended(summaries.Evaluate, "predict")
    replay: summaries.Replay = ended(summaries.Replay)
    scaling: summaries.Scaling = ended(summaries.Scaling)
    factoids: summaries.Factoids = ended(summaries.Factoids)
    stages = (pretrain, associate, predict, replay, scaling, factoids)
    named = zip(STAGES, stages, strict=True)
    seconds = {name: stage.seconds for name, stage in named if stage is not None}
    total = work.seconds()
    seconds["imports, pages and the rest"] = total - sum(seconds.values())
    return Summary(
        parameters=_parameters(base) if pretrain is None else pretrain.parameters,
        heldout_loss=None if pretrain is None else pretrain.heldout_loss,
        unigram_loss=None if pretrain is None else pretrain.unigram_loss,
        tasks=associate.tasks,
        examples=associate.examples,
        mean_z=associate.mean_z,
        share_positive=associate.share_positive,
        r2_rank=associate.r2_rank,
        r2_additive=associate.r2_additive,
        test_retest=associate.test_retest,
        useful_fraction=associate.useful_fraction,
        methods=predict.methods,
        best=predict.best,
        replay=replay.replay,
        paired_test=replay.paired_test,
        laws=scaling.laws,
        points=scaling.points,
        runs=scaling.runs,
        factoids=factoids.factoids,
        facts_a=factoids.facts_a,
        facts_b=factoids.facts_b,
        seconds={**seconds, summaries.TOTAL: total},
    )


def _parameters(base: str) -> int:
    """How many numbers a checkpoint holds."""
    return sum(math.prod(shape) for shape in layout.shapes(about.config_of(base)).values())
