"""`forget-jax factoids`: memorise facts, train on others, and ask again, under every arm."""

import dataclasses
import functools
import math
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from forget_jax import distributed, files
from forget_jax.commands import early, values
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Factoids
from forget_jax.commands.summaries import Arm, ArmBySeed, ArmsDiffer
from forget_jax.commands.summaries import Factoids as Summary
from forget_jax.data.reading import Reader
from forget_jax.errors import UserError
from forget_jax.factoids import experiment as experiments
from forget_jax.factoids import filter as filters
from forget_jax.factoids import sets, verdict
from forget_jax.factoids.evaluation import Answers
from forget_jax.factoids.experiment import Experiment
from forget_jax.factoids.filter import Asked
from forget_jax.factoids.mitigations import LETTERS, Mitigation
from forget_jax.factoids.training import Trainer
from forget_jax.factoids.tree import RECOVERY, Axes, Grid, grid
from forget_jax.fleet import fitting
from forget_jax.fleet.fleet import Fleet, tasks_together
from forget_jax.lm.lora import LoRAConfig
from forget_jax.runs.workdir import Workdir
from forget_jax.training.loop import Recipe

MEASURED = {
    "accuracy_a_after_a": ("A", "A", "exact"),
    "answer_nll_a_after_a": ("A", "A", "nll"),
    "accuracy_a_after_b": ("A", "B", "exact"),
    "answer_nll_a_after_b": ("A", "B", "nll"),
    "accuracy_b": ("B", "B", "exact"),
    "answer_nll_b": ("B", "B", "nll"),
    "right_a_after_b": ("A", "B", "right"),
    "prefix_a_after_b": ("A", "B", "prefix"),
    "rouge_l_a_after_b": ("A", "B", "rouge_l"),
    "known_a_after_b": ("A", "B", "known"),
    "asked_before_recovery": ("A", f"before {RECOVERY}", "exact"),
    "asked_after_recovery": ("A", RECOVERY, "exact"),
    "steps_a": ("A", "A", "steps"),
    "steps_b": ("A", "B", "steps"),
}  # by figure of a summary: set, after which stage, and column of cells.csv


def sequences(settings: Factoids) -> tuple[tuple[str, ...], ...]:
    """The sets of every sequence, in order."""
    if settings.sequences:
        return tuple(sets.sequence(text) for text in settings.sequences)
    return ((settings.stage_a, settings.stage_b),)


def check(settings: Factoids) -> None:
    """Refuses settings that compare nothing."""
    if not settings.arms:
        raise UserError("arms names nothing to compare; write naive, and arms beside it")
    for field in ("arms", "sequences"):
        given = getattr(settings, field)
        if twice := [name for name in given if given.count(name) > 1]:
            raise UserError(f"{field} names {twice[0]} twice")
    if not settings.sequences:
        for field in ("stage_a", "stage_b"):
            if not getattr(settings, field):
                raise UserError(f"config.{field} names no data set")
    if len({len(sequence) for sequence in sequences(settings)}) > 1:
        raise UserError("sequences must have the same number of sets; run others by themselves")
    for sequence in sequences(settings):
        if len(sequence) < 2:
            raise UserError(
                f"sequences: {' > '.join(sequence)!r} has one set; facts are forgotten in a second"
            )
        for spec in sequence:
            sets.named(spec)
    if settings.data.too_long == "windows":
        raise UserError("facts are recited whole: set data.too_long=truncate, left or error")
    values.check_alone(settings.train, "factoids")
    early.check(settings.model, settings.lora)
    for node in grid_of(settings).nodes.values():
        _check_arm(settings, node.name, node.what or Mitigation())


def _check_arm(settings: Factoids, name: str, what: Mitigation) -> None:
    if what.lora and settings.lora.rank:
        raise UserError(f"{name}: lora is in place of a whole model; set lora.rank=0")
    for mix in what.mixes:
        field = "mix" if mix.source == "random" else mix.source
        if not getattr(settings, field):
            raise UserError(f"config.{field} names no data set, and {name} mixes it in")


