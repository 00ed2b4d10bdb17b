"""What training minimises: what each row costs, and what each task's parameters cost.

Both are values of the step, so another objective is another value and not a branch in it. Rows are
weighed by their target tokens: a step descends (sum of its rows' costs) / (their target tokens) +
penalty, for every task by itself.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from forget_jax.lm import decoder
from forget_jax.lm.logprob import target_kl, target_logprobs
from forget_jax.lm.model import Adapters, Batch, Model
from forget_jax.types import Tree

# From the model (with adapters the frozen base), hidden states h_BxLxD as trained, the batch, and
# where the objective has one the `Reference`: cost_B in nats, summed over each row's targets.
RowCost = Callable[..., jax.Array]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["model", "adapters", "strength"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Reference:
    """A frozen model that rows' costs may hold the trained one to.

    Attributes:
      model: with a single adapter, or without.
      strength: fp32, what a nat of divergence from it costs.
    """

    model: Model
    adapters: Adapters | None
    strength: jax.Array


def nll(
    model: Model, h_BxLxD: jax.Array, batch: Batch, reference: Reference | None = None
) -> jax.Array:
    """Negative log-likelihood of each row's targets, cost_B in nats."""
    del reference
    head = decoder.head(model.params)
    logp_BxT = target_logprobs(h_BxLxD, head, batch.at_BxT, batch.target_BxT)
    return -jnp.sum(logp_BxT * batch.weight_BxT, axis=1)


def kl_to_base(model: Model, h_BxLxD: jax.Array, batch: Batch) -> jax.Array:
    """KL(base || tuned) over each row's targets, cost_B in nats: what the adapters change of it.

    With adapters only: a model that is trained itself is no base any more. It costs one forward
    pass without them.
    """
    base_BxLxD = jax.lax.stop_gradient(decoder.hidden(model, None, batch))
    kl_BxT = target_kl(base_BxLxD, h_BxLxD, decoder.head(model.params), batch.at_BxT)
    return jnp.sum(kl_BxT * batch.weight_BxT, axis=1)


def nll_and_kl(model: Model, h_BxLxD: jax.Array, batch: Batch) -> jax.Array:
    """The sum of both, cost_B in nats."""
    return nll(model, h_BxLxD, batch) + kl_to_base(model, h_BxLxD, batch)


def nll_and_kl_to(
    model: Model, h_BxLxD: jax.Array, batch: Batch, reference: Reference
) -> jax.Array:
    """The nll and strength · KL(reference || trained) over each row's targets, cost_B in nats.

    It costs one forward pass of the reference.
    """
    frozen_BxLxD = decoder.hidden(reference.model, reference.adapters, batch)
    kl_BxT = target_kl(
        jax.lax.stop_gradient(frozen_BxLxD),
        h_BxLxD,
        decoder.head(model.params),
        batch.at_BxT,
        base_head=decoder.head(reference.model.params),
    )
    kl_B = jnp.sum(kl_BxT * batch.weight_BxT, axis=1)
    return nll(model, h_BxLxD, batch) + reference.strength * kl_B


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["strength_M", "anchor", "importance"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Quadratic:
    """strength / 2 · sum of importance · (parameter - anchor)², for every task.

    With ones as importance L2 to the anchor; with the diagonal Fisher information elastic weight
    consolidation (arXiv 1612.00796, eq. 3).

    Attributes:
      strength_M: fp32, of each task; where all are 0, training is bit for bit that without a
        penalty.
      anchor: like the trainable tree, task axis first.
      importance: like the anchor; None for ones.
    """

    strength_M: jax.Array
    anchor: Tree
    importance: Tree | None = None

    def gradient(self, trainable: Tree) -> Tree:
        """Of one task's penalty; to be mapped over tasks."""

        def one(x: jax.Array, anchor: jax.Array, importance: jax.Array | float) -> jax.Array:
            return self.strength_M * importance * (x - anchor)

        if self.importance is None:
            return jax.tree.map(lambda x, a: one(x, a, 1.0), trainable, self.anchor)
        return jax.tree.map(one, trainable, self.anchor, self.importance)


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes:
      rows: what a row costs, by number (`Task.costs`); static, module-level functions. Held-out
        losses are the first.
      penalty: what a task's parameters cost, whatever the rows; None for nothing.
      reference: is given to the rows' costs as a fourth argument; with one, a task trains alone.
      trained: like one task's trainable tree, or broadcast to it: 1 where it is trained, 0 where it
        stays as it is; None trains all.
    """

    rows: tuple[RowCost, ...] = (nll,)
    penalty: Quadratic | None = None
    reference: Reference | None = None
    trained: Tree | None = None
