"""What an arm costs beyond a fine-tune without replay, in FLOPs of the model.

Choosing by probes offline needs a fine-tune of the task first, whose probes are scored (arXiv
2406.14026 §5); the whole row needs that and a pass over all candidates. The matrix is taken as
given, since it serves every further task.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from forget_jax.data.tokenise import Encoded
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.cost import flops
from forget_jax.lm.lora import LoRAConfig
from forget_jax.replay.cells import Arm, Price
from forget_jax.replay.strategies import parse
from forget_jax.training.loop import Task


class Extra(NamedTuple):
    """FLOPs beyond those of the same fine-tune without replay.

    Attributes:
      forward: of scoring and generating.
      training: of steps, forward and backward.
    """

    forward: float
    training: float


def forward(config: DecoderConfig, rows: Iterable[Encoded]) -> float:
    """FLOPs of scoring rows once."""
    return flops.scoring(config, _work(config, list(rows)))


def training(config: DecoderConfig, lora: LoRAConfig | None, rows: Iterable[Encoded]) -> float:
    """FLOPs of training on rows once."""
    return flops.training(config, _work(config, list(rows)), lora)


def price(config: DecoderConfig, lora: LoRAConfig | None) -> Price:
    """What training on rows costs, with the base's forward pass where a cost needs it."""

    def of(rows: Sequence[Encoded], cost: str) -> float:
        beside = 0.0 if cost == "nll" else forward(config, rows)
        return training(config, lora, rows) + beside

    return of


def _work(config: DecoderConfig, rows: Sequence[Encoded]) -> flops.Work:
    return flops.work(config, [len(e.ids) for e in rows], sum(e.tokens for e in rows))


@dataclass(frozen=True)
class Account:
    """What one task's arms are reckoned with.

    Attributes:
      own: the task's rows that a fine-tune without replay consumes, again where it does so again.
      probes, pool: as they are scored.
      generated: what the base wrote, by the strategies' kind of rows.
      refreshes: of the strategy `online`.
    """

    config: DecoderConfig
    lora: LoRAConfig | None
    own: Sequence[Encoded]
    probes: Sequence[Encoded]
    pool: Sequence[Encoded]
    generated: Mapping[str, Sequence[Encoded]]
    refreshes: int

    @property
    def plain(self) -> float:
        """FLOPs of the fine-tune without replay."""
        return training(self.config, self.lora, self.own)

    def extra(self, arm: Arm, used: "Used") -> Extra:
        """FLOPs beyond `plain` of a fine-tune under an arm; training below zero where it is less.

        Args:
          used: the rows that it trains on.
        """
        strategy, _ = parse(arm.strategy)
        name = arm.strategy.partition(":")[0]
        displaced = 0.0
        if arm.matched == "compute":
            displaced = self.plain - training(self.config, self.lora, used.own)
        forwards: list[Sequence[Encoded]] = []
        trainings: list[Sequence[Encoded]] = [used.replayed]
        if name == "online":
            forwards += [self.probes, self.probes] * self.refreshes
        elif strategy.knows == "probes":
            trainings += [self.own]
            forwards += [self.probes, self.probes]
        elif strategy.knows == "row":
            trainings += [self.own]
            forwards += [self.pool, self.pool]
        elif strategy.knows == "base":
            forwards += [self.pool]
        if name == "influence":
            trainings += [self.pool]
        if strategy.rows in self.generated:
            forwards += [self.generated[strategy.rows]]
        if arm.cost != "nll":
            forwards += [used.replayed]
        return Extra(
            sum(forward(self.config, rows) for rows in forwards),
            sum(training(self.config, self.lora, rows) for rows in trainings) - displaced,
        )


class Used(NamedTuple):
    """The rows that a fine-tune trains on, in order: the task's own, and those replayed."""

    own: Sequence[Encoded]
    replayed: Sequence[Encoded]


def used(task: Task, own_rows: int, batch_size: int) -> Used:
    """What a fine-tune with replay trains on; nothing without an order, for then it is `own`."""
    if task.order is None:
        return Used((), ())
    order = task.order[: task.steps * batch_size]
    own, again = order[order < own_rows], order[order >= own_rows]
    return Used([task.examples[i] for i in own], [task.examples[i] for i in again])
