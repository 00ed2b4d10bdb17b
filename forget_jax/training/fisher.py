"""The diagonal of the empirical Fisher information: mean squared gradients of single rows."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from forget_jax.data.feed import each_once
from forget_jax.data.tokenise import Encoded
from forget_jax.lm import decoder
from forget_jax.lm.model import Adapters, Batch, Model, trainable, with_trainable
from forget_jax.training.objective import nll
from forget_jax.types import Tree


@functools.partial(jax.jit, donate_argnames=("total",))
def _add(model: Model, adapters: Adapters | None, total: Tree, batch: Batch) -> Tree:
    """Adds the squared gradient of each row's summed NLL, one row after the other."""

    def cost(tree: Tree, row: Batch) -> jax.Array:
        one = jax.tree.map(lambda x: x[None], row)
        trained, beside = with_trainable(model, adapters, tree)
        return nll(trained, decoder.hidden(trained, beside, one), one).sum()

    def add(total: Tree, row: Batch) -> tuple[Tree, None]:
        squares = jax.tree.map(lambda g: jnp.square(g.astype(jnp.float32)),
                               jax.grad(cost)(trainable(model, adapters), row))  # fmt: skip
        return jax.tree.map(jnp.add, total, squares), None

    return jax.lax.scan(add, total, batch)[0]


def diagonal(
    model: Model,
    adapters: Adapters | None,
    encoded: Sequence[Encoded],
    buckets: int = 1,
    rows: int = 8,
) -> Tree:
    """Mean over rows of the squared gradient of each one's NLL (arXiv 1612.00796 §2.1).

    The labels are the rows' own, not drawn from the model: of rows that a model has memorised the
    two agree. Memory is that of one gradient beside the sum.

    Args:
      adapters: a single one, whose parameters the diagonal is of; None for the whole model's.
      encoded: rows, of which the NLL is summed over the targets.
      buckets: lengths to compile for.
      rows: read to the device at a time.

    Returns:
      Like the trainable tree, fp32.
    """
    tree = trainable(model, adapters)
    total = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)
    for batch in each_once(encoded, buckets, rows):
        # a row of padding has no target, and no gradient
        total = _add(model, adapters, total, batch)
    return jax.tree.map(lambda x: x / len(encoded), total)


def normalised(importance: Tree) -> Tree:
    """The same with a mean of 1 over all parameters, so that a strength means what it does of L2.

    Where all are zero, ones.
    """
    count = sum(x.size for x in jax.tree.leaves(importance))
    mean = sum(jnp.sum(x) for x in jax.tree.leaves(importance)) / count
    return jax.tree.map(lambda x: jnp.where(mean > 0, x / jnp.where(mean > 0, mean, 1), 1.0),
                        importance)  # fmt: skip
