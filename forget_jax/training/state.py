"""What training changes, and how the tasks that still train are taken out of it and put back."""

import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax import randomness
from forget_jax.errors import UserError
from forget_jax.lm import lora, sharding
from forget_jax.training.optimizer import OptimizerConfig, direction
from forget_jax.training.plan import Task
from forget_jax.types import Tree


class Best(NamedTuple):
    """Each task's trainable tree where its held-out loss was least, that loss, and when."""

    trainable: Tree
    loss_M: jax.Array
    step_M: jax.Array


class TrainState(NamedTuple):
    """What training changes; every leaf has the axis of tasks (of seats, in a step) first.

    Attributes:
      trainable: adapters (or full parameters), fp32.
      optimizer: Adam's moments.
      step_M: updates done.
      alive_M: whether every loss so far was finite; a task stays at its last finite update.
      best: where held-out losses are taken, else None.
    """

    trainable: Tree
    optimizer: Tree
    step_M: jax.Array
    alive_M: jax.Array
    best: Best | None = None


def init_state(config: OptimizerConfig, trainable: Tree, keep_best: bool = False) -> TrainState:
    """A fresh state for a trainable tree with a leading task axis."""
    M = jax.tree.leaves(trainable)[0].shape[0]
    none_M = jnp.zeros(M, jnp.int32)
    best = Best(jax.tree.map(jnp.copy, trainable), jnp.full(M, jnp.inf), none_M)
    optimizer = jax.vmap(direction(config).init)(trainable)
    alive_M = jnp.ones(M, bool)
    return TrainState(trainable, optimizer, none_M, alive_M, best if keep_best else None)


def fresh_trainable(
    adapter: lora.LoRAConfig | None, base: Tree, tasks: Sequence[Task], count: int
) -> Tree:
    """What training starts from: an adapter per task from its seed, or the base itself.

    Args:
      count: length of the task axis; what is beyond the tasks only fills it up.
    """
    if adapter is None:
        if len(tasks) != 1 or count != 1:
            raise UserError(
                "full fine-tuning trains one task at a time: set lora.rank above 0, or one task "
                "and mesh.task=1"
            )
        return jax.tree.map(lambda x: x.astype(jnp.float32)[None], base)
    if not jax.tree.leaves(jax.eval_shape(lambda: lora.init(adapter, base, jax.random.key(0)))):
        has = ", ".join(path for path in lora.kernels(base) if path.startswith("layers/"))
        raise UserError(
            f"lora.targets {adapter.targets!r} matches no linear layer of this model; it has {has}"
        )
    seated = [*tasks, *[tasks[-1]] * (count - len(tasks))]

    def one(words: jax.Array, rank: jax.Array) -> Tree:
        return jax.tree.map_with_path(
            lambda path, x: (
                # Where `a` is zero and `b` is too, neither ever receives a gradient.
                jnp.where(jnp.arange(x.shape[-1]) < rank, x, 0) if path[-1].key == "a" else x
            ),
            lora.init(adapter, base, randomness.as_key(words)),
        )

    ranks = np.array([task.rank or np.iinfo(np.int32).max for task in seated], np.int32)
    words_Mx2 = np.stack([randomness.words(task.seed, "initial adapter") for task in seated])
    whole = jax.vmap(one)(jnp.asarray(words_Mx2), jnp.asarray(ranks))
    if not any(task.targets or task.top for task in seated):
        return whole

    def masked(path: Any, x: jax.Array) -> jax.Array:
        if path[-1].key != "a":
            return x
        kernel, layers = "/".join(key.key for key in path[:-1]), x.shape[1]
        trained = [adapted_layers(task, kernel, layers) for task in seated]
        return jnp.where(np.stack(trained)[:, :, None, None], x, 0)  # as ranks that are not trained

    return jax.tree.map_with_path(masked, whole)


def adapted_layers(task: Task, kernel: str, layers: int) -> np.ndarray:
    """Which of a kernel's layers have an adapter that the task trains, by path: bool (layers,)."""
    matches = not task.targets or re.fullmatch(task.targets, kernel) is not None
    return matches & (np.arange(layers) >= layers - (task.top or layers))


class Accumulated(NamedTuple):
    """Sums over one step's microbatches: gradients of the rows' costs, costs, target tokens."""

    grads: Tree
    cost_S: jax.Array
    tokens_S: jax.Array


@jax.jit
def zero_like(state: TrainState) -> Accumulated:
    """An empty sum of microbatches, beside a state."""
    S = state.step_M.shape[0]
    grads = jax.tree.map(jnp.zeros_like, state.trainable)
    return sharding.constrain(Accumulated(grads, jnp.zeros(S), jnp.zeros(S)))


@functools.partial(jax.jit, static_argnames=("count",))
def _resized(state: TrainState, count: int) -> TrainState:
    def one(x: jax.Array) -> jax.Array:
        more = count - x.shape[0]
        return jnp.pad(x, [(0, max(0, more))] + [(0, 0)] * (x.ndim - 1), mode="edge")[:count]

    return sharding.constrain(jax.tree.map(one, state))


def resize(state: TrainState, count: int) -> TrainState:
    """The state with its task axis cut to, or filled up to, a length."""
    return state if state.step_M.shape[0] == count else _resized(state, count)


@jax.jit
def result(state: TrainState) -> tuple[Tree, jax.Array]:
    """What was trained, task axis first, and the updates behind it: the best where it is kept."""
    if state.best is None:
        return state.trainable, state.step_M
    kept_M = jnp.isfinite(state.best.loss_M)

    def choose(best: jax.Array, last: jax.Array) -> jax.Array:
        return jnp.where(kept_M.reshape(-1, *[1] * (best.ndim - 1)), best, last)

    trainable = jax.tree.map(choose, state.best.trainable, state.trainable)
    return sharding.constrain(trainable), choose(state.best.step_M, state.step_M)


@functools.partial(jax.jit, donate_argnames=("state",))
def keep_best(state: TrainState, loss_M: jax.Array) -> TrainState:
    """Takes over every task whose held-out loss is below its best; NaN leaves it as it is."""
    assert state.best is not None
    better_M = (loss_M < state.best.loss_M) & state.alive_M

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(better_M.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    now = Best(state.trainable, loss_M, state.step_M)
    return sharding.constrain(state._replace(best=jax.tree.map(choose, now, state.best)))


@jax.jit
def take(full: TrainState, task_S: jax.Array) -> TrainState:
    """The state of the tasks in S seats; an empty seat (-1) holds a copy of the first task's."""
    return sharding.constrain(jax.tree.map(lambda x: x[jnp.maximum(task_S, 0)], full))


@functools.partial(jax.jit, donate_argnames=("full",))
def give_back(full: TrainState, seated: TrainState, task_S: jax.Array) -> TrainState:
    """The whole state with the tasks in seats put back into it."""
    M = full.step_M.shape[0]
    at_S = jnp.where(task_S < 0, M, task_S)
    return sharding.constrain(
        jax.tree.map(lambda x, new: x.at[at_S].set(new, mode="drop"), full, seated)
    )
