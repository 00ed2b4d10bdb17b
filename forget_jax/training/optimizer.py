"""AdamW with a learning rate of its own for every task."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from forget_jax.training.settings import Train
from forget_jax.types import Tree


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The learning rate of a task over its own number of steps.

    Attributes:
      lr: the peak.
      kind: `constant`, `linear` (to zero) or `cosine` (to zero), after the warm-up.
      warmup: steps of linear warm-up.
      floor: the share of the peak that linear and cosine end at, in place of zero.
    """

    lr: float = 1e-4
    kind: str = "linear"
    warmup: int = 0
    floor: float = 0.0

    def rate(self, step: int, total: int) -> float:
        """The learning rate of update number `step` (from 0) of `total`."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        left = 1 - min(1.0, max(0.0, (step - self.warmup) / max(1, total - self.warmup)))
        shape = {
            "constant": 1.0,
            "linear": left,
            "cosine": 0.5 * (1 - math.cos(math.pi * left)),
        }[self.kind]
        return self.lr * warm * (self.floor + (1 - self.floor) * shape)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with gradient clipping: what a compiled step depends on.

    Attributes:
      clip: the largest global norm of a task's gradient; 0 leaves it as it is.
      decay: decoupled weight decay.
      frozen: of a whole model that is trained, so many of the lowest layers, and the embeddings
        below them, stay as they are (a head that is tied to them too).
    """

    clip: float = 1.0
    decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    frozen: int = 0


def of(train: Train) -> tuple[OptimizerConfig, Schedule]:
    """The optimizer of a run's settings, and the schedule of tasks that have none of their own."""
    return OptimizerConfig(train.clip, train.decay), Schedule(
        train.lr, train.schedule, train.warmup, train.floor
    )


def direction(config: OptimizerConfig) -> optax.GradientTransformation:
    """The update for a learning rate of one; each task's schedule multiplies it."""
    adamw = optax.chain(
        optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(),
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.decay) if config.decay else optax.identity(),
    )
    if not config.frozen:
        return adamw
    still = optax.stateless(lambda tree, _: without_frozen(tree, config.frozen))
    return optax.chain(still, adamw, still)  # first for the norm that is clipped, last for decay


def without_frozen(tree: Tree, frozen: int) -> Tree:
    """A tree like a model's parameters with zeros in the embeddings and the lowest layers."""

    def one(path: Any, x: jax.Array) -> jax.Array:
        top = path[0].key
        if top.startswith("embed"):
            return jnp.zeros_like(x)
        if top != "layers":
            return x
        above = jnp.arange(x.shape[0]) >= frozen
        return jnp.where(above.reshape(-1, *[1] * (x.ndim - 1)), x, 0)

    return jax.tree.map_with_path(one, tree)
