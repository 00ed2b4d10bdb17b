"""The diagonal of the empirical Fisher information: mean squared gradients of single rows."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from forget_jax.data.batches import Buckets
from forget_jax.data.feed import feed
from forget_jax.data.tokenise import Encoded
from forget_jax.lm import decoder
from forget_jax.lm.model import Adapters, Batch, Model
from forget_jax.training.objective import nll
from forget_jax.types import Tree


@functools.partial(jax.jit, donate_argnames=("total",))
def _add(model: Model, adapters: Adapters | None, total: Tree, batch: Batch) -> Tree:
    """Adds the squared gradient of each row's summed NLL, one row after the other."""
    trainable = model.params if adapters is None else adapters.tree

    def cost(tree: Tree, row: Batch) -> jax.Array:
        one = jax.tree.map(lambda x: x[None], row)
        if adapters is None:
            trained = Model(model.config, tree)
            return nll(trained, decoder.hidden(trained, None, one), one).sum()
        return nll(model, decoder.hidden(model, Adapters(adapters.config, tree), one), one).sum()

    def add(total: Tree, row: Batch) -> tuple[Tree, None]:
        squares = jax.tree.map(lambda g: jnp.square(g.astype(jnp.float32)),
                               jax.grad(cost)(trainable, row))  # fmt: skip
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
    trainable = model.params if adapters is None else adapters.tree
    total = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), trainable)
    edges = Buckets.of(encoded, buckets)
    by_shape: dict[object, list[int]] = {}
    for i, one in enumerate(encoded):
        by_shape.setdefault(edges.shape(len(one.ids), rows), []).append(i)
    for shape, members in by_shape.items():
        for start in range(0, len(members), rows):
            # a row of padding has no target, and no gradient
            chosen = [(i,) for i in members[start : start + rows]]
            total = _add(model, adapters, total, feed(encoded, shape, chosen))  # type: ignore[arg-type]
    return jax.tree.map(lambda x: x / len(encoded), total)


def normalised(importance: Tree) -> Tree:
    """The same with a mean of 1 over all parameters, so that a strength means what it does of L2.

    Where all are zero, ones.
    """
    count = sum(x.size for x in jax.tree.leaves(importance))
    mean = sum(jnp.sum(x) for x in jax.tree.leaves(importance)) / count
    return jax.tree.map(lambda x: jnp.where(mean > 0, x / jnp.where(mean > 0, mean, 1), 1.0),
                        importance)  # fmt: skip
