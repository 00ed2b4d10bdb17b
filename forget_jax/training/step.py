"""The pure training step, for M tasks together.

The trainable tree has a leading task axis: M LoRA adapters over one frozen base, or one full set of
parameters (M = 1). Microbatches mix rows of several tasks; each row trains its own task's slice, so
the gradient of the summed loss holds every task's gradient side by side, and the optimizer is
vmapped over tasks.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from forget_jax.data.batches import Batch
from forget_jax.lm import decoder, lora
from forget_jax.lm.logprob import target_logprobs

Tree = Any


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a warmed-up schedule and gradient clipping.

    Attributes:
      lr: the peak learning rate.
      schedule: `constant`, `linear` (to zero) or `cosine` (to zero).
      warmup: steps of linear warm-up.
      clip: the largest global norm of a task's gradient; 0 leaves it as it is.
      decay: decoupled weight decay.
    """

    lr: float = 1e-4
    schedule: str = "linear"
    warmup: int = 0
    clip: float = 1.0
    decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8


SCHEDULES = ("constant", "linear", "cosine")


class TrainState(NamedTuple):
    """What training changes; every leaf has the task axis first.

    Attributes:
      trainable: adapters (or full parameters), fp32.
      optimizer: Adam's moments.
      step_M: updates done.
    """

    trainable: Tree
    optimizer: Tree
    step_M: jax.Array


class Accumulated(NamedTuple):
    """Sums over one step's microbatches: gradients of the summed NLL, NLL and target tokens."""

    grads: Tree
    nll_M: jax.Array
    tokens_M: jax.Array


def learning_rate(config: OptimizerConfig, step: jax.Array, total: jax.Array) -> jax.Array:
    """The learning rate of update number `step` (from 0) of `total`."""
    warm = jnp.minimum(1.0, (step + 1) / max(1, config.warmup)) if config.warmup else 1.0
    left = 1 - jnp.clip((step - config.warmup) / jnp.maximum(1, total - config.warmup), 0, 1)
    shape = {
        "constant": jnp.ones_like(left),
        "linear": left,
        "cosine": 0.5 * (1 - jnp.cos(jnp.pi * left)),
    }[config.schedule]
    return config.lr * warm * shape


def _direction(config: OptimizerConfig) -> optax.GradientTransformation:
    """The update for a learning rate of one; the schedule multiplies it per task."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(),
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.decay) if config.decay else optax.identity(),
    )


def init_state(config: OptimizerConfig, trainable: Tree) -> TrainState:
    """A fresh state for a trainable tree with a leading task axis."""
    tasks = jax.tree.leaves(trainable)[0].shape[0]
    optimizer = jax.vmap(_direction(config).init)(trainable)
    return TrainState(trainable, optimizer, jnp.zeros(tasks, jnp.int32))


def zero_accumulated(trainable: Tree) -> Accumulated:
    """An empty sum of microbatches."""
    tasks = jax.tree.leaves(trainable)[0].shape[0]
    return Accumulated(  # separate zeros: the buffers are donated
        jax.tree.map(jnp.zeros_like, trainable), jnp.zeros(tasks), jnp.zeros(tasks)
    )


def scale_updates(adapters: Tree, scale_M: jax.Array) -> Tree:
    """A stack of adapters with each task's low-rank update multiplied by its own factor."""
    return jax.tree.map_with_path(
        lambda path, x: x * scale_M.reshape(-1, 1, 1, 1) if path[-1].key == "b" else x, adapters
    )


