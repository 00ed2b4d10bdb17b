"""What a plan would have said of a run that its law has not seen: each run left out in turn."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from forget_jax.errors import UserError
from forget_jax.scaling.fit import fit
from forget_jax.scaling.laws import Law
from forget_jax.scaling.planner import plan_steps
from forget_jax.scaling.points import columns_of


@dataclass(frozen=True)
class Unseen:
    """A run against the law of all others; forgetting in the unit of the target.

    Attributes:
      run: its name; P: its trained parameters.
      points: its measurements; coverage: share of them within the interval of one new run.
      signed, error: mean prediction less measurement, and mean absolute value.
      steps: its last mark; measured: forgetting there; predicted, low, high: what was said of it.
      limit: forgetting at the mark in its middle, as a limit; reached: that mark.
      planned, planned_low, planned_high: the most steps that the plan would have allowed under this
        limit; NaN where it would have refused.
    """

    run: str
    P: float
    points: int
    coverage: float
    signed: float
    error: float
    steps: float
    measured: float
    predicted: float
    low: float
    high: float
    limit: float
    reached: float
    planned: float
    planned_low: float
    planned_high: float


def unseen(
    law: str | Law, points: Any, *, target: str, baseline: float = 0.0, **options: Any
) -> list[Unseen]:
    """Leaves each run out of the fit and asks the law about it.

    Args:
      law: of P and steps (or of steps), as for `fit`.
      points: a table with `run`, `P`, `steps` and the target.
      baseline: the target before training, which is taken off all figures.
      **options: fields of `FitOptions`; bootstraps give the intervals.

    Raises:
      UserError: the table has no column `run`, fewer than three runs, or as `fit` does.
    """
    named = columns_of(points)
    for name in ("run", "P", "steps"):
        if name not in named:
            raise UserError(f"points: to leave a run out the table needs the column {name!r}")
    run_N = named["run"].astype(str)
    runs = list(dict.fromkeys(run_N.tolist()))
    if len(runs) < 3:
        raise UserError(f"points: {len(runs)} runs are too few to leave one out and fit the others")
    return [_one(law, named, run_N == run, target, baseline, options) for run in runs]


def _one(
    law: str | Law,
    named: dict[str, np.ndarray],
    out_N: np.ndarray,
    target: str,
    baseline: float,
    options: dict[str, Any],
) -> Unseen:
    rest = {name: column[~out_N] for name, column in named.items()}
    made = fit(law, rest, target=target, **{**options, "heldout": False, "warn": False})
    order = np.argsort(named["steps"][out_N].astype(float))
    P, steps_n, y_n = (named[k][out_N].astype(float)[order] for k in ("P", "steps", target))
    y_n = y_n - baseline
    at: dict[str, Any] = {"P": P, "steps": steps_n}
    said_n = made.predict(**at) - baseline
    low_n, high_n = (bound - baseline for bound in made.interval(**at, kind="point"))
    middle = (len(steps_n) - 1) // 2
    planned = np.full(3, np.nan)
    try:
        plan = plan_steps(made, float(y_n[middle]), baseline=baseline, P=float(P[0]))
        planned = np.array([plan.steps, plan.low, plan.high])
    except UserError:
        pass  # outside what the other runs measured, or no law of steps
    return Unseen(
        run=str(named["run"][out_N][0]),
        P=float(P[0]),
        points=len(y_n),
        coverage=float(np.mean((low_n <= y_n) & (y_n <= high_n))),
        signed=float(np.mean(said_n - y_n)),
        error=float(np.mean(np.abs(said_n - y_n))),
        steps=float(steps_n[-1]),
        measured=float(y_n[-1]),
        predicted=float(said_n[-1]),
        low=float(low_n[-1]),
        high=float(high_n[-1]),
        limit=float(y_n[middle]),
        reached=float(steps_n[middle]),
        planned=float(planned[0]),
        planned_low=float(planned[1]),
        planned_high=float(planned[2]),
    )
