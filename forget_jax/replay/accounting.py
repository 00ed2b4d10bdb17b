"""What an arm costs beyond a fine-tune without replay, in FLOPs of the model.

Choosing by probes offline needs a fine-tune of the task first, whose probes are scored (arXiv
2406.14026 §5); the whole row needs that and a pass over all candidates. The matrix is taken as
given, since it serves every further task.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from forget_jax.data.tokenise import Encoded
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.cost import flops
from forget_jax.lm.lora import LoRAConfig
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


def _work(config: DecoderConfig, rows: Sequence[Encoded]) -> flops.Work:
    return flops.work(config, [len(e.ids) for e in rows], sum(e.tokens for e in rows))


@dataclass(frozen=True)
class Account:
    """What one task's arms are reckoned with.

    Attributes:
      own: the task's rows that a fine-tune consumes, again where it does so again.
      probes, pool: as they are scored.
      generated: what the base wrote.
      refreshes: of the strategy `online`.
    """

    config: DecoderConfig
    lora: LoRAConfig | None
    own: Sequence[Encoded]
    probes: Sequence[Encoded]
    pool: Sequence[Encoded]
    generated: Sequence[Encoded]
    refreshes: int

    @property
    def plain(self) -> float:
        """FLOPs of the fine-tune without replay."""
        return training(self.config, self.lora, self.own)

    def extra(self, spec: str, cost: str, replayed: Sequence[Encoded]) -> Extra:
        """FLOPs beyond `plain` of a fine-tune under a strategy.

        Args:
          spec, cost: of its arm.
          replayed: the rows that it replays, as often as it does.
        """
        strategy, _ = parse(spec)
        name = spec.partition(":")[0]
        forwards: list[Sequence[Encoded]] = []
        trainings: list[Sequence[Encoded]] = [replayed]
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
        if strategy.rows == "generated":
            forwards += [self.generated]
        if cost != "nll":
            forwards += [replayed]
        return Extra(
            sum(forward(self.config, rows) for rows in forwards),
            sum(training(self.config, self.lora, rows) for rows in trainings),
        )


def replayed(task: Task, own_rows: int, batch_size: int) -> list[Encoded]:
    """The rows that a fine-tune replays, in order; none without an order."""
    if task.order is None:
        return []
    order = task.order[: task.steps * batch_size]
    return [task.examples[i] for i in order[order >= own_rows]]
