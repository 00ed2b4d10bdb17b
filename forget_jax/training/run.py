"""A run in progress: the state of all tasks, which of them sit in seats, and how a step is made."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.data.batches import Buckets
from forget_jax.lm import decoder, lora, sharding
from forget_jax.lm.cost import flops
from forget_jax.training import state as states
from forget_jax.training import step as steps
from forget_jax.training.checkpoints import Checkpoints
from forget_jax.training.optimizer import OptimizerConfig
from forget_jax.training.plan import LoopConfig, Microbatch, StepPlan, Task, cut
from forget_jax.training.state import TrainState

Tree = Any


class Failure(NamedTuple):
    """A task that stopped because its loss, or what an update makes of it, was not finite.

    Attributes:
      step: counted from 1.
      examples: names of the task's rows of that step.
      checkpoint: the last step saved before it, or None.
    """

    step: int
    loss: float
    examples: list[str]
    checkpoint: int | None

    def line(self, task: str) -> str:
        """One line for people."""
        what = "update" if np.isfinite(self.loss) else "loss"
        value = "not finite" if what == "update" else self.loss
        names = ", ".join(self.examples[:8]) + (", …" if len(self.examples) > 8 else "")
        saved = (
            "there is no checkpoint before it"
            if self.checkpoint is None
            else f"the last good checkpoint is of step {self.checkpoint}"
        )
        return f"the {what} of {task} is {value} at step {self.step} (examples {names}); {saved}"


class Metrics(NamedTuple):
    """What a step leaves to be fetched later.

    Attributes:
      number: of the step, from 1.
      seats: the task in each.
      tokens, computed: real tokens, and those computed with padding.
      flops: the model's, by `lm.flops`.
    """

    number: int
    seats: np.ndarray
    values: dict[str, jax.Array]
    tokens: int
    computed: int
    flops: float


class Run:
    """All tasks' state (`full`) and that of the tasks in seats, which is what a step trains.

    While every task sits, the seated state is all there is and `full` is None.
    """

    def __init__(
        self,
        model: decoder.DecoderConfig,
        adapter: lora.LoRAConfig | None,
        base: Tree,
        tasks: Sequence[Task],
        optimizer: OptimizerConfig,
        config: LoopConfig,
        checkpoints: Checkpoints | None = None,
        initial: Tree | None = None,
    ):
        if adapter is not None and adapter.dropout:
            model = dataclasses.replace(model, lora_dropout=adapter.dropout)
        self.model, self.adapter, self.tasks = model, adapter, tasks
        self.optimizer, self.config, self.checkpoints = optimizer, config, checkpoints
        self.frozen = base if adapter is not None else {}
        blocks = sharding.blocks()
        self.plan = StepPlan(tasks, config, blocks, sharding.rows() // blocks)
        self.flops = flops.of_training(model, adapter)
        self.has_heldout = any(task.heldout for task in tasks)
        self.failures: dict[str, Failure] = {}
        self.failed_M = np.zeros(len(tasks), bool)
        self.failed_loss_M = np.zeros(len(tasks), np.float32)
        self.number = 0
        count = self.plan.seat_counts[0]

        def fresh(base: Tree, initial: Tree | None) -> TrainState:
            if initial is None:
                initial = states.fresh_trainable(adapter, base, tasks, count)
            return states.resize(states.init_state(optimizer, initial, self.has_heldout), count)

        self.seated: TrainState = jax.jit(fresh)(base, initial)
        self.seats = np.pad(np.arange(len(tasks)), (0, count - len(tasks)), constant_values=-1)
        self.full: TrainState | None = None
        self.saved = checkpoints.latest() if checkpoints is not None else None
        if self.saved is not None:
            self._restore()
        self.sums = states.zero_like(self.seated)

    # What a checkpoint holds, and back.

    def _kept(self) -> dict[str, Any]:
        whole = self.seated if self.full is None else self.full
        return {
            "state": states.resize(whole, len(self.tasks)),
            "stopped_M": self.plan.stopped_M,
            "failed_M": self.failed_M,
            "failed_loss_M": self.failed_loss_M,
        }

    def _restore(self) -> None:
        assert self.checkpoints is not None and self.saved is not None
        kept = self.checkpoints.restore(self._kept())
        self.number = self.saved
        state = kept["state"]
        if sharding.current() is None:
            # Orbax commits arrays to the device; programs compiled for fresh ones would not fit.
            state = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), state)
        self.seated = states.resize(state, self.plan.seat_counts[0])
        self.plan.stopped_M, self.failed_M, self.failed_loss_M = (
            np.array(kept[name]) for name in ("stopped_M", "failed_M", "failed_loss_M")
        )
        step_M = sharding.fetch(self.seated.step_M)
        for m in np.flatnonzero(self.failed_M):
            self._name_failure(int(m), int(step_M[m]) + 1)

    def save(self) -> None:
        """Starts to write a checkpoint of all tasks."""
        if self.checkpoints is None or self.saved == self.number:
            return
        self._gather()
        self.checkpoints.save(self.number, self._kept())
        self.saved = self.number

    def _gather(self) -> None:
        """Brings the full state up to date with the seats."""
        if self.full is not None:
            self.full = states.give_back(self.full, self.seated, self.seats)

    def _sit(self, seats: np.ndarray) -> None:
        """Moves into other seats, where the plan says so."""
        if np.array_equal(seats, self.seats):
            return
        self._gather()
        self.full = self.seated if self.full is None else self.full
        self.seated, self.seats = states.take(self.full, seats), seats
        self.sums = states.zero_like(self.seated)

    # One step.

    def _of_seats(self, value: Callable[[int], Any], empty: Any) -> np.ndarray:
        return np.array([value(int(m)) if m >= 0 else empty for m in self.seats])

    def _scale_M(self, seats: np.ndarray) -> np.ndarray:
        return np.array([self.tasks[m].scale if m >= 0 else 1.0 for m in seats], np.float32)

    def _rate(self, m: int) -> float:
        task = self.tasks[m]
        return (task.schedule or self.optimizer.schedule).rate(self.number, task.steps)

    def dropout_key(self, part: int) -> jax.Array | None:
        """The key of a microbatch's dropout, a function of its place alone; None without."""
        if self.adapter is None or not self.adapter.dropout:
            return None
        key = jax.random.fold_in(jax.random.key(self.tasks[0].seed), self.number)
        return jax.random.fold_in(key, part)

    def step(self, stop: bool) -> Metrics:
        """Dispatches one step; `stop` says that this process was asked to stop."""
        self._sit(self.plan.seats(self.number))
        running = set(self.plan.running(self.number).tolist())
        tokens, computed, scale_M = 0, 0, self._scale_M(self.seats)
        for i, part in enumerate(self.plan.microbatches(self.number)):
            batch = sharding.feed(self.plan.examples, part.shape, part.rows)
            self.sums = steps.accumulate(
                self.model,
                self.adapter,
                self.seated.trainable,
                self.frozen,
                self.sums,
                batch,
                part.seat_R,
                scale_M,
                self.dropout_key(i),
            )
            tokens += part.real
            computed += part.shape.rows * part.shape.length
        rows = self.plan.rows(self.number)
        done = flops.work(self.model, self.plan.lengths[rows], int(self.plan.targets[rows].sum()))
        self.seated, values, self.sums = steps.update(
            self.optimizer,
            self.seated,
            self.sums,
            self._of_seats(self._rate, 0.0).astype(np.float32),
            self._of_seats(lambda m: m in running, False),
            sharding.spread(np.array([stop], np.float32)),
        )
        self.number += 1
        return Metrics(self.number, self.seats, values, tokens, computed, self.flops(done))

    def fail(self, m: int, step: int, loss: float) -> Failure:
        """Takes a task out: its loss at `step` (from 1) was not finite.

        The step after it is under way by then, or will hold the task's rows in any case: what the
        other tasks compute must not depend on when the loss was looked at.
        """
        self.failed_M[m], self.failed_loss_M[m] = True, loss
        self.plan.stop(m, step + 1)
        return self._name_failure(m, step)

    def _name_failure(self, m: int, step: int) -> Failure:
        every, task = self.config.save_every, self.tasks[m]
        saved = (step - 1) // every * every if every and self.checkpoints is not None else 0
        found = Failure(
            step, float(self.failed_loss_M[m]), self.plan.names(m, step - 1), saved or None
        )
        self.failures[task.name] = found
        return found

    # Held-out losses.

    def check_due(self) -> bool:
        """Whether held-out losses are taken after this step: regularly, and when a task ends."""
        every = self.number % self.config.eval_every == 0 or self.number in self.plan.end_M
        return self.has_heldout and every

    def _heldout_parts(self) -> list[tuple[Any, Microbatch]]:
        mine = [int(m) for m in self.seats if m >= 0]
        examples = [e for m in mine for e in self.tasks[m].heldout]
        task_of = np.repeat(mine, [len(self.tasks[m].heldout) for m in mine])
        buckets = Buckets.of([e for t in self.tasks for e in t.heldout], self.config.buckets)
        parts = cut(
            np.arange(len(examples)),
            np.array([len(e.ids) for e in examples]),
            task_of,
            self.seats.reshape(self.plan.blocks, -1),
            buckets,
            self.plan.tokens,
            self.plan.multiple,
        )
        return [(sharding.feed(examples, part.shape, part.rows), part) for part in parts]

    def check_heldout(self) -> dict[str, float]:
        """Held-out losses of the running tasks; keeps the best states, ends tasks past patience."""
        nll_S, tokens_S = np.zeros((2, len(self.seats)))
        scale_M = self._scale_M(self.seats)
        for batch, part in self._heldout_parts():
            nll, tokens = np.asarray(
                steps.heldout(
                    self.model,
                    self.adapter,
                    self.seated.trainable,
                    self.frozen,
                    batch,
                    part.seat_R,
                    scale_M,
                )
            )
            nll_S, tokens_S = nll_S + nll, tokens_S + tokens
        running = set(self.plan.running(self.number - 1).tolist())
        checked_S = np.array([m in running for m in self.seats.tolist()]) & (tokens_S > 0)
        loss_S = np.where(checked_S, nll_S / np.maximum(tokens_S, 1), np.nan).astype(np.float32)
        self.seated = states.keep_best(self.seated, loss_S)
        assert self.seated.best is not None
        best_S = sharding.fetch(self.seated.best.step_M)
        for s in np.flatnonzero(checked_S):
            m = int(self.seats[s])
            patience = self.tasks[m].patience * self.config.eval_every
            if patience and self.number - int(best_S[s]) >= patience:
                self.plan.stop(m, self.number)
        return {self.tasks[self.seats[s]].name: float(loss_S[s]) for s in np.flatnonzero(checked_S)}

    # The end.

    def trained(self) -> tuple[Tree, dict[str, int]]:
        """Every task's result, its best where held-out losses were taken; and its updates."""
        self._gather()
        whole = states.resize(self.seated if self.full is None else self.full, len(self.tasks))
        trainable, step_M = states.result(whole)
        updates = sharding.fetch(step_M).tolist()
        return trainable, dict(zip((t.name for t in self.tasks), updates, strict=True))
