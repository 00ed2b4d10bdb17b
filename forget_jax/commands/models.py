"""From the model and training fields of a config to what the rooms take."""

import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from forget_jax.errors import UserError
from forget_jax.lm import checkpoint, decoder, lora
from forget_jax.lm import tokenizer as tokenizers
from forget_jax.training.loop import LoopConfig
from forget_jax.training.step import OptimizerConfig


def load(config: ConfigDict) -> tuple[decoder.DecoderConfig, Any, Any]:
    """The model's shape, its parameters and its tokenizer; says which special tokens are used."""
    path = config.model.path
    if not path:
        raise UserError(
            "model.path is not given; name a Hugging Face folder, or make a small base with "
            "`forget-jax pretrain --workdir=DIR` and give DIR/model"
        )
    model, params = checkpoint.load(path)
    tokenizer = tokenizers.load(path)
    print(tokenizers.special_tokens(tokenizer).line(bos=True, eos=True), file=sys.stderr)
    return model, params, tokenizer


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
    return lora.LoRAConfig(c.rank, c.alpha, c.rslora, c.targets)


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
