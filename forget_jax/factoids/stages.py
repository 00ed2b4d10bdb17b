"""The rows of a stage and the order in which they are trained on (arXiv 2411.07175).

Every epoch is one shuffled pool: all facts of the stage, what is replayed of earlier ones, and what
is mixed in, all with the same loss.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from forget_jax.data import order as orders
from forget_jax.data.tokenise import Encoded
from forget_jax.randomness import generator, seed_of
from forget_jax.training.loop import Task

PAPER_CAP = 6020  # rows that the authors' loader keeps of a set and its mix (arXiv 2411.07175)


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a stage is, and by which protocol.

    Attributes:
      epochs: passes over its pool.
      batch_size: rows of a step.
      protocol: `clean`; or `paper`: the same order in every epoch, whose last rows that fill no
        batch are never trained on, pools cut to PAPER_CAP rows before they are shuffled, and
        padding trained on.
      goal: the loss of its facts at which it ends, nats a token; 0 for never.
    """

    epochs: int
    batch_size: int
    protocol: str = "clean"
    goal: float = 0.0


@dataclasses.dataclass(frozen=True)
class Pool:
    """What a stage is trained on.

    Attributes:
      facts: its own.
      mixed: unrelated rows, all of which return in every epoch.
      earlier: facts of earlier stages, which may be replayed.
      replay: share of them in an epoch.
      redrawn: whether each epoch has others.
      more: facts beyond the stage's own in an epoch: steps without other rows.
    """

    facts: Sequence[Encoded]
    mixed: Sequence[Encoded] = ()
    earlier: Sequence[Encoded] = ()
    replay: float = 0.0
    redrawn: bool = False
    more: int = 0

    @property
    def replayed(self) -> int:
        """How many earlier facts an epoch has."""
        return math.ceil(self.replay * len(self.earlier)) if self.replay else 0

    @property
    def epoch(self) -> int:
        """How many rows one has."""
        return len(self.facts) + len(self.mixed) + self.replayed + self.more


def order(pool: Pool, length: Length, seed: int) -> np.ndarray:
    """Indices of the rows of all epochs: facts first, then mixed rows, then earlier facts."""
    F, X = len(pool.facts), len(pool.mixed)
    every, once = np.arange(F + X), F + X
    drawn = seed_of(seed, "replay draw", "facts")
    repeated = seed_of(seed, "order of rows", "repeated facts")
    again, spare = 0, 0
    found = []
    for epoch in range(length.epochs):
        of = 0 if length.protocol == "paper" else epoch
        start = again if pool.redrawn else 0
        replayed = once + orders.rows(drawn, len(pool.earlier) or 1, start, pool.replayed)
        again += pool.replayed
        more = orders.rows(repeated, F, spare, pool.more)
        spare += pool.more
        rows = np.concatenate([every, replayed, more]).astype(np.int64)
        if length.protocol == "paper":
            rows = rows[:PAPER_CAP]
        rows = generator(seed, "order of rows", "pool", of).permutation(rows)
        if length.protocol == "paper":
            rows = rows[: max(len(rows) // length.batch_size, 1) * length.batch_size]
        found.append(rows)
    return np.concatenate(found)


def task(pool: Pool, length: Length, seed: int, pad_id: int | None = None) -> Task:
    """One run's training in one stage; its steps grow with the rows of its pool, as in the paper.

    Args:
      seed: of initialisation and order.
      pad_id: the end-of-sequence token, with which protocol `paper` pads.
    """
    examples = [*pool.facts, *pool.mixed, *(pool.earlier if pool.replay else ())]
    consumed = order(pool, length, seed)
    steps = math.ceil(len(consumed) / length.batch_size)
    consumed = np.resize(consumed, steps * length.batch_size)  # the last step begins again
    if length.protocol == "paper" and pad_id is not None:
        examples = padded(examples, pad_id)
    heldout = pool.facts if length.goal else ()
    return Task("", examples, seed, steps, consumed, heldout=heldout, goal=length.goal)


def padded(rows: Sequence[Encoded], pad_id: int) -> list[Encoded]:
    """Rows as the authors pad them: to the longest, with targets at the padding (§7, 3)."""
    longest = max(len(e.ids) for e in rows)

    def one(e: Encoded) -> Encoded:
        more = longest - len(e.ids)
        ids = np.pad(e.ids, (0, more), constant_values=pad_id)
        return Encoded(e.name, e.source, ids, np.pad(e.is_target, (0, more), constant_values=True))

    return [one(e) for e in rows]
