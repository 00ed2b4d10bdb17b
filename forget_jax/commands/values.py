"""From settings to what the rooms take: the base, its reader, adapters, and the run's fleet."""

import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from forget_jax.commands import early, inputs
from forget_jax.commands.settings import Tasks
from forget_jax.commands.summaries import Training
from forget_jax.data.reading import Reader
from forget_jax.data.settings import Data
from forget_jax.errors import UserError
from forget_jax.fleet import fitting
from forget_jax.fleet.fitting import Wants
from forget_jax.fleet.fleet import Fleet
from forget_jax.lm.cost import peak
from forget_jax.lm.hf import about, modules
from forget_jax.lm.hf import base as bases
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.hf.base import Base
from forget_jax.lm.lora import LoRAConfig
from forget_jax.lm.settings import Lora, ModelPath
from forget_jax.runs.metrics import ends
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring.settings import Score
from forget_jax.training.loop import Recipe
from forget_jax.training.objective import Objective
from forget_jax.training.settings import Train


def adapter(lora: Lora) -> LoRAConfig | None:
    """The adapters that are trained; None (rank 0) trains the whole model.

    Raises:
      UserError: targets that are not a regular expression.
    """
    if lora.rank == 0:
        return None
    targets = modules.expression(lora.targets)
    return LoRAConfig(lora.rank, lora.alpha, lora.rslora, targets, dropout=lora.dropout)


def reader(
    model: ModelPath,
    data: Data,
    recipe: Recipe | None = None,
    score: Score | None = None,
    together: int = 1,
    work: Workdir | None = None,
    kept: int = 0,
) -> Reader:
    """What reads data sets for a base model, whose weights (`base`) may be read after them.

    Says which special tokens are used, and what memory the run will take, before any is taken.

    Args:
      recipe: how it is trained; None where it is not.
      score: how examples are scored; None where they are not.
      together: fine-tunes trained at once.
      work: of a run, which holds data sets to what they were when it began.
      kept: trained trees that stay in memory while others are trained.

    Raises:
      UserError: no model there, a tokenizer of another model, or a run that cannot fit.
    """
    early.check_named(model)
    path = model.path
    tokenizer = tokenizers.load(path)
    special = tokenizers.special_tokens(tokenizer)
    puts = special.adds_bos if data.bos == "auto" else data.bos == "true"
    print(special.line(bos=puts, eos=data.eos), file=sys.stderr)
    config = about.config_of(path)
    about.check_tokenizer(config, tokenizer, path)
    seen = None if work is None else inputs.watcher(work)
    wants = Wants(min(data.context or config.context, config.context), recipe, score, kept)
    fitting.check(config, about.dtype_of(path), wants, together)
    return Reader(data, tokenizer, config.context, config.vocab_size, seen)


def base(model: ModelPath, reader: Reader) -> Base:
    """The base model of a reader: its weights are read here, after what could be wrong before."""
    read = bases.read(model.path).computing(dtype=model.dtype)
    return Base(model.path, read, reader.tokenizer, about.eos_ids(model.path))


def fleet_reader(settings: Tasks, work: Workdir, count: int) -> Reader:
    """What reads the data sets of a run with many tasks.

    Args:
      count: how many fine-tunes there will be.
    """
    most = min(settings.tasks_together or 1, count)
    recipe = Recipe(settings.train, adapter(settings.lora))
    return reader(settings.model, settings.data, recipe, settings.score, most, work)


def fleet(
    settings: Tasks, work: Workdir, reader: Reader, objective: Objective | None = None
) -> Fleet:
    """What the fine-tunes of a run with many tasks share; reads the weights.

    Args:
      objective: what they minimise; None for the NLL.
    """
    recipe = Recipe(settings.train, adapter(settings.lora), objective or Objective())
    together, context = settings.tasks_together, settings.data.context
    return Fleet(work, base(settings.model, reader), recipe, settings.score, together, context)


def check_alone(train: Train, command: str) -> None:
    """Refuses what a command whose fine-tunes are all alike would leave out without a word.

    Raises:
      UserError: values of single tasks, or held-out losses.
    """
    for field in ("by_task", "heldout", "patience"):
        if getattr(train, field):
            raise UserError(
                f"train.{field} has no effect in {command}; leave it at its default "
                "(it is for finetune and associate)"
            )


def training(records: Sequence[dict[str, Any]]) -> Training:
    """The headline figures of a training stage from its metric records.

    First and last loss are means over tasks and over the first and last tenth of the steps (at
    least one): single steps are noisy. Rates are the median step's, so compilation is left out.

    Raises:
      UserError: there are none, as when the file was removed.
    """
    if not records:
        raise UserError(
            "metrics.jsonl has no step of this training, which is kept: put the file back, or "
            "train again under another --workdir"
        )
    losses = [float(np.mean(list(r["loss"].values()))) for r in records if r["loss"]]
    first, last = ends(losses)
    devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
    flops = float(np.median([r["flops"] / r["seconds"] for r in records]))
    return Training(
        loss_first=float(np.mean(first)),
        loss_last=float(np.mean(last)),
        tokens_per_second=float(np.median([r["tokens"] / r["seconds"] for r in records])),
        real_tokens=sum(r["tokens"] for r in records) / sum(r["computed"] for r in records),
        flops_per_second=flops,
        mfu=flops / (devices * peak.matmul()),
        peak_memory=peak.memory(),
        steps=len(records),
    )
