"""What fits into a device's memory: the plan of a run, and how many fine-tunes train together."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from forget_jax.errors import UserError
from forget_jax.lm import sharding
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.cost import memory
from forget_jax.scoring.settings import Score
from forget_jax.training.loop import Recipe
from forget_jax.training.plan import microbatch_tokens


@dataclasses.dataclass(frozen=True)
class Wants:
    """What a run asks of a device.

    Attributes:
      context: the most tokens of a row.
      recipe: None where nothing is trained.
      score: None where nothing is scored.
      kept: trained trees that stay in memory while others are trained.
    """

    context: int
    recipe: Recipe | None = None
    score: Score | None = None
    kept: int = 0


def plan(config: DecoderConfig, dtype: str, wants: Wants, together: int = 1) -> memory.Plan:
    """The plan of the larger of training so many tasks together and scoring, for one device.

    Args:
      dtype: of the base's parameters.
    """
    shards, plans = sharding.shards(), []

    def rows(count: int) -> int:
        return -(-count // sharding.row_shards())

    if wants.recipe is not None:
        train, lora = wants.recipe.train, wants.recipe.lora
        most = min(train.microbatch, train.batch_size * together)
        tokens = microbatch_tokens(most, wants.context, sharding.row_shards())
        adapters = -(-together // sharding.blocks()) if lora is not None else 1
        count = rows(-(-tokens // wants.context))
        work = memory.Work(count, wants.context, dtype, lora, adapters, shards=shards)
        one = memory.plan(dataclasses.replace(config, remat=train.remat), work)
        kept = one.trainable // adapters * wants.kept
        plans.append(dataclasses.replace(one, trainable=one.trainable + kept))
    if wants.score is not None:
        count = rows(wants.score.rows)
        work = memory.Work(count, wants.context, dtype, train=False, shards=shards)
        plans.append(memory.plan(config, work))
    return max(plans, key=lambda plan: plan.total)


def check(config: DecoderConfig, dtype: str, wants: Wants, together: int = 1) -> None:
    """Says what memory a run takes on each device, before it takes any.

    Args:
      config: the model's shape.
      dtype: of the base's parameters.
      together: fine-tunes trained at once.

    Raises:
      UserError: more than a device has; names the numbers that fit.
    """
    print(plan(config, dtype, wants, together).line(), file=sys.stderr)
    refuse(config, dtype, wants, together)


def refuse(
    config: DecoderConfig, dtype: str, wants: Wants, together: int, has: int | None = None
) -> None:
    """Refuses a run that does not fit; arguments and errors as for `check`.

    Args:
      has: bytes of a device; None asks `memory.available`.
    """
    wanted = plan(config, dtype, wants, together)
    if not memory.fits(wanted, has):
        fit = _that_fit(config, dtype, wants, together, has)
        memory.check(wanted, config, has, fit)


def _that_fit(
    config: DecoderConfig, dtype: str, wants: Wants, together: int, has: int | None
) -> list[str]:
    """The largest value of each field with which the run fits, while the others stay."""
    tried: dict[str, tuple[int, Callable[[int], memory.Plan]]] = {}
    if (recipe := wants.recipe) is not None:

        def of_recipe(**changed: Any) -> memory.Plan:
            other = dataclasses.replace(recipe, **changed)
            return plan(config, dtype, dataclasses.replace(wants, recipe=other), together)

        train, lora = recipe.train, recipe.lora
        rows = -(-microbatch_tokens(train.microbatch, wants.context) // wants.context)
        tried["train.microbatch"] = (
            rows,
            lambda n: of_recipe(train=dataclasses.replace(train, microbatch=n)),
        )
        if lora is not None:
            tried["lora.rank"] = (
                lora.rank,
                lambda n: of_recipe(lora=dataclasses.replace(lora, rank=n)),
            )
    if (score := wants.score) is not None:

        def of_rows(n: int) -> memory.Plan:
            fewer = dataclasses.replace(score, rows=n)
            return plan(config, dtype, dataclasses.replace(wants, score=fewer), together)

        tried["score.rows"] = score.rows, of_rows
    tried["fine-tunes together"] = together, lambda n: plan(config, dtype, wants, n)
    tried["a context"] = (
        wants.context,
        lambda n: plan(config, dtype, dataclasses.replace(wants, context=n), together),
    )
    found = {name: _largest(now, make, has) for name, (now, make) in tried.items()}
    return [f"{name} of {n} or less" for name, n in found.items() if n]


def _largest(below: int, make: Callable[[int], memory.Plan], has: int | None) -> int:
    """The largest number below one that does not fit with which a plan fits; 0 for none."""
    low, high = 0, below
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if memory.fits(make(middle), has) else (low, middle)
    return low


def check_order(rows: int, fine_tunes: int, fields: str) -> None:
    """Refuses fine-tunes whose orders of rows, which are drawn beforehand, no memory holds.

    Args:
      rows: that one fine-tune consumes.
      fields: what makes them many, for people.

    Raises:
      UserError: more than the machine has; names the number that fits.
    """
    most = int(memory.USABLE * memory.machine() / (64 + 8 * fine_tunes))  # drawn one by one
    if rows > most:
        raise UserError(
            f"{fields} make {rows:,} rows in each of {fine_tunes} fine-tunes; their order is drawn "
            f"beforehand, and this machine's memory holds {most:,} of each"
        )


def most_together(
    config: DecoderConfig, dtype: str, wants: Wants, count: int, has: int | None = None
) -> int:
    """How many of `count` tasks train together within memory: all, or half of them, and so on.

    Args:
      config: the model's shape.
      dtype: of the base's parameters.
      has: bytes of a device; None asks `memory.available`.
    """
    while count > 1 and not memory.fits(plan(config, dtype, wants, count), has):
        count = -(-count // 2)
    return count