def _row_nll(
    model: decoder.DecoderConfig,
    adapter: lora.LoRAConfig | None,
    trainable: Tree,
    base: Tree,
    batch: Batch,
    task_BxM: jax.Array,
    scale_M: jax.Array,
    dropout_key: jax.Array | None,
) -> jax.Array:
    """Summed NLL of each row's targets, fp32 (B,)."""
    if adapter is not None:
        trainable = scale_updates(trainable, scale_M)
    one = task_BxM.shape[1] == 1
    if one:
        trainable = jax.tree.map(lambda x: x[0], trainable)
    params = trainable if adapter is None else base
    h_BxLxD = decoder.hidden(
        model,
        params,
        None if adapter is None else lora.scaled(adapter, trainable),
        batch.ids_BxL,
        batch.position_BxL,
        batch.segment_BxL,
        None if one else task_BxM,
        dropout_key,
    )
    logp_BxT = target_logprobs(h_BxLxD, decoder.head_kernel(params), batch.at_BxT, batch.target_BxT)
    return -jnp.sum(logp_BxT * batch.weight_BxT, axis=1)


@functools.partial(jax.jit, static_argnames=("model", "adapter"), donate_argnames=("total",))
def accumulate(
    model: decoder.DecoderConfig,
    adapter: lora.LoRAConfig | None,
    trainable: Tree,
    base: Tree,
    total: Accumulated,
    batch: Batch,
    task_B: jax.Array,
    scale_M: jax.Array,
    dropout_key: jax.Array | None = None,
) -> Accumulated:
    """Adds one microbatch's gradients, NLL and token counts to the sums of the step.

    Args:
      adapter: None trains all parameters (`base` is then unused).
      task_B: which task each row belongs to; -1 for padding rows.
      scale_M: a factor on each task's low-rank update, beside the adapter's own scaling.
      dropout_key: switches the dropout on the adapters' input on (`model.lora_dropout`).
    """
    tasks = jax.tree.leaves(trainable)[0].shape[0]
    task_BxM = jax.nn.one_hot(task_B, tasks, dtype=jnp.float32)

    def loss(trainable: Tree) -> tuple[jax.Array, jax.Array]:
        nll_B = _row_nll(model, adapter, trainable, base, batch, task_BxM, scale_M, dropout_key)
        return jnp.sum(nll_B), nll_B

    grads, nll_B = jax.grad(loss, has_aux=True)(trainable)
    return Accumulated(
        jax.tree.map(jnp.add, total.grads, grads),
        total.nll_M + nll_B @ task_BxM,
        total.tokens_M + batch.weight_BxT.sum(1) @ task_BxM,
    )


@functools.partial(jax.jit, static_argnames=("config",), donate_argnames=("state", "total"))
def update(
    config: OptimizerConfig, state: TrainState, total: Accumulated, steps_M: jax.Array
) -> tuple[TrainState, dict[str, jax.Array], Accumulated]:
    """One optimizer update per task; tasks that have done their `steps_M` stay as they are.

    Returns:
      The new state; metrics per task (`loss_M` in nats per target token, `grad_norm_M`); and the
      sums, set back to zero in place.
    """
    direction = _direction(config)

    def one_task(trainable, optimizer, step, grads, tokens, steps):  # type: ignore[no-untyped-def]
        grads = jax.tree.map(lambda g: g / jnp.maximum(tokens, 1), grads)
        change, new_optimizer = direction.update(grads, optimizer, trainable)
        lr = learning_rate(config, step, steps)
        active = step < steps
        new = jax.tree.map(lambda p, d: p - lr * d, trainable, change)

        def keep(new, old):  # type: ignore[no-untyped-def]
            return jax.tree.map(lambda n, o: jnp.where(active, n, o), new, old)

        return (
            keep(new, trainable),
            keep(new_optimizer, optimizer),
            step + active,
            optax.tree.norm(grads),
        )

    trainable, optimizer, step_M, norm_M = jax.vmap(one_task)(
        state.trainable, state.optimizer, state.step_M, total.grads, total.tokens_M, steps_M
    )
    metrics = {"loss_M": total.nll_M / jnp.maximum(total.tokens_M, 1), "grad_norm_M": norm_M}
    zero = jax.tree.map(jnp.zeros_like, total)
    return TrainState(trainable, optimizer, step_M), metrics, zero
