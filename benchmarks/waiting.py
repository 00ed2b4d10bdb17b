"""How much of a stretch of time the device had nothing to do, from a profiler trace."""

from pathlib import Path

import jax
import numpy as np


class Waiting:
    """Traces from `start` to `share`."""

    def __init__(self, folder: Path):
        self.folder = folder

    def start(self) -> None:
        """Begins the trace; Python's own calls are left out, which would slow them."""
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        options.host_tracer_level = 2 if jax.default_backend() == "cpu" else 1
        jax.profiler.start_trace(str(self.folder), profiler_options=options)

    def share(self) -> float:
        """Ends the trace; the share of it, between first and last work, without any work."""
        jax.profiler.stop_trace()
        newest = max(self.folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
        spans = [
            (event.start_ns, event.end_ns)
            for plane in jax.profiler.ProfileData.from_file(str(newest)).planes
            for line in plane.lines
            for event in line.events
            if _is_work(plane.name, line.name, event.name)
        ]
        return idle(np.array(spans, float).reshape(-1, 2))


def _is_work(plane: str, line: str, event: str) -> bool:
    """On CPU a run of a program is one event of the client's; else kernels are in streams."""
    if plane.startswith("/device:"):
        return "Stream" in line or line == "XLA Ops"
    return event.startswith("ThunkExecutor::Execute") and "PjRtCpuClient" in line


def idle(spans_Ex2: np.ndarray) -> float:
    """The share of time between the first start and the last end that no span covers; NaN if none.

    Args:
      spans_Ex2: starts and ends in any one unit, in any order; they may overlap.
    """
    if not len(spans_Ex2):
        return float("nan")
    start, end = spans_Ex2[np.argsort(spans_Ex2[:, 0])].T
    covered = np.maximum.accumulate(end)  # up to where everything before has reached
    gaps = np.clip(start[1:] - covered[:-1], 0, None)
    return float(gaps.sum() / (covered[-1] - start[0]))
