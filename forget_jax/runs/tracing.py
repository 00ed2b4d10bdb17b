"""What watches a training: a profiler trace of some steps, and TensorBoard events."""

from typing import Any

import jax
from ml_collections import ConfigDict

from forget_jax import distributed
from forget_jax.errors import UserError
from forget_jax.runs.workdir import Workdir


class Watch:
    """Called with every record of a training; use as a context manager.

    train.trace=A writes a trace of train.trace_steps steps from A on to `trace/` of the workdir,
    for xprof or Perfetto; train.tensorboard writes losses, gradient norms and rates to
    `tensorboard/`.
    """

    def __init__(self, train: ConfigDict, work: Workdir, stage: str):
        self.first, self.last = train.trace, train.trace + train.trace_steps - 1
        self.folder = work / "trace"
        self.tracing = False
        self.writer: Any = None
        if train.tensorboard and distributed.is_writer():
            try:
                from tensorboardX import SummaryWriter
            except ImportError as e:
                raise UserError(
                    "train.tensorboard=true needs tensorboardX: pip install '.[tensorboard]'"
                ) from e
            self.writer = SummaryWriter(str(work / "tensorboard" / stage.replace("/", "-")))

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()
        if self.writer is not None:
            self.writer.close()

    def _stop(self) -> None:
        if self.tracing:
            jax.profiler.stop_trace()
            self.tracing = False

    def __call__(self, record: dict[str, Any]) -> None:
        """Takes one record of the loop. It comes one step late: step A is already under way."""
        step = record["step"]
        if self.first and not self.tracing and self.first <= step + 1 <= self.last:
            jax.profiler.start_trace(str(self.folder))
            self.tracing = True
        elif step >= self.last:
            self._stop()
        if self.writer is None:
            return
        self.writer.add_scalar("tokens_per_second", record["tokens"] / record["seconds"], step)
        for kind in ("loss", "grad_norm", "heldout"):
            for task, value in record.get(kind, {}).items():
                self.writer.add_scalar(f"{kind}/{task}", value, step)
