"""`forget-jax finetune`: one task, LoRA (a PEFT adapter) or full (an HF checkpoint)."""

import sys

import jax
from ml_collections import ConfigDict

from forget_jax.commands import models, report, texts
from forget_jax.commands.config import plain
from forget_jax.files import PathLike
from forget_jax.fleet import together as fleet
from forget_jax.lm import sharding
from forget_jax.lm.hf import checkpoint, peft
from forget_jax.runs.workdir import Workdir
from forget_jax.training.loop import StepPlan


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Fine-tunes and writes `adapter/` (or `model/` where lora.rank is 0); resumes."""
    work = Workdir(workdir, "finetune", plain(config))
    if report.has_ended(work):
        return
    model, params, tokenizer = models.load(config)
    _, encoded, cut = texts.read(config.data.path, config, model, tokenizer)
    adapter = models.adapter(config)
    name = texts.task_name(config.data.path[0])
    own = models.own_values(config.train, [name])[name]
    task = models.task(config.train, name, encoded, config.train.seed, own)
    outcome = fleet.run_training(
        config, work, "finetune", model, params, [task], f"finetune {name}"
    )
    one = jax.tree.map(lambda x: x[0], sharding.fetch(fleet.all_trained(outcome)))
    if adapter is None:
        checkpoint.save(work / "model", model, one, tokenizer)
    else:
        peft.save(work / "adapter", adapter, one, model, config.model.path)
    summary = work.finish(
        {
            **models.training_figures(work.metrics.stage("finetune")),
            "trained_parameters": sum(x.size for x in jax.tree.leaves(one)),
            "updates": outcome.steps[name],
            "examples": len(encoded),
            "over_context": cut,
            "useful_fraction": StepPlan([task], models.loop(config.train)).useful_fraction(),
            "seconds": work.seconds(),
        }
    )
    report.build(workdir)
    print(
        f"loss {summary['loss_first']:.3f} -> {summary['loss_last']:.3f} in {summary['steps']} "
        f"steps, {summary['tokens_per_second']:,.0f} tokens/s; page in {work / 'report.html'}",
        file=sys.stderr,
    )
