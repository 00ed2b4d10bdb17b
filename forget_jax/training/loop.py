"""The training loop: steps one after the other, their log, held-out losses and checkpoints."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from forget_jax.lm.model import Model
from forget_jax.runs.progress import Progress
from forget_jax.training.ahead import compile_ahead
from forget_jax.training.checkpoints import Checkpoints
from forget_jax.training.plan import StepPlan, Task
from forget_jax.training.run import Failure, Metrics, Recipe, Run
from forget_jax.training.step import accumulate
from forget_jax.training.stop import Interrupted, StopSignal
from forget_jax.types import Tree

__all__ = ["Interrupted", "Listener", "Outcome", "Recipe", "StepPlan", "Task", "train"]


SLOW = 4.0  # seconds of a step within which people want to see something move


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


@dataclasses.dataclass(frozen=True)
class Listener:
    """Who is told how training goes.

    Attributes:
      what: names the run on the progress line.
      log: called with one record per step: step (from 1), loss per task, tokens, seconds, and
        held-out losses where they were taken.
      on_save: called before a checkpoint is written, so that the log is never behind it.
      on_start: called with the step that the run goes on from.
    """

    what: str = "train"
    log: Callable[[dict[str, Any]], None] = lambda record: None
    on_save: Callable[[], None] = lambda: None
    on_start: Callable[[int], None] = lambda step: None


def train(
    model: Model,
    recipe: Recipe,
    tasks: Sequence[Task],
    checkpoints: Checkpoints | None = None,
    *,
    initial: Tree | None = None,
    until: int | None = None,
    listener: Listener = Listener(),
) -> Outcome:
    """Trains all tasks together, on the entered mesh or on one device.

    Resumes from the newest checkpoint. Metrics of a step are fetched after the next one has been
    dispatched, so the device never waits for the log. A task whose loss is not finite stops there,
    and the others go on.

    Args:
      model: the base; without adapters (`recipe.lora` None) one task trains all of it.
      initial: the trainable tree to start from (task axis first); None starts from fresh adapters,
        or from the base.
      until: ends after so many steps of a run whose schedules are those of its full length; a later
        call with the same checkpoints goes on from there. None trains to the end.

    Raises:
      UserError: rows that the mesh cannot share.
      Interrupted: SIGINT or SIGTERM came; a checkpoint has been saved.
    """
    run = Run(model, recipe, tasks, checkpoints, initial)
    listener.on_start(run.number)
    report = Reporter(run, listener.log)
    every, pending = recipe.train.save_every, None

    def end() -> int:
        return run.plan.total if until is None else min(until, run.plan.total)

    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(listener.what, end(), run.number))
        compile_ahead(run, end(), progress.doing)
        stop = stack.enter_context(StopSignal())  # from now on there is something to save
        while run.number < end():
            slow = report.is_slow()
            for number, (row, batch, seats, beside) in enumerate(run.microbatches(), 1):
                run.sums = accumulate(row, *run.values(), run.sums, batch, seats, beside)
                if slow:
                    jax.block_until_ready(run.sums.tokens_S)
                    progress.doing(f"{number} of {len(run.parts)} batches of the next step done")
            now = run.update(stop.came)
            if pending is not None:
                progress.at(*report(pending))
            pending = now
            asked = report.asked if jax.process_count() > 1 else stop.came
            save = asked or bool(every and run.number % every == 0)
            if save or run.check_due():
                heldout = run.check_heldout() if run.check_due() else None
                progress.at(*report(pending, heldout))  # a failure is known before it is saved
                pending = None
            elif slow:
                progress.at(*report(pending))
                pending = None
            if save:
                listener.on_save()
                run.save()
            if asked:
                if checkpoints is not None:
                    checkpoints.wait()
                raise Interrupted(f"{listener.what} stopped at step {run.number} of {end()}")
            progress.total = end()
        if pending is not None:
            progress.at(*report(pending))
        listener.on_save()
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
        self.seconds = 0.0  # that the last step took
        self.first: float | None = None  # when the first step was done: compilation lies before it
        self.tokens = 0  # done since then

    def is_slow(self) -> bool:
        """Whether to wait for each batch of the coming step, so that something moves within it.

        Processes of one run, whose clocks differ, would part over when a step is reported.
        """
        return jax.process_count() == 1 and (self.first is None or self.seconds > SLOW)

    def __call__(self, step: Metrics, heldout: dict[str, float] | None = None) -> tuple[int, str]:
        """Logs a step; returns what `Progress.at` takes."""
        values = {name: np.asarray(x) for name, x in step.values.items()}
        now = time.monotonic()
        self.seconds, self.before = max(now - self.before, 1e-6), now
        self.asked |= bool(values["stop"] > 0)
        run, losses, norms = self.run, {}, {}
        running = set(run.plan.running(step.number - 1).tolist())
        for s, m in enumerate(step.seats.tolist()):
            if m not in running or run.failed_M[m]:
                continue
            task = run.tasks[m].name
            losses[task] = float(values["loss_S"][s])
            norms[task] = float(values["grad_norm_S"][s])
            if not values["alive_S"][s]:
                print(run.fail(m, step.number, losses[task]).line(task), file=sys.stderr)
        record = {
            "step": step.number,
            "loss": losses,
            "grad_norm": norms,
            "tokens": step.tokens,
            "computed": step.computed,
            "flops": step.flops,
            "seconds": round(self.seconds, 6),
        }
        self.log(record if heldout is None else record | {"heldout": heldout})
        note = f"loss {np.mean(list(losses.values())):.3f}" if losses else "no task is left"
        if self.first is None:
            self.first = now
        else:
            self.tokens += step.tokens
            note += f" · {self.tokens / (now - self.first):,.0f} tokens/s"
        return step.number, note
