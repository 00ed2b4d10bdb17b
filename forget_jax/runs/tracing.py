"""What watches a training: a profiler trace of some steps, and TensorBoard events."""

import sys
from typing import Any

import jax

from forget_jax import distributed
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike


class Watch:
    """Called with every record of a training; use as a context manager."""

    def __init__(
        self, folder: PathLike, stage: str, *, trace: int, trace_steps: int, tensorboard: bool
    ):
        """Starts to watch.

        Args:
          folder: of the run; it gets `trace/` and `tensorboard/`.
          stage: names the training in TensorBoard.
          trace: the first step to trace, for xprof or Perfetto; 0 traces none. The very first step
            of a start, which is mostly compilation, is never traced: where only that one is asked
            for, the next one is.
          trace_steps: how many steps to trace.
          tensorboard: whether losses, gradient norms and rates are written as events.

        Raises:
          UserError: tensorboardX is not installed.
        """
        self.first, self.last = trace, trace + trace_steps - 1
        self.folder = Path(folder) / "trace"
        self.tracing = False
        self.seen = self.traced = 0  # the newest step, and how often a trace began
        self.writer: Any = None
        if tensorboard and distributed.is_writer():
            try:
                from tensorboardX import SummaryWriter
            except ImportError as e:
                raise UserError(
                    "train.tensorboard=true needs tensorboardX: pip install '.[tensorboard]'"
                ) from e
            events = Path(folder) / "tensorboard" / stage.replace("/", "-")
            self.writer = SummaryWriter(str(events))

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()
        if self.seen and self.first and not self.traced and self.last >= self.seen:
            print(
                f"train.trace={self.first} has traced nothing: the training ended at step "
                f"{self.seen}, before it",
                file=sys.stderr,
            )
        if self.writer is not None:
            self.writer.close()

    def _stop(self) -> None:
        if self.tracing:
            jax.profiler.stop_trace()
            self.tracing = False

    def __call__(self, record: dict[str, Any]) -> None:
        """Takes one record of the loop. It comes one step late: step A is already under way."""
        step = record["step"]
        if not self.seen and step == self.last:
            self.last += 1
        self.seen = step
        if self.first and not self.tracing and self.first <= step + 1 <= self.last:
            jax.profiler.start_trace(str(self.folder))
            self.tracing, self.traced = True, self.traced + 1
        elif step >= self.last:
            self._stop()
        if self.writer is None:
            return
        self.writer.add_scalar("tokens_per_second", record["tokens"] / record["seconds"], step)
        for kind in ("loss", "grad_norm", "heldout"):
            for task, value in record.get(kind, {}).items():
                self.writer.add_scalar(f"{kind}/{task}", value, step)
