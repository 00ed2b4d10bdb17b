"""From the model and training fields of a config to what the rooms take."""

import contextlib
import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from forget_jax import distributed, files
from forget_jax.commands import texts
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError, nearest
from forget_jax.files import PathLike
from forget_jax.lm import decoder, lora, sharding
from forget_jax.lm.config import SWITCHES
from forget_jax.lm.cost import memory, peak
from forget_jax.lm.hf import checkpoint
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.runs.workdir import Workdir
from forget_jax.settings import rule
from forget_jax.training.loop import LoopConfig, Task
from forget_jax.training.optimizer import OptimizerConfig, Schedule
from forget_jax.training.plan import microbatch_tokens
from forget_jax.training.settings import Train

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
    wanted = memory_plan(config, model, config.get("tasks_together", 1) or 1)
    print(wanted.line(), file=sys.stderr)
    memory.check(wanted, model)
    return model, read(path)[1], tokenizer


def read(path: PathLike) -> tuple[decoder.DecoderConfig, Any]:
    """A checkpoint, laid out over the entered mesh."""
    if sharding.current() is None:
        return checkpoint.load(path)
    shapes = checkpoint.shapes(checkpoint.config_of(path))
    if uncut := sharding.whole(shapes):
        print(f"whole on every device, for the mesh does not divide it: {', '.join(uncut)}",
              file=sys.stderr)  # fmt: skip
    where = sharding.over_mesh(shapes)
    return checkpoint.load(path, sharding=where.__getitem__)


@contextlib.contextmanager
def mesh(config: ConfigDict) -> Iterator[None]:
    """Enters the mesh of the mesh fields, if there are any and there is more than one device."""
    made = sharding.make(sharding.MeshShape(**config.mesh)) if "mesh" in config else None
    if made is None:
        yield
        return
    sizes = ", ".join(f"{axis} {size}" for axis, size in made.shape.items() if size > 1)
    print(f"mesh of {made.size} devices: {sizes}", file=sys.stderr)
    with jax.set_mesh(made):
        yield


