"""How the loss of some rows changes along what a later training moved, to the second order.

At the start of the training, with displacement d to where it ended: the loss, its gradient g, the
slope g·d and the curvature dᵀHd, H being the Hessian, of which the product with d is taken alone
(Pearlmutter 1994). So whether the move went against the rows' own gradient, or was only too
long for the curvature of what it crossed.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from forget_jax.data.feed import each_once
from forget_jax.data.tokenise import Encoded
from forget_jax.lm import decoder
from forget_jax.lm.model import Adapters, Batch, Model, trainable, with_trainable
from forget_jax.training.objective import nll
from forget_jax.types import Tree

Loaded = tuple[Model, Adapters | None]


class Along(NamedTuple):
    """Of some rows' mean loss at a start, nats a target.

    Attributes:
      loss: itself.
      gradient: like the trained tree.
      slope: g·d, the change to the first order.
      curvature: dᵀHd; half of it is the change to the second order.
    """

    loss: jax.Array
    gradient: Tree
    slope: jax.Array
    curvature: jax.Array


def inner(a: Tree, b: Tree) -> jax.Array:
    """The inner product of two trees, in fp32."""
    products = jax.tree.map(
        lambda x, y: jnp.vdot(x.astype(jnp.float32), y.astype(jnp.float32)), a, b
    )
    return sum(jax.tree.leaves(products), jnp.float32(0))


@functools.partial(jax.jit, donate_argnames=("total",))
def _add(start: Loaded, direction: Tree | None, total: Along, batch: Batch) -> Along:
    """Adds the rows' summed loss with its derivatives."""

    def cost(tree: Tree) -> jax.Array:
        model, adapter = with_trainable(*start, tree)
        return nll(model, decoder.hidden(model, adapter, batch), batch).sum()

    def slope(tree: Tree) -> tuple[jax.Array, tuple[jax.Array, Tree]]:
        loss, gradient = jax.value_and_grad(cost)(tree)
        return inner(direction, gradient), (loss, gradient)

    # Reverse over reverse: kernels with a backward pass of their own have no forward one.
    tree, zero = trainable(*start), jnp.float32(0)
    if direction is None:
        found = Along(*jax.value_and_grad(cost)(tree), zero, zero)
    else:
        (steep, (loss, gradient)), bent = jax.value_and_grad(slope, has_aux=True)(tree)
        found = Along(loss, gradient, steep, inner(direction, bent))
    return jax.tree.map(lambda x, y: x + y.astype(x.dtype), total, found)


def along(
    start: Loaded,
    direction: Tree | None,
    encoded: Sequence[Encoded],
    buckets: int = 1,
    rows: int = 8,
) -> Along:
    """The mean loss of rows at a start, and its derivatives along a direction.

    Memory is that of four models beside the start: direction, sum, gradient and its derivative.

    Args:
      start: a model, with a single adapter whose parameters are moved; or None, and it is its own.
      direction: like the trained tree, whatever its length; None for loss and gradient alone.
      encoded: rows; every target counts the same.
      buckets: lengths to compile for.
      rows: read to the device at a time.
    """
    tree, zero = trainable(*start), jnp.float32(0)
    if direction is not None:
        direction = jax.tree.map(lambda d, x: jnp.asarray(d, x.dtype), direction, tree)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)
    total = Along(zero, empty, jnp.zeros_like(zero), jnp.zeros_like(zero))
    for batch in each_once(encoded, buckets, rows):
        total = _add(start, direction, total, batch)
    targets = sum(int(e.is_target[1:].sum()) for e in encoded)
    return jax.tree.map(lambda x: x / targets, total)


def comparable(start: Loaded, end: Loaded) -> bool:
    """Whether one lies where the other can move to: both whole models, or adapters of one shape."""
    a, b = (jax.tree.map(jnp.shape, trainable(*loaded)) for loaded in (start, end))
    return (start[1] is None) == (end[1] is None) and a == b


def displaced(
    start: Loaded, end: Loaded, earlier: Sequence[Encoded], own: Sequence[Encoded]
) -> dict[str, float]:
    """What a training did to the loss of earlier rows, from where it began to where it ended.

    Args:
      start, end: the same architecture before and after.
      earlier: the rows whose loss is asked.
      own: the rows that were trained on.

    Returns:
      `distance` of the move (L2); `cosine` of both rows' gradients at the start; `slope` and
      `curvature` per unit of distance and of its square; `first` and `second`, the changes of the
      earlier rows' loss to the first and the second order; `change`, what it was. Nats a target.
    """
    direction = jax.tree.map(
        lambda a, b: b.astype(jnp.float32) - a.astype(jnp.float32),
        trainable(*start),
        trainable(*end),
    )
    before = along(start, direction, earlier)
    other = along(start, None, own).gradient
    after = along(end, None, earlier).loss
    distance = jnp.sqrt(inner(direction, direction))
    sizes = jnp.sqrt(inner(before.gradient, before.gradient) * inner(other, other))
    found = {
        "distance": distance,
        "cosine": inner(before.gradient, other) / jnp.maximum(sizes, 1e-30),
        "slope": before.slope / jnp.maximum(distance, 1e-30),
        "curvature": before.curvature / jnp.maximum(distance**2, 1e-30),
        "first": before.slope,
        "second": before.slope + before.curvature / 2,
        "change": after - before.loss,
    }
    return {name: float(value) for name, value in found.items()}
