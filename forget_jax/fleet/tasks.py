"""Tasks out of a run's settings, each with values of its own where it has some."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from forget_jax import settings
from forget_jax.data.reading import held_out
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError, nearest
from forget_jax.training.optimizer import Schedule
from forget_jax.training.plan import Task
from forget_jax.training.settings import Train

OWN = {"steps": int, "lr": float, "schedule": str, "warmup": int, "seed": int, "patience": int}
ALIKE: Mapping[str, Mapping[str, Any]] = {"": {}}  # tasks without values of their own


def own_values(train: Train, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `train.by_task` sets, by task and field.

    Raises:
      UserError: an unknown task or field, or a value of another type or out of its bounds.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in train.by_task:
        where, equals, value = text.partition("=")
        task, _, field = where.rpartition(".")
        if not equals or field not in OWN:
            raise UserError(
                f"train.by_task takes NAME.FIELD=value with one of {', '.join(OWN)}, "
                f"not {settings.shown(text)}"
            )
        if task not in found:
            raise UserError(
                f"train.by_task names task {settings.shown(task)}{nearest(task, names)}; there are "
                f"{', '.join(names)}"
            )
        try:
            found[task][field] = OWN[field](value)
        except ValueError as e:
            kind = "a whole number" if OWN[field] is int else "a number"
            said = settings.shown(value)
            raise UserError(f"train.by_task: {where} takes {kind}, not {said}") from e
        settings.check(dataclasses.replace(train, **found[task]), f"train.by_task: {task}")
    return found


def say_warmup(
    train: Train, own: Mapping[str, Mapping[str, Any]] = ALIKE, field: str = "train.steps"
) -> None:
    """Says which tasks end before their learning rate has risen to its peak.

    Args:
      own: of `own_values`.
      field: that says how many steps there are, for people.
    """
    for name, changed in own.items():
        mine = dataclasses.replace(train, **changed)
        if mine.warmup > mine.steps:
            whose = f" of {name}" if changed else ""
            print(
                f"train.warmup={mine.warmup}{whose} is over {field}={mine.steps}: the learning "
                f"rate ends at {mine.steps / mine.warmup:.0%} of {mine.lr:g}",
                file=sys.stderr,
            )


def task(
    name: str, examples: Sequence[Encoded], seed: int, train: Train, own: dict[str, Any]
) -> Task:
    """A task that is trained; its last `train.heldout` examples are kept out for held-out losses.

    Args:
      seed: where the task has none of its own.
      train: the run's settings.
      own: what the task has for itself, of `own_values`.

    Raises:
      UserError: too few examples to keep some out, or patience without held-out losses.
    """
    keep = held_out(examples, train.heldout)
    if keep < 1:
        raise UserError(
            f"task {name} has {len(examples)} rows: too few to keep train.heldout={train.heldout} "
            "of them out"
        )
    mine = dataclasses.replace(train, **own)
    if mine.patience and not train.heldout:
        raise UserError("train.patience needs held-out losses: set train.heldout above 0")
    return Task(
        name,
        examples[:keep],
        own.get("seed", seed),
        mine.steps,
        schedule=Schedule(mine.lr, mine.schedule, mine.warmup, mine.floor),
        heldout=examples[keep:],
        patience=mine.patience,
    )
