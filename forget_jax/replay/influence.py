"""Sketches of examples' gradients at the base: what one step on each would change.

The gradient is that of fresh adapters' `b`, whose `a` is random: a random projection of the
gradient of the base's own kernels. A count sketch (random signs, summed into buckets) makes it
short; inner products are kept in expectation.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.data.batches import Buckets, assemble
from forget_jax.data.tokenise import Encoded
from forget_jax.lm import decoder, lora
from forget_jax.lm.lora import LoRAConfig
from forget_jax.lm.model import Adapters, Batch, Model
from forget_jax.randomness import key
from forget_jax.training.objective import nll
from forget_jax.types import Tree

LENGTH = 2048  # numbers of a sketch


@functools.partial(jax.jit, static_argnames=("config", "length"))
def _sketch(
    model: Model, config: LoRAConfig, adapter: Tree, batch: Batch, signs: jax.Array, length: int
) -> jax.Array:
    """Sketch of the gradient of one row's mean NLL, fp32 (length,)."""

    def cost(tree: Tree) -> jax.Array:
        h_BxLxD = decoder.hidden(model, Adapters(config, tree), batch)
        return jnp.sum(nll(model, h_BxLxD, batch)) / jnp.maximum(batch.weight_BxT.sum(), 1)

    grads = jax.grad(cost)(adapter)
    flat = jnp.concatenate(
        [x.ravel() for path, x in jax.tree.leaves_with_path(grads) if path[-1].key == "b"]
    )
    signed = flat * signs[: flat.size]
    return jnp.pad(signed, (0, -flat.size % length)).reshape(-1, length).sum(0)


def sketches(
    model: Model,
    config: LoRAConfig,
    encoded: Sequence[Encoded],
    seed: int,
    buckets: int = 2,
    on_row: Callable[[int], None] = lambda rows: None,
) -> np.ndarray:
    """Sketched gradients of all examples, fp32 (N x LENGTH): a forward and backward pass of each.

    Args:
      config: of the adapters whose gradient it is.
      seed: of their `a` and of the signs.
      buckets: lengths to compile for.
      on_row: called with the number of examples done.
    """
    adapter = lora.init(config, model.params, key(seed, "influence"))
    size = sum(x.size for x in jax.tree.leaves(adapter))
    signs = jax.random.rademacher(key(seed, "influence", "signs"), (size,), jnp.float32)
    shapes, found = Buckets.of(encoded, buckets), []
    for i, one in enumerate(encoded):
        batch = assemble(encoded, shapes.shape(len(one.ids), 1), [(i,)])
        found.append(np.asarray(_sketch(model, config, adapter, batch, signs, LENGTH)))
        on_row(i + 1)
    return np.array(found)