def memory_plan(config: ConfigDict, model: decoder.DecoderConfig, together: int) -> memory.Plan:
    """The plan of the larger of training `together` tasks and scoring, for one device."""
    length = min(config.data.context or model.context, model.context)
    shards = sharding.shards()
    dtype = checkpoint.dtype_of(config.model.path)
    plans = []

    def rows(count: int) -> int:
        return -(-count // sharding.rows())

    if "train" in config:
        chosen = adapter(config)
        tokens = microbatch_tokens(config.train.microbatch, length, sharding.rows())
        tasks = -(-together // sharding.blocks()) if chosen is not None else 1
        plans.append(
            memory.plan(
                for_training(model, config.train),
                rows(-(-tokens // length)),
                length,
                dtype,
                chosen,
                tasks,
                shards=shards,
            )
        )
    if "score" in config:
        plans.append(
            memory.plan(model, rows(config.score.rows), length, dtype, train=False, shards=shards)
        )
    return max(plans, key=lambda plan: plan.total)


def tasks_together(
    config: ConfigDict, work: Workdir, model: decoder.DecoderConfig, count: int
) -> int:
    """How many tasks train together: the config's number, or (0) as many as the memory plan allows.

    What was chosen is kept in the workdir: a run resumed elsewhere must keep its groups.
    """
    if adapter(config) is None:
        return 1
    if config.tasks_together:
        return int(config.tasks_together)
    kept = work / "groups.json"
    if distributed.agreed(kept.exists()):
        return int(files.read_json(kept)["tasks_together"])
    chosen = count
    while chosen > 1 and not memory.fits(memory_plan(config, model, chosen)):
        chosen = -(-chosen // 2)
    chosen = distributed.agreed(chosen)
    files.write_json(kept, {"tasks_together": chosen})
    print(f"{chosen} of {count} tasks fit into memory together", file=sys.stderr)
    return chosen


def for_training(model: decoder.DecoderConfig, train: ConfigDict) -> decoder.DecoderConfig:
    """The model as training computes it.

    Raises:
      UserError: train.remat names nothing there is.
    """
    allowed = SWITCHES["remat"]
    if train.remat not in allowed:
        raise UserError(
            f"train.remat is {train.remat!r}{nearest(train.remat, allowed)}; it must be one of "
            f"{', '.join(allowed)}"
        )
    return dataclasses.replace(model, remat=train.remat)


OWN = {"steps": int, "lr": float, "schedule": str, "warmup": int, "seed": int, "patience": int}


def own_values(train: ConfigDict, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What train.by_task sets, by task and field.

    Raises:
      UserError: an unknown task or field, or a value of another type.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in train.by_task:
        where, equals, value = text.partition("=")
        task, _, field = where.rpartition(".")
        if not equals or field not in OWN:
            raise UserError(
                f"train.by_task takes NAME.FIELD=value with one of {', '.join(OWN)}, not {text!r}"
            )
        if task not in found:
            raise UserError(
                f"train.by_task names task {task!r}{nearest(task, names)}; there are "
                f"{', '.join(names)}"
            )
        try:
            found[task][field] = OWN[field](value)
        except ValueError as e:
            kind = "a whole number" if OWN[field] is int else "a number"
            raise UserError(f"train.by_task: {where} takes {kind}, not {value!r}") from e
        if OWN[field] is not str and not rule(Train, field).allows(found[task][field]):
            raise UserError(f"train.by_task: {text}: it must be {rule(Train, field).bounds()}")
    return found


def task(
    train: ConfigDict, name: str, examples: Sequence[Encoded], seed: int, own: dict[str, Any]
) -> Task:
    """A task of the train fields, with its own values where it has some.

    Its last train.heldout examples are kept out for held-out losses.
    """
    keep = texts.held_out(examples, train.heldout)
    if keep < 1:
        raise UserError(
            f"task {name} has {len(examples)} rows: too few to keep train.heldout={train.heldout} "
            "of them out"
        )
    patience = own.get("patience", train.patience)
    if patience and not train.heldout:
        raise UserError("train.patience needs held-out losses: set train.heldout above 0")
    schedule = Schedule(
        own.get("lr", train.lr),
        own.get("schedule", train.schedule),
        own.get("warmup", train.warmup),
    )
    return Task(
        name,
        examples[:keep],
        own.get("seed", seed),
        own.get("steps", train.steps),
        schedule=schedule,
        heldout=examples[keep:],
        patience=patience,
    )


def optimizer(train: ConfigDict) -> OptimizerConfig:
    """The optimizer of the train fields."""
    schedule = Schedule(train.lr, train.schedule, train.warmup)
    return OptimizerConfig(schedule, clip=train.clip, decay=train.decay)


def loop(train: ConfigDict) -> LoopConfig:
    """The loop of the train fields."""
    return LoopConfig(
        train.batch_size, train.microbatch, train.buckets, train.save_every, train.eval_every
    )


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
    least one): single steps are noisy. Rates are the median step's, so compilation is left out;
    `tokens_per_second` and `flops_per_second` count real tokens only, `real_tokens` is their share
    of those computed, `mfu` the share of the matrix products measured here (lm/peak.py), and
    `peak_memory` bytes of the fullest device, or of this process on CPU.
    """
    losses = [float(np.mean(list(r["loss"].values()))) for r in records if r["loss"]]
    tenth = max(1, len(losses) // 10)
    devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
    flops = float(np.median([r["flops"] / r["seconds"] for r in records]))
    return {
        "loss_first": float(np.mean(losses[:tenth])),
        "loss_last": float(np.mean(losses[-tenth:])),
        "tokens_per_second": float(np.median([r["tokens"] / r["seconds"] for r in records])),
        "real_tokens": sum(r["tokens"] for r in records) / sum(r["computed"] for r in records),
        "flops_per_second": flops,
        "mfu": flops / (devices * peak.matmul()),
        "peak_memory": peak.memory(),
        "steps": len(records),
    }
