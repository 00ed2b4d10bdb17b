"""How a law predicts what was kept out of its fit: a rank, a method, a task, or the last steps.

The error is signed (prediction less measurement), and the coverage is that of the interval for one
new measurement. The nulls stand beside every law.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from forget_jax.errors import UserError, nearest
from forget_jax.scaling.fit import fit
from forget_jax.scaling.laws import NULLS, Law
from forget_jax.scaling.points import columns_of

LATE = "late"
LATE_SHARE = 0.4  # of a run's steps
_COLUMNS = {"rank": ("rank", "P")}  # which columns tell the groups of a split


@dataclass(frozen=True)
class HeldOut:
    """Errors of a law on what it was not fitted to; means over all rows left out.

    Attributes:
      law, split: which law was kept from what.
      folds: fits, each without one group.
      points: rows that were predicted.
      signed: mean of prediction less measurement, nats.
      error: mean absolute error, nats.
      error_log: median of |log of prediction over measurement|; NaN where one is not positive.
      coverage: share of the measurements within the law's interval for a new one; NaN without.
      level: what that share should be.
    """

    law: str
    split: str
    folds: int
    points: int
    signed: float
    error: float
    error_log: float
    coverage: float
    level: float


def folds(points: Any, split: str) -> list[np.ndarray]:
    """The rows (masks) that are left out in turn.

    Args:
      points: as for `fit`.
      split: a column, whose values are left out one by one (`rank` is P where there is no such
        column); or `late`, the last 40 % of each run's steps.

    Raises:
      UserError: no such column, or fewer than two groups in it.
    """
    named = columns_of(points)
    if split == LATE:
        if "steps" not in named:
            raise UserError("holdout: late needs the column steps")
        steps_N, run_N = named["steps"].astype(float), _runs(named)
        last_N = np.array([steps_N[run_N == run].max() for run in run_N])
        late = steps_N > (1.0 - LATE_SHARE) * last_N
        if late.all() or not late.any():
            raise UserError("holdout: every run needs early and late steps")
        return [late]
    column = next((c for c in _COLUMNS.get(split, (split,)) if c in named), None)
    if column is None:
        choices = [*named, LATE]
        raise UserError(
            f"holdout: the table has no column {split!r}{nearest(split, choices)}; it has "
            f"{', '.join(named)}"
        )
    texts = named[column].astype(str)
    groups = np.unique(texts)
    if len(groups) < 2:
        raise UserError(f"holdout: {column} is {groups[0]} in every row: nothing can be left out")
    return [texts == group for group in groups]


def _runs(named: Mapping[str, np.ndarray]) -> np.ndarray:
    keys = [k for k in ("run",) if k in named] or [k for k in ("P", "seed") if k in named]
    if not keys:
        return np.zeros(len(named["steps"]), int)
    rows = np.stack([named[k].astype(str) for k in keys], axis=1)
    return np.asarray(np.unique(rows, axis=0, return_inverse=True)[1]).reshape(-1)


def holdout(
    law: str | Law, points: Any, split: str, *, target: str | None = None, **options: Any
) -> HeldOut:
    """Fits a law without each group in turn and predicts the group.

    Args:
      law, points, target: as for `fit`.
      split: as for `folds`.
      **options: fields of `FitOptions`.

    Raises:
      UserError: as `fit` does, for a fit without a group (which it refuses to a law with
        coefficients for each of them), or as `folds`.
    """
    named = columns_of(points)
    predicted, measured, inside, level = [], [], [], 0.95
    outs = folds(points, split)
    for out in outs:
        rest = {name: column[~out] for name, column in named.items()}
        made = fit(law, rest, target=target, **{**options, "heldout": False, "warn": False})
        level = made.level
        wanted = (*made.definition.columns, *filter(None, [made.definition.by]))
        at: dict[str, Any] = {name: named[name][out] for name in wanted}
        count = {"steps": np.ones(int(out.sum()))} if not at else {}
        predicted.append(made.predict(**at, **count))
        measured.append(named[made.target][out].astype(float))
        if made.ci:
            low, high = made.interval(**at, **count, kind="point")
            inside.append((low <= measured[-1]) & (measured[-1] <= high))
    p_N, y_N = np.concatenate(predicted), np.concatenate(measured)
    sound = (p_N > 0).all() and (y_N > 0).all()
    return HeldOut(
        law=made.law,
        split=split,
        folds=len(outs),
        points=len(y_N),
        signed=float(np.mean(p_N - y_N)),
        error=float(np.mean(np.abs(p_N - y_N))),
        error_log=float(np.median(np.abs(np.log(p_N / y_N)))) if sound else float("nan"),
        coverage=float(np.mean(np.concatenate(inside))) if len(inside) == len(outs) else np.nan,
        level=level,
    )


def holdouts(
    points: Any,
    laws: Iterable[str | Law],
    split: str,
    *,
    target: str | None = None,
    **options: Any,
) -> tuple[dict[str, HeldOut], dict[str, str]]:
    """`holdout` of several laws and of the nulls, on the same groups.

    Returns:
      By law what it erred; and by law the reason, in one line, why it could not be tried.

    Raises:
      UserError: as `folds` does.
    """
    folds(points, split)
    found: dict[str, HeldOut] = {}
    refused: dict[str, str] = {}
    wanted = {law.name if isinstance(law, Law) else law: law for law in laws}
    for name, law in {**wanted, **{null: null for null in NULLS if null not in wanted}}.items():
        try:
            found[name] = holdout(law, points, split, target=target, **options)
        except UserError as error:
            if name in wanted:
                refused[name] = str(error)
    return found, refused