def grid_of(settings: Factoids) -> Grid:
    """Every stage of every run."""
    recovery = settings.recover > 0
    axes = Axes(sequences(settings), settings.arms, settings.seeds, settings.ratio, recovery)
    return grid(axes, settings.train.seed)


def run(settings: Factoids, work: Workdir) -> Ended:
    """Trains every arm through all stages and asks after each; resumes."""
    whole = grid_of(settings)
    recipe = Recipe(settings.train, values.adapter(settings.lora))
    reader = _reader(settings, recipe, work, whole)
    base = functools.cache(lambda: values.base(settings.model, reader))  # after rows, if it can be

    def knows(spec: str, asked: Asked) -> list[bool]:
        return filters.known(base(), asked, work / "known" / f"{files.safe_name(spec)}.json")

    facts, mixed = experiments.read_all(reader, settings, whole, knows)
    for spec, of in facts.items():
        _check_rows(settings, spec, len(of.encoded), whole)
    trainer = _trainer(settings, Fleet(work, base(), recipe, context=settings.data.context), whole)
    experiment = Experiment(settings, facts, mixed, whole)
    experiments.measure(trainer, experiment)
    said = experiments.answers(trainer.fleet, experiment)
    frame = experiments.cells(experiment, said)
    _write(work, experiment, said, frame)
    print(verdict.headroom(frame), file=sys.stderr)
    summary = _summary(settings, work, experiment, said, frame)
    shown = ", ".join(f"{name} {arm.accuracy_a_after_last:.0%}" for name, arm in
                      summary.factoids.items())  # fmt: skip
    return Ended(summary, f"facts A still known after the last stage: {shown}")


def _reader(settings: Factoids, recipe: Recipe, work: Workdir, whole: Grid) -> Reader:
    """What reads the sets, after the plan of memory was said."""
    return values.reader(
        settings.model,
        settings.data,
        recipe,
        together=1,
        work=work,
        kept=kept(settings, whole) if recipe.lora is None else 0,
    )


def _trainer(settings: Factoids, fleet: Fleet, whole: Grid) -> Trainer:
    level = max(sum(n.stage == k for n in whole.nodes.values()) for k in range(len(LETTERS)))
    together = 1 if fleet.full else tasks_together(fleet, level)
    is_half = settings.protocol == "paper" and fleet.full
    return Trainer(fleet, together, _beside(settings), "bfloat16" if is_half else "float32")


def _beside(settings: Factoids) -> LoRAConfig:
    """The adapters of arms that train such in place of the whole model; arms say the rank."""
    found = values.adapter(dataclasses.replace(settings.lora, rank=settings.lora.rank or 8))
    assert found is not None
    return found


def kept(settings: Factoids, whole: Grid) -> int:
    """Whole models that lie in memory beside the one that is trained.

    The base, and what the stage starts from; what a penalty or a divergence needs of it; the best
    state where losses end a stage; and what a checkpoint copies while it is written (the model and
    two moments).
    """
    done = [node.what or Mitigation() for node in whole.nodes.values()]
    penalty = max((1 + bool(m.ewc) for m in done if m.ewc or m.l2), default=0)
    return 2 + max(penalty, *(bool(m.kl) for m in done)) + (settings.stop == "loss") + 3


def _check_rows(settings: Factoids, spec: str, facts: int, whole: Grid) -> None:
    """Refuses a stage of less than one batch, or of more rows than can be put in order."""
    rows, batch = facts * settings.epochs, settings.train.batch_size
    if batch > rows:
        raise UserError(
            f"train.batch_size={batch} is over the {rows} rows that {facts} facts of {spec} have "
            f"in {settings.epochs} epochs; {rows} or less fit"
        )
    if settings.recover >= facts:
        raise UserError(f"recover={settings.recover} leaves none of the {facts} facts to ask")
    most = max(
        1 + sum(mix.ratio for mix in n.what.mixes) + n.what.steps
        for n in whole.nodes.values()
        if n.what
    )
    fitting.check_order(round(rows * most), len(whole.nodes), "epochs and ratio")


