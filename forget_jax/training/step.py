"""The pure training step, for M tasks together.

The trainable tree has a leading task axis: M LoRA adapters over one frozen base, or one full set of
parameters (M = 1). Microbatches mix rows of several tasks; each row trains its own task's slice, so
the gradient of the summed loss holds every task's gradient side by side, and the optimizer is
vmapped over tasks.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from forget_jax.data.batches import Batch
from forget_jax.lm import decoder, lora, sharding
from forget_jax.lm.logprob import target_logprobs
from forget_jax.training.optimizer import OptimizerConfig, direction
from forget_jax.training.state import Accumulated, TrainState

Tree = Any


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
    task_TxBxM: jax.Array,
    scale_M: jax.Array,
    dropout_key: jax.Array | None,
) -> jax.Array:
    """Summed NLL of each row's targets, fp32 (T·B,)."""
    if adapter is not None:
        trainable = scale_updates(trainable, scale_M)
    one = scale_M.shape[0] == 1
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
        None if one else task_TxBxM,
        dropout_key,
    )
    logp_BxT = target_logprobs(h_BxLxD, decoder.head(params), batch.at_BxT, batch.target_BxT)
    return -jnp.sum(logp_BxT * batch.weight_BxT, axis=1)


def _choice(seat_R: jax.Array, tasks: int) -> jax.Array:
    """One-hot seats task_TxBxM of R = T·B rows that come in T blocks; -1 chooses none."""
    T = sharding.blocks()
    return jax.nn.one_hot(seat_R.reshape(T, -1), tasks // T, dtype=jnp.float32)


def _by_task(value_R: jax.Array, task_TxBxM: jax.Array) -> jax.Array:
    """Sums of a value over each task's rows."""
    value_TxBx1 = value_R.reshape(*task_TxBxM.shape[:2], 1)
    return jnp.where(task_TxBxM > 0, value_TxBx1, 0).sum(1).reshape(-1)  # NaN stays in its task


@functools.partial(jax.jit, static_argnames=("model", "adapter"), donate_argnames=("total",))
def accumulate(
    model: decoder.DecoderConfig,
    adapter: lora.LoRAConfig | None,
    trainable: Tree,
    base: Tree,
    total: Accumulated,
    batch: Batch,
    seat_R: jax.Array,
    scale_M: jax.Array,
    dropout_key: jax.Array | None = None,
) -> Accumulated:
    """Adds one microbatch's gradients, NLL and token counts to the sums of the step.

    Args:
      adapter: None trains all parameters (`base` is then unused).
      seat_R: which task of its block each row belongs to; -1 for padding rows. There are as many
        blocks as the mesh's `task` axis has devices: one without a mesh.
      scale_M: a factor on each task's low-rank update, beside the adapter's own scaling.
      dropout_key: switches the dropout on the adapters' input on (`model.lora_dropout`).
    """
    task_TxBxM = _choice(seat_R, scale_M.shape[0])

    def loss(trainable: Tree) -> tuple[jax.Array, jax.Array]:
        nll_R = _row_nll(model, adapter, trainable, base, batch, task_TxBxM, scale_M, dropout_key)
        return jnp.sum(nll_R), nll_R

    grads, nll_R = jax.grad(loss, has_aux=True)(trainable)
    return sharding.constrain(
        Accumulated(
            jax.tree.map(jnp.add, total.grads, grads),
            total.nll_M + _by_task(nll_R, task_TxBxM),
            total.tokens_M + _by_task(batch.weight_BxT.sum(1), task_TxBxM),
        )
    )


@functools.partial(jax.jit, static_argnames=("model", "adapter"))
def heldout(
    model: decoder.DecoderConfig,
    adapter: lora.LoRAConfig | None,
    trainable: Tree,
    base: Tree,
    batch: Batch,
    seat_R: jax.Array,
    scale_M: jax.Array,
) -> jax.Array:
    """NLL and target tokens of a batch by task (2, M), on every device; see `accumulate`."""
    task_TxBxM = _choice(seat_R, scale_M.shape[0])
    nll_R = _row_nll(model, adapter, trainable, base, batch, task_TxBxM, scale_M, None)
    sums = _by_task(nll_R, task_TxBxM), _by_task(batch.weight_BxT.sum(1), task_TxBxM)
    return sharding.replicate(jnp.stack(sums))


@functools.partial(jax.jit, static_argnames=("config",), donate_argnames=("state", "total"))
def update(
    config: OptimizerConfig,
    state: TrainState,
    total: Accumulated,
    lr_M: jax.Array,
    running_M: jax.Array,
    stop_D: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array], Accumulated]:
    """One optimizer update of every running task with a finite loss; the others stay as they are.

    Args:
      stop_D: above 0 where a process was asked to stop.

    Returns:
      The new state; metrics, on every device: per task `loss_M` in nats per target token,
      `grad_norm_M` and `alive_M`, and `stop`, the largest of `stop_D`; and the sums, set back to
      zero in place.
    """
    adamw = direction(config)

    def one_task(trainable, optimizer, step, alive, grads, nll, tokens, lr, running):  # type: ignore[no-untyped-def]
        grads = jax.tree.map(lambda g: g / jnp.maximum(tokens, 1), grads)
        norm = optax.tree.norm(grads)
        alive = alive & (jnp.isfinite(nll) & jnp.isfinite(norm) | ~running)
        change, new_optimizer = adamw.update(grads, optimizer, trainable)
        new = jax.tree.map(lambda p, d: p - lr * d, trainable, change)
        # Adapters must stay finite: every row's is chosen by a product with all of them.
        alive &= jnp.isfinite(optax.tree.norm(new)) | ~running
        active = alive & running

        def keep(new, old):  # type: ignore[no-untyped-def]
            return jax.tree.map(lambda n, o: jnp.where(active, n, o), new, old)

        return keep(new, trainable), keep(new_optimizer, optimizer), step + active, alive, norm

    trainable, optimizer, step_M, alive_M, norm_M = jax.vmap(one_task)(
        state.trainable,
        state.optimizer,
        state.step_M,
        state.alive_M,
        total.grads,
        total.nll_M,
        total.tokens_M,
        lr_M,
        running_M,
    )
    metrics = {
        "loss_M": total.nll_M / jnp.maximum(total.tokens_M, 1),
        "grad_norm_M": norm_M,
        "alive_M": alive_M,
        "stop": jnp.max(stop_D),
    }
    state = TrainState(trainable, optimizer, step_M, alive_M, state.best)
    zero = jax.tree.map(jnp.zeros_like, total)
    return sharding.constrain(state), sharding.replicate(metrics), sharding.constrain(zero)
