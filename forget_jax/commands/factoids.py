"""`forget-jax factoids`: memorise facts A, train on facts B, with and without mixed-in rows."""

import numpy as np

from forget_jax.commands import values
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Factoids
from forget_jax.commands.summaries import Arm, ArmBySeed
from forget_jax.commands.summaries import Factoids as Summary
from forget_jax.data.reading import Reader
from forget_jax.errors import UserError
from forget_jax.factoids.experiment import Experiment, Facts, measure
from forget_jax.factoids.mitigations import ARMS
from forget_jax.factoids.stages import StageConfig
from forget_jax.fleet import fitting
from forget_jax.fleet.fleet import Fleet
from forget_jax.runs.workdir import Workdir
from forget_jax.training.loop import Recipe


def check(settings: Factoids) -> None:
    """Refuses settings that compare nothing."""
    if not settings.arms:
        raise UserError(f"arms names nothing to compare; there are {', '.join(ARMS)}")
    if twice := [arm for arm in settings.arms if settings.arms.count(arm) > 1]:
        raise UserError(f"arms names {twice[0]} twice")
    for field in ("stage_a", "stage_b", "mix"):
        if not getattr(settings, field):
            raise UserError(f"config.{field} names no data set")
    values.check_alone(settings.train, "factoids")


def run(settings: Factoids, work: Workdir) -> Ended:
    """Trains every arm through both stages and recites the facts after each; resumes."""
    recipe = Recipe(settings.train, values.adapter(settings.lora))
    count = len(settings.arms) * settings.seeds
    together = 1 if recipe.lora is None else count
    base, reader = values.load(
        settings.model, settings.data, recipe, together=together, work=work, kept=2 * count
    )
    facts = {
        "a": _facts(reader, settings.stage_a, settings.max_new_tokens),
        "b": _facts(reader, settings.stage_b, settings.max_new_tokens),
    }
    for stage in facts.values():
        _check_rows(settings, len(stage.encoded))
    experiment = Experiment(
        facts,
        reader.read((settings.mix,)).encoded,
        StageConfig(settings.epochs, settings.train.batch_size, settings.ratio),
        settings.arms,
        settings.seeds,
        settings.max_new_tokens,
    )
    measured = measure(Fleet(work, base, recipe), experiment)
    by_seed = {
        arm: {str(key): of.values.tolist() for key, of in measured.sel(arm=arm).items()}
        for arm in settings.arms
    }
    arms = {
        arm: Arm(**{key: float(np.mean(of_seeds)) for key, of_seeds in figures.items()})
        for arm, figures in by_seed.items()
    }
    summary = Summary(
        factoids=arms,
        by_seed={
            arm: ArmBySeed(**{key: tuple(of_seeds) for key, of_seeds in figures.items()})
            for arm, figures in by_seed.items()
        },
        seeds=settings.seeds,
        facts_a=len(facts["a"].examples),
        facts_b=len(facts["b"].examples),
        seconds=work.seconds(),
    )
    shown = ", ".join(f"{name} {arm.accuracy_a_after_b:.0%}" for name, arm in arms.items())
    return Ended(summary, f"facts A still known after B: {shown}")


def _check_rows(settings: Factoids, facts: int) -> None:
    """Refuses a stage of less than one batch, or of more rows than can be put in order."""
    rows, batch = facts * settings.epochs, settings.train.batch_size
    if batch > rows:
        raise UserError(
            f"train.batch_size={batch} is over the {rows} rows that {facts} facts have in "
            f"{settings.epochs} epochs; {rows} or less fit"
        )
    fine_tunes = len(settings.arms) * settings.seeds
    fitting.check_order(round(rows * (1 + settings.ratio)), fine_tunes, "epochs and ratio")


def _facts(reader: Reader, spec: str, max_new_tokens: int) -> Facts:
    """A set of facts, whole, and what each is recited from."""
    texts = reader.read((spec,))
    if texts.over_context["dropped"]:
        raise UserError(f"{spec}: facts over the context cannot be dropped; raise data.context")
    for e in texts.examples:
        if e.completion is None:
            raise UserError(f"{e.name} is no fact to recite: it has no prompt and completion")
    prompts, cut = reader.prompts(texts.examples, max_new_tokens)
    if cut:
        raise UserError(
            f"{cut} facts leave no room for max_new_tokens={max_new_tokens} in the model's context "
            f"of {reader.longest}"
        )
    return Facts(texts.examples, texts.encoded, prompts)
