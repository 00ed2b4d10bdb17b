"""`forget-jax finetune`: one task, LoRA (a PEFT adapter) or full (an HF checkpoint)."""

import jax

from forget_jax.commands import early, values
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Finetune
from forget_jax.commands.summaries import Finetune as Summary
from forget_jax.commands.summaries import OverContext
from forget_jax.data.reading import task_name
from forget_jax.fleet import tasks
from forget_jax.fleet.fleet import Fleet, all_trained, journal
from forget_jax.lm import sharding
from forget_jax.lm.hf import checkpoint, peft
from forget_jax.runs.workdir import Workdir
from forget_jax.training.loop import Recipe, train


def check(settings: Finetune) -> None:
    """Refuses values of tasks that are not this one, and what cannot be trained."""
    early.check(settings.model, settings.lora)
    if settings.data.path:
        own = tasks.own_values(settings.train, [task_name(settings.data.path[0])])
        tasks.say_warmup(settings.train, own)


def run(settings: Finetune, work: Workdir) -> Ended:
    """Fine-tunes and writes `adapter/` (or `model/` where lora.rank is 0); resumes."""
    recipe = Recipe(settings.train, values.adapter(settings.lora))
    reader = values.reader(settings.model, settings.data, recipe, work=work)
    texts = reader.read(settings.data.path)
    name = task_name(settings.data.path[0])
    own = tasks.own_values(settings.train, [name])[name]
    task = tasks.task(name, texts.encoded, settings.train.seed, settings.train, own)
    base = values.base(settings.model, reader)
    fleet = Fleet(work, base, recipe)
    with journal(fleet, "finetune", f"finetune {name}") as (checkpoints, listener):
        outcome = train(base.model, recipe, [task], checkpoints, listener=listener)
    trained = sharding.fetch(all_trained(outcome))
    model, adapter = fleet.trained(jax.tree.map(lambda x: x[0], trained))
    if adapter is None:
        checkpoint.save(work / "model", model, base.tokenizer)
    else:
        peft.save(work / "adapter", adapter, model.config, base.path)
    figures = values.training(work.metrics.stage("finetune"))
    summary = Summary(
        training=figures,
        trained_parameters=sum(x.size for x in jax.tree.leaves(trained)),
        updates=outcome.steps[name],
        examples=len(texts.encoded),
        over_context=OverContext(**texts.over_context),
        useful_fraction=recipe.plan(base.model.config, [task]).useful_fraction(),
        seconds=work.seconds(),
    )
    return Ended(
        summary,
        f"loss {figures.loss_first:.3f} -> {figures.loss_last:.3f} in {figures.steps} steps, "
        f"{figures.tokens_per_second:,.0f} tokens/s",
    )
