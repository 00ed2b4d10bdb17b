"""The pure training step, for M tasks together.

The trainable tree has a leading task axis: M LoRA adapters over one frozen base, or one full set of
parameters (M = 1). Microbatches mix rows of several tasks; each row trains its own task's slice, so
the gradient of the summed loss holds every task's gradient side by side, and the optimizer is
vmapped over tasks.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from forget_jax.lm import decoder, sharding
from forget_jax.lm.model import Adapters, Batch, Model
from forget_jax.training.objective import Quadratic, Reference, RowCost
from forget_jax.training.optimizer import OptimizerConfig, direction
from forget_jax.training.state import Accumulated, TrainState
from forget_jax.types import Tree


def scale_updates(adapters: Tree, scale_M: jax.Array | np.ndarray) -> Tree:
    """A stack of adapters with each task's low-rank update multiplied by its own factor."""
    return jax.tree.map_with_path(
        lambda path, x: x * scale_M.reshape(-1, 1, 1, 1) if path[-1].key == "b" else x, adapters
    )


class Seats(NamedTuple):
    """Which seat each row trains, and what is particular to each seat.

    Attributes:
      of_row_R: which seat of its block each row belongs to; -1 for padding rows. There are as many
        blocks as the mesh's `task` axis has devices: one without a mesh.
      scale_S: a factor on each seat's low-rank update, beside the adapter's own scaling.
    """

    of_row_R: jax.Array | np.ndarray
    scale_S: jax.Array | np.ndarray

    def choice_AxBxS(self) -> jax.Array:
        """One-hot seats of the rows, which come in A blocks; -1 chooses none."""
        A = sharding.blocks()
        of_row_AxB = jnp.reshape(self.of_row_R, (A, -1))
        return jax.nn.one_hot(of_row_AxB, self.scale_S.shape[0] // A, dtype=jnp.float32)


class Beside(NamedTuple):
    """What a microbatch's costs may need beside its rows.

    Attributes:
      key: switches the dropout on the adapters' input on (`model.config.lora_dropout`).
      reference: `Objective.reference`.
    """

    key: jax.Array | None = None
    reference: Reference | None = None


ALONE = Beside()


def _by_seat(value_R: jax.Array, choice_AxBxS: jax.Array) -> jax.Array:
    """Sums of a value over each seat's rows."""
    value_AxBx1 = value_R.reshape(*choice_AxBxS.shape[:2], 1)
    return jnp.where(choice_AxBxS > 0, value_AxBx1, 0).sum(1).reshape(-1)  # NaN stays in its seat


def _row_costs(
    row: RowCost,
    model: Model,
    adapters_S: Adapters | None,
    batch: Batch,
    seats: Seats,
    beside: Beside = ALONE,
) -> jax.Array:
    """What each row costs, fp32 (R,); arguments as for `accumulate`."""
    one = seats.scale_S.shape[0] == 1
    to = () if beside.reference is None else (beside.reference,)
    if adapters_S is None:  # the model itself is trained, with a seat axis of one
        trained = Model(model.config, jax.tree.map(lambda x: x[0], model.params))
        return row(trained, decoder.hidden(trained, None, batch), batch, *to)
    adapters_S = Adapters(adapters_S.config, scale_updates(adapters_S.tree, seats.scale_S))
    adapters = adapters_S[0] if one else adapters_S
    choice = None if one else seats.choice_AxBxS()
    return row(model, decoder.hidden(model, adapters, batch, choice, beside.key), batch, *to)


@functools.partial(jax.jit, static_argnames=("row",), donate_argnames=("total",))
def accumulate(
    row: RowCost,
    model: Model,
    adapters_S: Adapters | None,
    total: Accumulated,
    batch: Batch,
    seats: Seats,
    beside: Beside = ALONE,
) -> Accumulated:
    """Adds one microbatch's gradients, costs and token counts to the sums of the step.

    Args:
      row: what a row costs (of `Objective.rows`).
      model: the frozen base; without adapters what is trained, each leaf with a seat axis of one.
      adapters_S: what is trained, a stack of one adapter a seat; None trains the whole model.
    """

    def cost(trainable: Tree) -> tuple[jax.Array, jax.Array]:
        if adapters_S is None:
            trained = Model(model.config, trainable)
            cost_R = _row_costs(row, trained, None, batch, seats, beside)
        else:
            trained_S = Adapters(adapters_S.config, trainable)
            cost_R = _row_costs(row, model, trained_S, batch, seats, beside)
        return jnp.sum(cost_R), cost_R

    trainable = model.params if adapters_S is None else adapters_S.tree
    grads, cost_R = jax.grad(cost, has_aux=True)(trainable)
    choice_AxBxS = seats.choice_AxBxS()
    return sharding.constrain(
        Accumulated(
            jax.tree.map(jnp.add, total.grads, grads),
            total.cost_S + _by_seat(cost_R, choice_AxBxS),
            total.tokens_S + _by_seat(batch.weight_BxT.sum(1), choice_AxBxS),
        )
    )


@functools.partial(jax.jit, static_argnames=("row",))
def heldout(
    row: RowCost, model: Model, adapters_S: Adapters | None, batch: Batch, seats: Seats
) -> jax.Array:
    """Costs and target tokens of a batch by seat (2, S), on every device; see `accumulate`."""
    choice_AxBxS = seats.choice_AxBxS()
    cost_R = _row_costs(row, model, adapters_S, batch, seats)
    sums = _by_seat(cost_R, choice_AxBxS), _by_seat(batch.weight_BxT.sum(1), choice_AxBxS)
    return sharding.replicate(jnp.stack(sums))


class Rates(NamedTuple):
    """What an update does in each seat.

    Attributes:
      lr_S: learning rates, fp32.
      running_S: whether the seat's task takes part in this step.
    """

    lr_S: jax.Array | np.ndarray
    running_S: jax.Array | np.ndarray


@functools.partial(jax.jit, static_argnames=("config",), donate_argnames=("state", "total"))
def update(
    config: OptimizerConfig,
    state: TrainState,
    total: Accumulated,
    rates: Rates,
    stop_D: jax.Array,
    penalty: Quadratic | None = None,
    trained: Tree | None = None,
) -> tuple[TrainState, dict[str, jax.Array], Accumulated]:
    """One optimizer update of every running task with a finite loss; the others stay as they are.

    Args:
      state: of the tasks in S seats.
      stop_D: above 0 where a process was asked to stop.
      penalty: of the tasks in seats (`Objective.penalty`).
      trained: `Objective.trained`.

    Returns:
      The new state; metrics, on every device: per seat `loss_S` in nats per target token (without
      the penalty), `grad_norm_S` and `alive_S`, and `stop`, the largest of `stop_D`; and the sums,
      set back to zero in place.
    """
    adamw = direction(config)

    def one(
        state: TrainState, total: Accumulated, rates: Rates, penalty: Quadratic | None
    ) -> tuple[TrainState, jax.Array]:
        lr, running = rates
        grads = jax.tree.map(lambda g: g / jnp.maximum(total.tokens_S, 1), total.grads)
        if penalty is not None:
            grads = jax.tree.map(jnp.add, grads, penalty.gradient(state.trainable))
        if trained is not None:
            grads = jax.tree.map(jnp.multiply, grads, trained)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(total.cost_S) & jnp.isfinite(norm)
        alive = state.alive_M & (finite | ~running)
        change, optimizer = adamw.update(grads, state.optimizer, state.trainable)
        if trained is not None:  # weight decay, too
            change = jax.tree.map(jnp.multiply, change, trained)
        new = jax.tree.map(lambda p, d: (p - lr * d).astype(p.dtype), state.trainable, change)
        # Adapters must stay finite: every row's is chosen by a product with all of them.
        alive &= jnp.isfinite(optax.tree.norm(new)) | ~running
        active = alive & running

        def keep(new: Tree, old: Tree) -> Tree:
            return jax.tree.map(lambda n, o: jnp.where(active, n, o), new, old)

        trainable, optimizer = keep(new, state.trainable), keep(optimizer, state.optimizer)
        return TrainState(trainable, optimizer, state.step_M + active, alive), norm

    best = state.best
    state, norm_S = jax.vmap(one)(state._replace(best=None), total, rates, penalty)
    metrics = {
        "loss_S": total.cost_S / jnp.maximum(total.tokens_S, 1),
        "grad_norm_S": norm_S,
        "alive_S": state.alive_M,
        "stop": jnp.max(stop_D),
    }
    zero = jax.tree.map(jnp.zeros_like, total)
    state = sharding.constrain(state._replace(best=best))
    return state, sharding.replicate(metrics), sharding.constrain(zero)
