"""What the losses of trainings say of their tasks, as features that help to predict their rows.

How far a task is from the base (the loss of the first tenth of its steps), where it came to (of the
last tenth), and how far it moved: read from the metrics.jsonl of the matrix's run, and for a new
task from that of the fine-tune whose adapter was scored.
"""

import collections
from collections.abc import Mapping, Sequence

import numpy as np

from forget_jax import foreign
from forget_jax.commands import matrices
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.runs.metrics import ends

STAGES = ("associate", "finetune")


def of_matrix(path: PathLike) -> dict[str, np.ndarray]:
    """By task its features (P), of a matrix in a workdir of `associate`; none of another."""
    return _read(matrices.place(path).parent / "metrics.jsonl")


def of_adapters(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """By path the features of the fine-tunes that adapters lie in; without those of others."""
    found = {}
    for path in paths:
        here = Path(path)
        values = list(_read(here.parent / "metrics.jsonl").values()) if here.is_dir() else []
        if len(values) == 1:
            found[path] = values[0]
    return found


def _read(path: Path) -> dict[str, np.ndarray]:
    """By task its features; nothing where no such file is there, or it is none of ours."""
    losses: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
    if not path.exists():
        return {}
    try:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            row = foreign.record(foreign.parse(line, f"{path}, line {number}"), str(path))
            if str(row.get("stage", "")).partition("/")[0] in STAGES:
                of = row.get("loss")
                for task, loss in of.items() if isinstance(of, Mapping) else ():
                    losses[task].append((int(row["step"]), float(loss)))
    except (UserError, KeyError, TypeError, ValueError):
        return {}
    found = {task: _features(steps) for task, steps in losses.items()}
    return {task: row for task, row in found.items() if np.isfinite(row).all()}


def _features(steps: Sequence[tuple[int, float]]) -> np.ndarray:
    loss_S = np.array([loss for _, loss in sorted(steps)])
    first, last = (part.mean() for part in ends(loss_S))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.array([np.log(first), np.log(last), first - last])