def _write(
    work: Workdir,
    experiment: Experiment,
    said: Mapping[str, Mapping[str, Answers]],
    frame: pd.DataFrame,
) -> None:
    """cells.csv, predictions.parquet, and what there is of dropped.json and the tables beside."""
    if not distributed.is_writer():
        return
    files.write_text(work / "cells.csv", frame.to_csv(index=False))
    table = experiments.predictions(experiment, said)
    files.write_bytes(work / "predictions.parquet", table.to_parquet(index=False))
    dropped = {spec: dict(of.dropped) for spec, of in experiment.facts.items() if of.dropped}
    if dropped:
        files.write_json(work / "dropped.json", dropped)
    beside = {
        "lens.csv": experiments.layers(experiment, said),
        "displacement.csv": experiments.displacements(experiment, said),
    }
    for name, table in beside.items():
        if len(table):
            files.write_text(work / name, table.to_csv(index=False))


def _summary(
    settings: Factoids,
    work: Workdir,
    experiment: Experiment,
    said: Mapping[str, Mapping[str, Answers]],
    frame: pd.DataFrame,
) -> Summary:
    by_seed = {arm: _by_seed(frame[frame.arm == arm]) for arm in settings.arms}
    facts, first = experiment.facts, experiment.grid.paths[0].sequence
    longest = max(len(path.sequence) for path in experiment.grid.paths)
    return Summary(
        factoids={arm: _arm(of) for arm, of in by_seed.items()},
        by_seed=by_seed,
        after={arm: _after(frame[frame.arm == arm]) for arm in settings.arms},
        paired_test=_paired(settings, frame, experiments.facts_kept(experiment, said), longest),
        headroom=verdict.headroom(frame),
        sequences=tuple(" > ".join(s) for s in sequences(settings)),
        seeds=settings.seeds,
        facts_a=len(facts[first[0]].encoded),
        facts_b=len(facts[first[1]].encoded),
        facts={spec: len(of.encoded) for spec, of in facts.items()},
        dropped={spec: len(of.dropped) for spec, of in facts.items()},
        known={spec: len(of.known[0]) for spec, of in facts.items()},
        seconds=work.seconds(),
    )


def _by_seed(frame: pd.DataFrame) -> ArmBySeed:
    """An arm's figures, one for each sequence and seed, sequences outermost."""

    def column(which: str, after: str, name: str) -> tuple[float, ...]:
        return tuple(frame[(frame["set"] == which) & (frame.after == after)][name].tolist())

    found = {key: column(*of) for key, of in MEASURED.items()}
    return ArmBySeed(accuracy_a_after_last=tuple(verdict.last(frame).exact.tolist()), **found)


def _arm(of: ArmBySeed) -> Arm:
    """Means over sequences and seeds; what was not measured is NaN."""

    def mean(given: Sequence[float]) -> float:
        known = np.array(given, float)
        known = known[np.isfinite(known)]
        return float(known.mean()) if len(known) else math.nan

    return Arm(**{f.name: mean(getattr(of, f.name)) for f in dataclasses.fields(ArmBySeed)})


def _after(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """By stage and set the share recited exactly, means over sequences and seeds."""
    found: dict[str, dict[str, float]] = {}
    for (after, which), share in frame.groupby(["after", "set"], sort=False).exact.mean().items():
        found.setdefault(str(after), {})[str(which)] = float(share)
    return found


def _paired(
    settings: Factoids, frame: pd.DataFrame, facts: pd.DataFrame, stages: int
) -> dict[str, ArmsDiffer]:
    compared = settings.arms, stages, settings.ratio
    of_facts = verdict.over_facts(facts, *compared)
    return {
        f"{one} − {other}": ArmsDiffer(
            **test.figures(),
            clusters=test.tasks,
            clusters_needed=test.needed,
            **{f"facts_{name}": x for name, x in vars(of_facts[one, other]).items()},
        )
        for (one, other), test in verdict.tests(frame, *compared).items()
    }
