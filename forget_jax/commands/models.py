"""From the model and training fields of a config to what the rooms take."""

import dataclasses
import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from forget_jax.errors import UserError
from forget_jax.lm import checkpoint, decoder, lora, memory
from forget_jax.lm import tokenizer as tokenizers
from forget_jax.training.loop import LoopConfig
from forget_jax.training.step import OptimizerConfig

COMPUTING = ("float32", "bfloat16")


def load(config: ConfigDict) -> tuple[decoder.DecoderConfig, Any, Any]:
    """The model's shape, its parameters and its tokenizer.

    Says which special tokens are used, and what memory the run will take, before any is taken.

    Raises:
      UserError: no model there, a tokenizer of another model, or a run that cannot fit.
    """
    path = config.model.path
    if not path:
        raise UserError(
            "model.path is not given; name a Hugging Face folder, or make a small base with "
            "`forget-jax pretrain --workdir=DIR` and give DIR/model"
        )
    if config.model.dtype not in COMPUTING:
        raise UserError(
            f"model.dtype is {config.model.dtype!r}; it must be one of {', '.join(COMPUTING)}"
        )
    tokenizer = tokenizers.load(path)
    special = tokenizers.special_tokens(tokenizer)
    print(special.line(bos=config.data.bos, eos=config.data.eos), file=sys.stderr)
    model = dataclasses.replace(checkpoint.config_of(path), dtype=config.model.dtype)
    checkpoint.check_tokenizer(model, tokenizer, path)
    wanted = _memory(config, model)
    print(wanted.line(), file=sys.stderr)
    memory.check(wanted, model)
    return model, checkpoint.load(path)[1], tokenizer


def _memory(config: ConfigDict, model: decoder.DecoderConfig) -> memory.Plan:
    """The plan of the larger of training and scoring."""
    length = min(config.data.context or model.context, model.context)
    plans = []
    if "train" in config:
        chosen = adapter(config)
        together = config.get("tasks_together", 1) if chosen is not None else 1
        plans.append(
            memory.plan(model, config.train.microbatch, length, adapter=chosen, tasks=together)
        )
    if "score" in config:
        plans.append(memory.plan(model, config.score.rows, length, train=False))
    return max(plans, key=lambda plan: plan.total)


def optimizer(train: ConfigDict) -> OptimizerConfig:
    """The optimizer of the train fields."""
    return OptimizerConfig(
        lr=train.lr,
        schedule=train.schedule,
        warmup=train.warmup,
        clip=train.clip,
        decay=train.decay,
    )


def loop(train: ConfigDict) -> LoopConfig:
    """The loop of the train fields."""
    return LoopConfig(train.batch_size, train.microbatch, train.buckets, train.save_every)


def adapter(config: ConfigDict) -> lora.LoRAConfig | None:
    """The adapter of the lora fields; None (rank 0, or no such fields) trains the whole model."""
    c = config.get("lora")
    if c is None or c.rank == 0:
        return None
    try:
        re.compile(c.targets)
    except re.error as e:
        raise UserError(f"lora.targets {c.targets!r} is not a regular expression: {e}") from e
    if not 0 <= c.dropout < 1:
        raise UserError(f"lora.dropout is {c.dropout}; it must be 0 or more and below 1")
    return lora.LoRAConfig(c.rank, c.alpha, c.rslora, c.targets, dropout=c.dropout)


def training_figures(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The headline figures of a training stage from its metric records.

    First and last loss are means over tasks and over the first and last tenth of the steps (at
    least one): single steps are noisy. The rate is the median step's, so compilation is left out.
    """
    losses = [float(np.mean(list(r["loss"].values()))) for r in records]
    tenth = max(1, len(losses) // 10)
    return {
        "loss_first": float(np.mean(losses[:tenth])),
        "loss_last": float(np.mean(losses[-tenth:])),
        "tokens_per_second": float(np.median([r["tokens"] / r["seconds"] for r in records])),
        "steps": len(records),
    }
