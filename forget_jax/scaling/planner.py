"""Inverting a law: how many steps of training keep forgetting within a limit."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from forget_jax.errors import UserError
from forget_jax.scaling.fitted import Fit, expanded_tail

_GRID = 4001
_REACH = 1000.0


@dataclass(frozen=True)
class Plan:
    """The largest number of steps within the limit, with its interval at the fit's level.

    Attributes:
      steps: rounded down; infinite where the law never reaches the limit within a thousand times
        the measured steps (only when extrapolating).
      low, high: bootstrap quantiles of the steps, NaN for a fit without bootstraps; `low` is the
        careful answer.
      level: of the interval.
      limit, baseline: as asked, in the unit of the fit's target.
      columns: the law's other columns, as asked.
      extrapolated: whether the answer or P lies outside the measured range.
    """

    steps: float
    low: float
    high: float
    level: float
    limit: float
    baseline: float
    columns: dict[str, float]
    extrapolated: bool


def _crossing(log_grid_G: np.ndarray, above_SxG: np.ndarray) -> np.ndarray:
    """Where each rising curve first exceeds 0: grid coordinates; inf if it never does."""
    over = above_SxG > 0
    first = over.argmax(axis=1)
    rows = np.arange(len(above_SxG))
    before = np.maximum(first - 1, 0)
    y0, y1 = above_SxG[rows, before], above_SxG[rows, first]
    share = np.clip(-y0 / np.where(y1 > y0, y1 - y0, 1.0), 0.0, 1.0)
    at = log_grid_G[before] + share * (log_grid_G[first] - log_grid_G[before])
    return np.where(over.any(axis=1), np.where(first == 0, -np.inf, at), np.inf)


def plan_steps(
    fit: Fit, limit: float, *, baseline: float = 0.0, extrapolate: bool = False, **columns: Any
) -> Plan:
    """Largest number of steps with `prediction - baseline <= limit`.

    Args:
      fit: a law that reads `steps`, fitted.
      limit: the most forgetting that is allowed, in the unit of the fit's target (nats).
      baseline: the target's value before training, where that is not 0 (an L_f; not a KL).
      extrapolate: answers outside the measured range as well.
      **columns: the law's other columns, a number each: `P`, and `mix` where it reads that.

    Raises:
      UserError: the law has no steps or does not rise with them; a column is missing; limit or
        baseline is not finite; or, unless `extrapolate`, P or the answer is outside what the law
        was fitted on.
    """
    law = fit.definition
    if "steps" not in law.columns:
        raise UserError(f"planner: law {law.name!r} says nothing about steps: fit another one")
    given = {}
    for name in law.columns:
        if name == "steps":
            continue
        if name not in columns:
            raise UserError(f"planner: law {law.name!r} needs {name}")
        given[name] = float(columns[name])
        low, high = fit.valid[name]
        if not extrapolate and not low <= given[name] <= high:
            raise UserError(
                f"planner: {name} {given[name]:g} is outside the measured {low:g} to {high:g}; "
                "measure there"
            )
    if not np.isfinite([limit, baseline]).all():
        raise UserError("planner: limit and baseline must be finite numbers")
    least, most = fit.valid["steps"]
    log_grid = np.linspace(0.0, np.log(most * _REACH), _GRID)
    grid = {name: np.full(_GRID, value) for name, value in given.items()}
    grid["steps"] = np.exp(log_grid)
    curve = fit.predict(**grid)
    if curve[-1] <= curve[0]:
        raise UserError(
            f"planner: under law {law.name!r} {fit.target} does not rise with steps here; "
            "every number of steps keeps the limit, or none does"
        )
    steps = float(np.exp(_crossing(log_grid, curve[None] - baseline - limit)[0]))
    outside = not least <= steps <= most
    if outside and not extrapolate:
        reached = float(fit.predict(**given, steps=most if steps > most else least)) - baseline
        where = f"after {most:g} steps, the most measured, it is only"
        if steps < least:
            where = f"after {least:g} steps, the fewest measured, it is already"
        raise UserError(
            f"planner: {fit.target} {limit:g} is outside the measured range: {where} "
            f"{reached:.4g}; measure further"
        )
    bounds = (float("nan"), float("nan"))
    if fit.ci:
        crossings = np.exp(_crossing(log_grid, fit.samples(**grid) - baseline - limit))
        tail = expanded_tail(fit.level, fit.clusters)
        # Order statistics, not interpolation: a quantile between a number and infinity is NaN.
        bounds = (
            float(np.quantile(crossings, tail, method="lower")),
            float(np.quantile(crossings, 1.0 - tail, method="higher")),
        )
    inside = all(fit.valid[k][0] <= v <= fit.valid[k][1] for k, v in given.items())
    return Plan(
        steps=float(np.floor(steps + 1e-6)),
        low=bounds[0],
        high=bounds[1],
        level=fit.level,
        limit=limit,
        baseline=baseline,
        columns=given,
        extrapolated=outside or not inside,
    )
