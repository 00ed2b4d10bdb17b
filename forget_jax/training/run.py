"""A run in progress: the state of all tasks, which of them sit in seats, and how a step is made."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.data.batches import Buckets
from forget_jax.data.feed import feed
from forget_jax.lm import sharding
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.cost import flops
from forget_jax.lm.lora import LoRAConfig
from forget_jax.lm.model import Adapters, Batch, Model
from forget_jax.randomness import key
from forget_jax.training import optimizer as optimizers
from forget_jax.training import state as states
from forget_jax.training import step as steps
from forget_jax.training.checkpoints import Checkpoints
from forget_jax.training.objective import Objective, Quadratic, RowCost
from forget_jax.training.plan import Microbatch, StepPlan, Task, cut
from forget_jax.training.settings import Train
from forget_jax.training.state import TrainState
from forget_jax.types import Tree


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


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How tasks are fine-tuned.

    Attributes:
      train: steps, batches, optimizer and how often is saved.
      lora: None trains the whole model.
      objective: what is minimised.
      frozen: of a whole model that is trained, so many of the lowest layers, and the embeddings
        below them, stay as they are.
    """

    train: Train
    lora: LoRAConfig | None = None
    objective: Objective = dataclasses.field(default_factory=Objective)
    frozen: int = 0

    def plan(
        self, config: DecoderConfig, tasks: Sequence[Task], blocks: int = 1, multiple: int = 1
    ) -> StepPlan:
        """What the steps of tasks consist of, on a model of this config; see `StepPlan`."""
        token_flops = flops.training(config, flops.Work(tokens=1, targets=1), self.lora)
        return StepPlan(tasks, self.train, blocks, multiple, token_flops)


