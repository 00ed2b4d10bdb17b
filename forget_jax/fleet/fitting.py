"""What fits into a device's memory: the plan of a run, and how many fine-tunes train together."""

import dataclasses

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
    """

    context: int
    recipe: Recipe | None = None
    score: Score | None = None


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
        tokens = microbatch_tokens(train.microbatch, wants.context, sharding.row_shards())
        adapters = -(-together // sharding.blocks()) if lora is not None else 1
        count = rows(-(-tokens // wants.context))
        work = memory.Work(count, wants.context, dtype, lora, adapters, shards=shards)
        plans.append(memory.plan(dataclasses.replace(config, remat=train.remat), work))
    if wants.score is not None:
        count = rows(wants.score.rows)
        work = memory.Work(count, wants.context, dtype, train=False, shards=shards)
        plans.append(memory.plan(config, work))
    return max(plans, key=lambda plan: plan.total)


def most_together(config: DecoderConfig, dtype: str, wants: Wants, count: int) -> int:
    """How many of `count` tasks train together within memory: all, or half of them, and so on.

    Args:
      config: the model's shape.
      dtype: of the base's parameters.
    """
    while count > 1 and not memory.fits(plan(config, dtype, wants, count)):
        count = -(-count // 2)
    return count
