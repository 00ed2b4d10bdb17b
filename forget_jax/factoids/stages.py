"""Two stages of memorisation with REMIX's mixing (arXiv 2411.07175).

Stage A memorises facts; stage B goes on from there with other facts and never sees A again.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from forget_jax.data import mixing
from forget_jax.data.tokenise import Encoded
from forget_jax.training.loop import Task


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """How long a stage is.

    Attributes:
      epochs: passes over the stage's facts.
      batch_size: rows of a step, facts and mixed rows alike.
      ratio: mixed rows per fact.
    """

    epochs: int
    batch_size: int
    ratio: float


def task(
    name: str,
    facts: Sequence[Encoded],
    mix: Sequence[Encoded],
    mixed: bool,
    seed: int,
    config: StageConfig,
) -> Task:
    """One arm's training in one stage.

    Mixed rows are ordinary rows of the same shuffled pool with the same loss; the same
    round(ratio · facts) of them return every epoch. Steps grow with the rows, as in the paper.

    Args:
      name: of the run.
      facts: rows to memorise.
      mix: rows to mix in, of which the first are taken.
      mixed: whether any are.
      seed: of initialisation and order.
    """
    total = len(facts) * config.epochs
    pool = list(mix[: round(config.ratio * len(facts))]) if mixed else []
    inserted = np.resize(np.arange(len(pool)), len(pool) * config.epochs)
    order = mixing.inserted(len(facts), total, inserted, seed)
    steps = math.ceil(len(order) / config.batch_size)
    order = np.resize(order, steps * config.batch_size)  # the last step begins again
    return Task(name, [*facts, *pool], seed, steps, order)
