"""The training loop: plans each step's microbatches, runs the pure step, logs and checkpoints."""

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.data import batches, order
from forget_jax.data.batches import Batch, Buckets
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.lm import decoder, lora
from forget_jax.progress import Progress
from forget_jax.training import step as steps
from forget_jax.training.checkpoints import Checkpoints

Tree = Any


@dataclasses.dataclass(frozen=True)
class Task:
    """One data set to train on, with its own seed and number of steps.

    Attributes:
      order: indices into the examples in the order they are consumed, at least steps x batch_size
        of them; None reshuffles every epoch by the seed.
      rank: trains only this many of the adapter's ranks, the others stay zero; 0 trains all. So
        tasks of different ranks train together.
      scale: a factor on the task's low-rank update, beside the adapter's own scaling.
    """

    name: str
    examples: Sequence[Encoded]
    seed: int
    steps: int
    order: np.ndarray | None = None
    rank: int = 0
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How steps are cut into microbatches and how often the run is saved.

    Attributes:
      batch_size: examples of each task in a step.
      microbatch: rows of a microbatch.
      buckets: the most row lengths to compile for.
      save_every: steps between checkpoints; 0 saves only the end.
    """

    batch_size: int = 8
    microbatch: int = 8
    buckets: int = 4
    save_every: int = 0


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop (SIGINT, SIGTERM) and has saved a checkpoint."""


class StepPlan:
    """Which rows make up each step: a pure function of tasks, config and step number."""

    def __init__(self, tasks: Sequence[Task], config: LoopConfig):
        self.tasks, self.config = tasks, config
        self.examples = [e for task in tasks for e in task.examples]
        self.offset = np.cumsum([0] + [len(task.examples) for task in tasks])
        self.task_of = np.repeat(np.arange(len(tasks)), [len(t.examples) for t in tasks])
        self.lengths = np.array([len(e.ids) for e in self.examples])
        self.buckets = Buckets.of(self.examples, config.buckets)

    def rows(self, step: int) -> np.ndarray:
        """Indices into `examples` of all rows of a step, of the tasks that still run."""
        start, size = step * self.config.batch_size, self.config.batch_size
        chosen = []
        for m, t in enumerate(self.tasks):
            if step < t.steps and t.order is not None:
                chosen.append(self.offset[m] + t.order[start : start + size])
            elif step < t.steps:
                chosen.append(self.offset[m] + order.rows(t.seed, len(t.examples), start, size))
        return np.concatenate(chosen)

    def microbatches(self, step: int) -> Iterator[tuple[Batch, np.ndarray, int]]:
        """A step's microbatches, sorted by length: batch, task of each row, real tokens."""
        index = self.rows(step)
        plan = batches.bucketed(self.lengths[index].tolist(), self.buckets, self.config.microbatch)
        for shape, rows in plan:
            chosen = [(int(index[i]),) for (i,) in rows]
            task_B = np.full(shape.rows, -1, np.int32)
            task_B[: len(chosen)] = self.task_of[[i for (i,) in chosen]]
            real = int(self.lengths[[i for (i,) in chosen]].sum())
            yield batches.assemble(self.examples, shape, chosen), task_B, real

    def useful_fraction(self, sample: int = 10) -> float:
        """Real tokens over tokens computed, in the first steps."""
        count = min(sample, max(t.steps for t in self.tasks))
        sizes = [
            (real, b.ids_BxL.size) for s in range(count) for b, _, real in self.microbatches(s)
        ]
        return sum(real for real, _ in sizes) / sum(size for _, size in sizes)


def fresh_state(
    optimizer: steps.OptimizerConfig,
    adapter: lora.LoRAConfig | None,
    base: Tree,
    tasks: Sequence[Task],
) -> steps.TrainState:
    """The state before the first step: an adapter per task from its seed, or the base itself."""
    if adapter is None:
        if len(tasks) != 1:
            raise UserError("full fine-tuning trains one task at a time; set lora.rank above 0")
        return steps.init_state(
            optimizer, jax.tree.map(lambda x: x.astype(jnp.float32)[None], base)
        )
    each = [lora.init(adapter, base, jax.random.key(task.seed)) for task in tasks]
    each = [_lower_rank(one, task.rank) for one, task in zip(each, tasks, strict=True)]
    if not jax.tree.leaves(each[0]):
        raise UserError(f"lora.targets {adapter.targets!r} matches no linear layer of this model")
    return steps.init_state(optimizer, jax.tree.map(lambda *x: jnp.stack(x), *each))


def _lower_rank(adapters: Tree, rank: int) -> Tree:
    """Zeroes `a` beyond a rank. With `b` zero too, neither ever receives a gradient."""
    if not rank:
        return adapters
    return jax.tree.map_with_path(
        lambda path, x: x.at[..., rank:].set(0) if path[-1].key == "a" else x, adapters
    )


def _dropout_key(
    adapter: lora.LoRAConfig | None, tasks: Sequence[Task], step: int, part: int
) -> jax.Array | None:
    """The key of a microbatch's dropout, a function of its place alone; None without dropout."""
    if adapter is None or not adapter.dropout:
        return None
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(tasks[0].seed), step), part)


