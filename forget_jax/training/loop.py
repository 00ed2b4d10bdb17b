"""The training loop: steps one after the other, their log, held-out losses and checkpoints."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from forget_jax.errors import UserError
from forget_jax.lm import decoder, lora
from forget_jax.runs.progress import Progress
from forget_jax.training.ahead import compile_ahead
from forget_jax.training.checkpoints import Checkpoints
from forget_jax.training.optimizer import SCHEDULES, OptimizerConfig
from forget_jax.training.plan import LoopConfig, StepPlan, Task
from forget_jax.training.run import Failure, Metrics, Run
from forget_jax.training.stop import Interrupted, StopSignal

__all__ = ["Interrupted", "LoopConfig", "Outcome", "StepPlan", "Task", "train"]

Tree = Any


class Outcome(NamedTuple):
    """What training gives.

    Attributes:
      trainable: the trained tree, task axis first, in the order of the tasks; a task that failed
        has its last finite state.
      steps: by task name, the updates behind its result.
      failures: by task name, why it failed.
    """

    trainable: Tree
    steps: dict[str, int]
    failures: dict[str, Failure]


def train(
    model: decoder.DecoderConfig,
    adapter: lora.LoRAConfig | None,
    base: Tree,
    tasks: Sequence[Task],
    optimizer: OptimizerConfig,
    config: LoopConfig,
    checkpoints: Checkpoints | None = None,
    *,
    initial: Tree | None = None,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
    on_save: Callable[[], None] = lambda: None,
    what: str = "train",
) -> Outcome:
    """Trains all tasks together, on the entered mesh or on one device.

    Resumes from the newest checkpoint. Metrics of a step are fetched after the next one has been
    dispatched, so the device never waits for the log. A task whose loss is not finite stops there,
    and the others go on.

    Args:
      adapter: None trains the whole model (one task).
      initial: the trainable tree to start from (task axis first); None starts from fresh adapters,
        or from the base.
      log: called with one record per step: step (from 1), loss per task, tokens, seconds, and
        held-out losses where they were taken.
      on_save: called before a checkpoint is written, so that the log is never behind it.

    Raises:
      UserError: an unknown schedule, or rows that the mesh cannot share.
      Interrupted: SIGINT or SIGTERM came; a checkpoint has been saved.
    """
    for schedule in [optimizer.schedule, *(t.schedule for t in tasks if t.schedule)]:
        if schedule.kind not in SCHEDULES:
            raise UserError(
                f"train.schedule is {schedule.kind!r}; it must be one of {', '.join(SCHEDULES)}"
            )
    run = Run(model, adapter, base, tasks, optimizer, config, checkpoints, initial)
    report = Reporter(run, log)
    pending: Metrics | None = None
    with StopSignal() as stop, Progress(what, run.plan.total, run.number) as progress:
        compile_ahead(run)
        while run.number < run.plan.total:
            now = run.step(stop.came)
            if pending is not None:
                progress.at(*report(pending))
            pending = now
            asked = report.asked if jax.process_count() > 1 else stop.came
            save = asked or bool(config.save_every and run.number % config.save_every == 0)
            if save or run.check_due():
                heldout = run.check_heldout() if run.check_due() else None
                progress.at(*report(pending, heldout))  # a failure is known before it is saved
                pending = None
            if save:
                on_save()
                run.save()
            if asked:
                if checkpoints is not None:
                    checkpoints.wait()
                raise Interrupted(f"{what} stopped at step {run.number} of {run.plan.total}")
            progress.total = run.plan.total
        if pending is not None:
            progress.at(*report(pending))
        on_save()
        run.save()
    if checkpoints is not None:
        checkpoints.wait()
    trainable, updates = run.trained()
    return Outcome(trainable, updates, run.failures)


class Reporter:
    """Fetches and logs the metrics of each step, and finds the tasks that failed."""

    def __init__(self, run: Run, log: Callable[[dict[str, Any]], None]):
        self.run, self.log = run, log
        self.asked = False  # whether any process was asked to stop
        self.before = time.monotonic()
        self.first: float | None = None  # when the first step was done: compilation lies before it
        self.tokens = 0  # done since then

    def __call__(self, step: Metrics, heldout: dict[str, float] | None = None) -> tuple[int, str]:
        """Logs a step; returns what `Progress.at` takes."""
        values = {name: np.asarray(x) for name, x in step.values.items()}
        now = time.monotonic()
        seconds, self.before = max(now - self.before, 1e-6), now
        self.asked |= bool(values["stop"] > 0)
        run, losses, norms = self.run, {}, {}
        running = set(run.plan.running(step.number - 1).tolist())
        for s, m in enumerate(step.seats.tolist()):
            if m not in running or run.failed_M[m]:
                continue
            task = run.tasks[m].name
            losses[task] = float(values["loss_M"][s])
            norms[task] = float(values["grad_norm_M"][s])
            if not values["alive_M"][s]:
                print(run.fail(m, step.number, losses[task]).line(task), file=sys.stderr)
        record = {
            "step": step.number,
            "loss": losses,
            "grad_norm": norms,
            "tokens": step.tokens,
            "computed": step.computed,
            "flops": step.flops,
            "seconds": round(seconds, 6),
        }
        self.log(record if heldout is None else record | {"heldout": heldout})
        note = f"loss {np.mean(list(losses.values())):.3f}" if losses else "no task is left"
        if self.first is None:
            self.first = now
        else:
            self.tokens += step.tokens
            note += f" · {self.tokens / (now - self.first):,.0f} tokens/s"
        return step.number, note
