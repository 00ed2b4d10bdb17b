"""The smallest sensible value of every number in a config, checked once before a command runs."""

from ml_collections import ConfigDict

from forget_jax.commands.config import flat
from forget_jax.errors import UserError

LEAST: dict[str, float] = {
    "model.vocab_size": 1,
    "model.width": 1,
    "model.layers": 1,
    "model.heads": 1,
    "model.kv_heads": 1,
    "model.mlp_width": 1,
    "model.context": 2,
    "data.shuffle": -1,
    "data.context": 0,
    "data.stride": 0,
    "data.heldout": 0,
    "train.steps": 1,
    "train.batch_size": 1,
    "train.microbatch": 0,
    "train.buckets": 1,
    "train.lr": 0,
    "train.warmup": 0,
    "train.clip": 0,
    "train.decay": 0,
    "train.seed": 0,
    "train.save_every": 0,
    "train.heldout": 0,
    "train.eval_every": 1,
    "train.patience": 0,
    "train.trace": 0,
    "train.trace_steps": 1,
    "mesh.task": 1,
    "mesh.data": 0,
    "mesh.fsdp": 1,
    "mesh.tensor": 1,
    "lora.rank": 0,
    "lora.dropout": 0,
    "lora.alpha": 0,
    "score.rows": 1,
    "score.buckets": 1,
    "score.chunk": 1,
    "score.adapters_together": 0,
    "tasks_together": 0,
    "repeat_tasks": 0,
    "r2_ranks": 1,
    "exact_match.max_new_tokens": 1,
    "replay.ratio": 0,
    "replay.temperature": 0,
    "replay.observed": 1,
    "replay.pool": 0,
    "replay.seeds": 1,
    "replay.task_heldout": 0,
    "task_heldout": 0,
    "ranks": 1,
    "steps": 1,
    "seeds": 1,
    "ratio": 0,
    "epochs": 1,
    "max_new_tokens": 1,
    "observed": 1,
    "shard_mib": 1,
}


def least(key: str) -> float:
    """The smallest value of a field; the first part of a key may be a stage of `quickstart`."""
    return LEAST[key] if key in LEAST else LEAST[key.partition(".")[2]]


def check(config: ConfigDict) -> None:
    """Raises UserError for a number below its least value."""
    for key, value in flat(config).items():
        for x in value if isinstance(value, tuple) else (value,):
            if isinstance(x, int | float) and not isinstance(x, bool) and not x >= least(key):
                raise UserError(f"config.{key} is {x}; it must be {least(key)} or more")
