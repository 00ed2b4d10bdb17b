"""What watches a training: a profiler trace of some steps, TensorBoard events, a run of W&B."""

import hashlib
import sys
from typing import Any

import jax

from forget_jax import distributed, files
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike


class Watch:
    """Called with every record of a training; use as a context manager."""

    def __init__(
        self,
        folder: PathLike,
        stage: str,
        *,
        trace: int,
        trace_steps: int,
        tensorboard: bool,
        wandb: str = "",
    ):
        """Starts to watch.

        Args:
          folder: of the run; it gets `trace/` and `tensorboard/`, and names a group of W&B.
          stage: names the training in TensorBoard and W&B.
          trace: the first step to trace, for xprof or Perfetto; 0 traces none. The very first step
            of a start, which is mostly compilation, is never traced: where only that one is asked
            for, the next one is.
          trace_steps: how many steps to trace.
          tensorboard: whether losses, gradient norms and rates are written as events.
          wandb: project of W&B that these are sent to; empty: none. Where and how is W&B's own
            business (`wandb login`, WANDB_MODE=offline).

        Raises:
          UserError: tensorboardX or wandb is not installed, or W&B takes no run.
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
        self.run = _wandb(wandb, Path(folder), stage) if wandb and distributed.is_writer() else None

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
        if self.run is not None:
            self.run.finish(exit_code=int(exc[0] is not None))

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
        if self.writer is None and self.run is None:
            return
        scalars = {"tokens_per_second": record["tokens"] / record["seconds"]}
        for kind in ("loss", "grad_norm", "heldout"):
            scalars |= {f"{kind}/{task}": value for task, value in record.get(kind, {}).items()}
        if self.run is not None:
            self.run.log(scalars, step=step)
        if self.writer is not None:
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, step)


def _wandb(project: str, folder: Path, stage: str) -> Any:
    """A run of W&B; one that was stopped goes on under its own id."""
    try:
        import wandb
    except ImportError as e:
        raise UserError("train.wandb needs the package wandb: pip install wandb") from e
    local = files.is_local(folder)
    whole = f"{folder.resolve() if local else folder}/{stage}"
    try:
        return wandb.init(
            project=project,
            group=folder.name,
            name=f"{folder.name}/{stage}",
            id=hashlib.sha256(whole.encode()).hexdigest()[:16],
            resume="allow",
            dir=str(folder) if local else None,
        )
    except Exception as e:  # wandb raises whatever its service says
        raise UserError(f"W&B takes no run of {project}: {' '.join(str(e).split())[:200]}") from e
