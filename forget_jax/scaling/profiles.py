"""Profile likelihood of one shape parameter: how well the law fits with it held at each value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from forget_jax.errors import UserError, nearest
from forget_jax.scaling.lanes import best_of, distinct, root_weight
from forget_jax.scaling.laws import Law
from forget_jax.scaling.points import Points
from forget_jax.scaling.solve import Solution, coordinates, solve

VALUES = 25
_WARM = 3  # answers that the search at each value begins from


@dataclass(frozen=True)
class Profile:
    """A profile.

    Attributes:
      parameter: its name.
      values: where it was held, rising.
      deviance: by value, n_eff times the log of the residual sum of squares over the least one:
        twice the loss of log likelihood.
      low, high: the interval at `level` by the chi-squared limit; infinite (or the bound's side
        open) where the deviance stays below the limit up to the searched bound.
      level: of the interval.
    """

    parameter: str
    values: tuple[float, ...]
    deviance: tuple[float, ...]
    low: float
    high: float
    level: float


def grid(law: Law, parameter: str, count: int = VALUES) -> np.ndarray:
    """Values over the whole searched range of a parameter, in its own scale."""
    for s in law.shape:
        if s.name == parameter:
            return (np.geomspace if s.log else np.linspace)(s.low, s.high, count)
    names = [s.name for s in law.shape]
    raise UserError(
        f"profile: law {law.name!r} does not search {parameter!r}{nearest(parameter, names)}; it "
        f"searches {', '.join(names) or 'nothing'}"
    )


def deviances(
    law: Law, data: Points, lanes: Solution, held: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The deviance at each value of each parameter, the others being refitted every time.

    Args:
      law, data: what was searched on which table, by squared loss.
      lanes: its answers, the best first: searches begin from those.
      held: by parameter, the values at which it is held.
    """
    names = [s.name for s in law.shape]
    warm_WxZ = lanes.z_SxZ[distinct(lanes, _WARM)]
    starts, fixed = [], []
    for name, values in held.items():
        z_SxZ = np.tile(warm_WxZ, (len(values), 1))
        z_SxZ[:, names.index(name)] = np.repeat(coordinates(law, name, values), len(warm_WxZ))
        starts.append(z_SxZ)
        fixed += [names.index(name)] * len(z_SxZ)
    z_SxZ = np.concatenate(starts)
    free_SxZ = 1.0 - np.eye(len(names))[fixed]
    weight_SxN = np.broadcast_to(root_weight(data, "mse"), (len(z_SxZ), len(data.y_N)))
    solved = solve(law, data, z_SxZ, weight_SxN, "mse", 1.0, free_SxZ)
    loss = best_of(solved, len(z_SxZ) // len(warm_WxZ)).loss_S
    least = max(float(lanes.loss_S[0]), 1e-20)
    deviance = data.n_eff * np.log(np.maximum(loss, least) / least)
    ends = np.cumsum([len(values) for values in held.values()])[:-1]
    return dict(zip(held, np.split(deviance, ends), strict=True))


def interval(values: np.ndarray, deviance: np.ndarray, limit: float) -> tuple[float, float]:
    """Where a profile stays below a limit around its least; infinite on a side that stays open."""
    inside = np.flatnonzero(deviance <= limit)
    if not len(inside):
        at = float(values[deviance.argmin()])
        return at, at
    first, last = int(inside[0]), int(inside[-1])

    def crossing(a: int, b: int) -> float:
        share = (limit - deviance[a]) / (deviance[b] - deviance[a])
        return float(values[a] + share * (values[b] - values[a]))

    low = -np.inf if first == 0 else crossing(first, first - 1)
    high = np.inf if last == len(values) - 1 else crossing(last, last + 1)
    return low, high


def made(law: Law, data: Points, lanes: Solution, parameter: str, level: float) -> Profile:
    """The profile of a law that has been searched: a coarse pass, then one between its limits."""
    values = grid(law, parameter)
    deviance = deviances(law, data, lanes, {parameter: values})[parameter]
    limit = float(stats.chi2.ppf(level, 1))
    inside = np.flatnonzero(deviance <= 4 * limit)
    first, last = max(int(inside.min(initial=0)) - 1, 0), int(inside.max(initial=0)) + 1
    if last - first < VALUES - 1:
        ends = values[first], values[min(last, VALUES - 1)]
        best = lanes.shape_SxK[0, [s.name for s in law.shape].index(parameter)]
        fine = np.linspace(*ends, VALUES)
        values = np.unique([*fine, best])
        deviance = deviances(law, data, lanes, {parameter: values})[parameter]
    low, high = interval(values, deviance, limit)
    held: Any = values.tolist(), deviance.tolist()
    return Profile(parameter, tuple(held[0]), tuple(held[1]), low, high, level)