class Run:
    """All tasks' state (`full`) and that of the tasks in seats, which is what a step trains.

    While every task sits, the seated state is all there is and `full` is None.
    """

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        tasks: Sequence[Task],
        checkpoints: Checkpoints | None = None,
        initial: Tree | None = None,
    ):
        self.lora, self.train, self.objective = recipe.lora, recipe.train, recipe.objective
        penalty = self.objective.penalty
        if penalty is not None and not np.any(sharding.fetch(penalty.strength_M)):
            # Even a sum with zeros is compiled into another program, which rounds otherwise.
            self.objective = dataclasses.replace(self.objective, penalty=None)
        optimizer, self.schedule = optimizers.of(recipe.train)
        self.optimizer = dataclasses.replace(optimizer, frozen=recipe.frozen)
        dropout = self.lora.dropout if self.lora is not None else 0.0
        self.config = dataclasses.replace(
            model.config, remat=self.train.remat, lora_dropout=dropout
        )
        self.tasks, self.checkpoints = tasks, checkpoints
        self.frozen = model.params if self.lora is not None else {}
        blocks = sharding.blocks()
        self.flops = flops.of_training(self.config, self.lora)
        self.plan = recipe.plan(model.config, tasks, blocks, sharding.row_shards() // blocks)
        self.has_heldout = any(task.heldout for task in tasks)
        self.failures: dict[str, Failure] = {}
        self.failed_M = np.zeros(len(tasks), bool)
        self.failed_loss_M = np.zeros(len(tasks), np.float32)
        self.number = 0
        self.parts: list[Microbatch] = []  # of the step in progress
        count = self.plan.seat_counts[0]

        def fresh(base: Tree, initial: Tree | None) -> TrainState:
            if initial is None:
                initial = states.fresh_trainable(self.lora, base, tasks, count)
            state = states.init_state(self.optimizer, initial, self.has_heldout)
            return states.resize(state, count)

        self.seated: TrainState = jax.jit(fresh)(model.params, initial)
        self.seats = np.pad(np.arange(len(tasks)), (0, count - len(tasks)), constant_values=-1)
        self.full: TrainState | None = None
        self.saved: int | None = None
        if checkpoints is not None and checkpoints.latest() is not None:
            self._restore(checkpoints)
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

    def _restore(self, checkpoints: Checkpoints) -> None:
        found = checkpoints.restore(self._kept())
        if found is None:
            return
        self.saved, kept = found
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

    def values(self, state: TrainState | None = None) -> tuple[Model, Adapters | None]:
        """Model and adapters as `steps.accumulate` takes them: of the seats, or of a state."""
        trainable = (self.seated if state is None else state).trainable
        if self.lora is None:
            return Model(self.config, trainable), None
        return Model(self.config, self.frozen), Adapters(self.lora, trainable)

    def _of_seats(self, value: Callable[[int], Any], empty: Any) -> np.ndarray:
        return np.array([value(int(m)) if m >= 0 else empty for m in self.seats])

    def _scale_S(self) -> np.ndarray:
        return self._of_seats(lambda m: self.tasks[m].scale, 1.0).astype(np.float32)

    def _rate(self, m: int) -> float:
        task = self.tasks[m]
        return (task.schedule or self.schedule).rate(self.number, task.steps)

    def beside(self, part: int) -> steps.Beside:
        """What a microbatch's costs need beside its rows; dropout's key is of its place alone."""
        own = None
        if self.config.lora_dropout:
            own = key(self.tasks[0].seed, "dropout", self.number, part)
        return steps.Beside(own, self.objective.reference)

    def microbatches(self) -> Iterator[tuple[RowCost, Batch, steps.Seats, steps.Beside]]:
        """The step's microbatches on their way to the devices, with what its rows cost."""
        self._sit(self.plan.seats(self.number))
        self.parts, scale_S = list(self.plan.microbatches(self.number)), self._scale_S()
        for i, part in enumerate(self.parts):
            batch = feed(self.plan.examples, part.shape, part.rows)
            row = self.objective.rows[part.cost]
            yield row, batch, steps.Seats(part.seat_R, scale_S), self.beside(i)

    def rates(self) -> steps.Rates:
        """Learning rates of this step, and which seats take part in it."""
        running = set(self.plan.running(self.number).tolist())
        lr_S = self._of_seats(self._rate, 0.0).astype(np.float32)
        return steps.Rates(lr_S, self._of_seats(lambda m: m in running, False))

    def penalty(self) -> Quadratic | None:
        """What the parameters of the tasks in seats cost."""
        whole = self.objective.penalty
        return (
            None if whole is None else jax.tree.map(lambda x: x[np.maximum(self.seats, 0)], whole)
        )

    def update(self, stop: bool) -> Metrics:
        """Dispatches the step's update; `stop` says that this process was asked to stop."""
        rows = self.plan.rows(self.number)
        done = flops.work(self.config, self.plan.lengths[rows], int(self.plan.targets[rows].sum()))
        asked = sharding.spread(np.array([stop], np.float32))
        self.seated, values, self.sums = steps.update(
            self.optimizer,
            self.seated,
            self.sums,
            self.rates(),
            asked,
            self.penalty(),
            self.objective.trained,
        )
        self.number += 1
        tokens = sum(part.real for part in self.parts)
        computed = sum(part.shape.rows * part.shape.length for part in self.parts)
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
        every, task = self.train.save_every, self.tasks[m]
        saved = (step - 1) // every * every if every and self.checkpoints is not None else 0
        found = Failure(
            step, float(self.failed_loss_M[m]), self.plan.names(m, step - 1), saved or None
        )
        self.failures[task.name] = found
        return found

    # Held-out losses.

    def check_due(self) -> bool:
        """Whether held-out losses are taken after this step: regularly, and when a task ends."""
        every = self.number % self.train.eval_every == 0 or self.number in self.plan.end_M
        return self.has_heldout and every

    def _heldout_parts(self) -> Iterator[tuple[Batch, steps.Seats]]:
        mine = [int(m) for m in self.seats if m >= 0]
        examples = [e for m in mine for e in self.tasks[m].heldout]
        task_of = np.repeat(mine, [len(self.tasks[m].heldout) for m in mine])
        buckets = Buckets.of([e for t in self.tasks for e in t.heldout], self.train.buckets)
        parts = cut(
            np.arange(len(examples)),
            np.array([len(e.ids) for e in examples]),
            task_of,
            self.seats.reshape(self.plan.blocks, -1),
            buckets,
            self.plan.room,
        )
        scale_S = self._scale_S()
        for part in parts:
            yield feed(examples, part.shape, part.rows), steps.Seats(part.seat_R, scale_S)

    def check_heldout(self) -> dict[str, float]:
        """Held-out losses of the running tasks; keeps the best states, ends those that are done."""
        cost_S, tokens_S = np.zeros((2, len(self.seats)))
        model, adapters_S = self.values()
        for batch, seats in self._heldout_parts():
            cost, tokens = np.asarray(
                steps.heldout(self.objective.rows[0], model, adapters_S, batch, seats)
            )
            cost_S, tokens_S = cost_S + cost, tokens_S + tokens
        running = set(self.plan.running(self.number - 1).tolist())
        checked_S = np.array([m in running for m in self.seats.tolist()]) & (tokens_S > 0)
        loss_S = np.where(checked_S, cost_S / np.maximum(tokens_S, 1), np.nan).astype(np.float32)
        self.seated = states.keep_best(self.seated, loss_S)
        assert self.seated.best is not None
        best_S = sharding.fetch(self.seated.best.step_M)
        for s in np.flatnonzero(checked_S):
            m = int(self.seats[s])
            patience = self.tasks[m].patience * self.train.eval_every
            late = patience and self.number - int(best_S[s]) >= patience
            if late or loss_S[s] < self.tasks[m].goal:
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
