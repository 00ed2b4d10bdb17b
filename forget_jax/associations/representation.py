"""Predicting forgetting from frozen features: the inner product of two learned maps.

The literature's trainable baseline (arXiv 2406.14026, section 4): ẑ[i, j] = mean of
h(task i) · g(example j), with h and g two-layer networks on features that were computed elsewhere,
trained on the train rows. It needs no probe of a new task, only its features.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.associations import checks
from forget_jax.errors import UserError

Array = jax.Array


def _network(key: Array, d: int, width: int) -> dict[str, Array]:
    first, second = jax.random.split(key)
    return {
        "in": jax.random.normal(first, (d, width)) / np.sqrt(d),
        "bias": jnp.zeros(width),
        "out": jax.random.normal(second, (width, width)) / np.sqrt(width),
    }


def _apply(network: dict[str, Array], x: Array) -> Array:
    return jax.nn.relu(x @ network["in"] + network["bias"]) @ network["out"]


@functools.partial(jax.jit, static_argnames=("width", "steps"))
def _train(
    z: Array, tasks: Array, new: Array, examples: Array, key: Array, width: int, steps: int
) -> Array:
    import optax  # here: rooms that only complete matrices start without it

    known, target = ~jnp.isnan(z), jnp.nan_to_num(z)
    one, two = jax.random.split(key)
    networks = (_network(one, tasks.shape[1], width), _network(two, examples.shape[1], width))
    mean = jnp.where(known, target, 0).sum() / known.sum()
    deviation = jnp.sqrt(jnp.where(known, (target - mean) ** 2, 0).sum() / known.sum()) + 1e-12

    def product(networks: Any, tasks: Array) -> Array:
        return _apply(networks[0], tasks) @ _apply(networks[1], examples).T / width

    def loss(networks: Any) -> Array:
        off = product(networks, tasks) - (target - mean) / deviation
        return jnp.where(known, off**2, 0).sum() / known.sum()

    optimizer = optax.adam(1e-3)

    def step(_: int, state: Any) -> Any:
        networks, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(networks), moments)
        return optax.apply_updates(networks, updates), moments

    networks, _ = jax.lax.fori_loop(0, steps, step, (networks, optimizer.init(networks)))
    return mean + deviation * product(networks, new)


def predict_from_features(
    train: Any,
    train_features: Any,
    new_features: Any,
    example_features: Any,
    seed: int = 0,
    width: int = 64,
    steps: int = 1000,
) -> np.ndarray:
    """Forgetting of new tasks from their features, without a probe of any.

    Args:
      train: M × N train rows, float, in any unit; NaN entries are left out.
      train_features, new_features: M × D and T × D, a task's mean feature each.
      example_features: N × D, which may be another number of dimensions than that of the tasks.
      seed: of the networks' start.
      width: of the hidden layer and of the product.
      steps: full-batch Adam steps at 1e-3.

    Returns:
      T × N float32, in the unit of `train`.

    Raises:
      UserError: shapes that do not agree.
    """
    z_MxN = checks.as_matrix(train, "the matrix of train rows")
    tasks, new, examples = (
        np.asarray(x, np.float32) for x in (train_features, new_features, example_features)
    )
    if tasks.ndim != 2 or new.ndim != 2 or examples.ndim != 2 or tasks.shape[1] != new.shape[1]:
        raise UserError("features must be tasks × D and examples × D, train and new tasks alike")
    if (tasks.shape[0], examples.shape[0]) != z_MxN.shape:
        raise UserError(
            f"a {z_MxN.shape} matrix with features of {tasks.shape[0]} tasks and "
            f"{examples.shape[0]} examples"
        )
    return np.asarray(_train(z_MxN, tasks, new, examples, jax.random.key(seed), width, steps))