def train(
    model: decoder.DecoderConfig,
    adapter: lora.LoRAConfig | None,
    base: Tree,
    tasks: Sequence[Task],
    optimizer: steps.OptimizerConfig,
    config: LoopConfig,
    checkpoints: Checkpoints | None = None,
    *,
    initial: Tree | None = None,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
    on_save: Callable[[], None] = lambda: None,
    what: str = "train",
) -> Tree:
    """Trains all tasks together and returns the trainable tree (task axis first).

    Resumes from the newest checkpoint. Metrics of a step are fetched after the next one has been
    dispatched, so the device never waits for the log.

    Args:
      initial: the trainable tree to start from (task axis first); None starts from fresh adapters,
        or from the base.
      log: called with one record per step: step (from 1), loss per task, tokens, seconds.
      on_save: called before a checkpoint is written, so that the log is never behind it.

    Raises:
      UserError: a loss that is not finite; the record of the step has been logged.
      Interrupted: SIGINT or SIGTERM came; a checkpoint has been saved.
    """
    if optimizer.schedule not in steps.SCHEDULES:
        raise UserError(
            f"train.schedule is {optimizer.schedule!r}; "
            f"it must be one of {', '.join(steps.SCHEDULES)}"
        )
    if adapter is not None and adapter.dropout:
        model = dataclasses.replace(model, lora_dropout=adapter.dropout)
    plan = StepPlan(tasks, config)
    state = (
        fresh_state(optimizer, adapter, base, tasks)
        if initial is None
        else steps.init_state(optimizer, jax.tree.map(jnp.copy, initial))
    )
    first = 0
    if checkpoints is not None and checkpoints.latest() is not None:
        state = checkpoints.restore(state)
        first = int(checkpoints.latest() or 0)
        state = jax.tree.map(jnp.asarray, state)
    total = max(task.steps for task in tasks)
    steps_M = jnp.array([task.steps for task in tasks], jnp.int32)
    scale_M = jnp.array([task.scale for task in tasks], jnp.float32)
    sums = steps.zero_accumulated(state.trainable)
    frozen = base if adapter is not None else {}
    pending: tuple[int, dict[str, jax.Array], int] | None = None
    report = Reporter(tasks, log)
    stop = StopSignal()
    with stop, Progress(what, total, first) as progress:
        for number in range(first, total):
            tokens = 0
            for part, (batch, task_B, real) in enumerate(plan.microbatches(number)):
                key = _dropout_key(adapter, tasks, number, part)
                sums = steps.accumulate(
                    model, adapter, state.trainable, frozen, sums, batch, task_B, scale_M, key
                )
                tokens += real
            state, metrics, sums = steps.update(optimizer, state, sums, steps_M)
            if pending is not None:
                progress.at(*report(*pending))
            pending = (number + 1, metrics, tokens)
            save = config.save_every and (number + 1) % config.save_every == 0
            if checkpoints is not None and (save or number + 1 == total or stop.came):
                progress.at(*report(*pending))  # a loss that is not finite is never saved
                pending = None
                on_save()
                checkpoints.save(number + 1, state)
            if stop.came:
                if checkpoints is not None:
                    checkpoints.wait()
                raise Interrupted(f"{what} stopped at step {number + 1} of {total}")
        if pending is not None:
            progress.at(*report(*pending))
    if checkpoints is not None:
        checkpoints.wait()
    return state.trainable


class Reporter:
    """Fetches and logs the metrics of each step; stops the run where a loss is not finite."""

    def __init__(self, tasks: Sequence[Task], log: Callable[[dict[str, Any]], None]):
        self.tasks, self.log = tasks, log
        self.before = time.monotonic()
        self.first: float | None = None  # when the first step was done: compilation lies before it
        self.tokens = 0  # done since then

    def __call__(self, number: int, metrics: dict[str, jax.Array], tokens: int) -> tuple[int, str]:
        """Logs step `number` (from 1); returns what `Progress.at` takes."""
        loss_M, norm_M = np.asarray(metrics["loss_M"]), np.asarray(metrics["grad_norm_M"])
        now = time.monotonic()
        seconds, self.before = max(now - self.before, 1e-6), now
        running = [m for m, task in enumerate(self.tasks) if number <= task.steps]
        self.log(
            {
                "step": number,
                "loss": {self.tasks[m].name: float(loss_M[m]) for m in running},
                "grad_norm": {self.tasks[m].name: float(norm_M[m]) for m in running},
                "tokens": tokens,
                "seconds": round(seconds, 6),
            }
        )
        for m in running:
            if not np.isfinite(loss_M[m]):
                raise UserError(
                    f"the loss of {self.tasks[m].name} is {loss_M[m]} at step {number}; lower "
                    "train.lr or raise train.warmup, and start in a new workdir"
                )
        mean = float(np.mean(loss_M[running]))
        note = f"loss {mean:.3f}"
        if self.first is None:
            self.first = now
        else:
            self.tokens += tokens
            note += f" · {self.tokens / (now - self.first):,.0f} tokens/s"
        return number, note


class StopSignal:
    """While entered, the first SIGINT or SIGTERM becomes a request; a second one acts as usual."""

    def __init__(self) -> None:
        self.came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        self.came = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(self, *exc: object) -> None:
        self._restore()
