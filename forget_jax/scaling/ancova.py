"""Whether the rank matters once the fine-tuning loss is known (Eq. 4 of arXiv 2401.05605).

Every run gives two independent figures: the slope of its own line of L_f over L_ft, and that line's
value at the table's mean L_ft. Ranks are compared by these, so that the many steps of a run, which
repeat one another, are not counted as many measurements.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from forget_jax.errors import UserError
from forget_jax.scaling.points import columns_of


@dataclass(frozen=True)
class RankTest:
    """Lines of one rank beside another's.

    Attributes:
      ranks: P of each rank, rising.
      slopes: mean slope of its runs (c of Eq. 4 with its sign turned).
      levels: mean value of its runs' lines at `at`, nats.
      at: mean L_ft, nats.
      runs: how many runs were compared.
      p_level, p_slope: of the hypothesis that ranks do not differ: by an F test between ranks
        against runs of one rank where every rank has two or more runs, else by a t test of a trend
        with log P.
      test: which of these.
    """

    ranks: tuple[float, ...]
    slopes: tuple[float, ...]
    levels: tuple[float, ...]
    at: float
    runs: int
    p_level: float
    p_slope: float
    test: str


def rank_test(points: Any, target: str = "l_f", input: str = "l_ft") -> RankTest:
    """Per-rank lines of `target` over `input`, and the test that they are one.

    Args:
      points: as for `fit`, with P and at least three steps of each run.

    Raises:
      UserError: a column is missing, or fewer than four runs of two ranks to compare.
    """
    named = columns_of(points)
    for name in ("P", target, input):
        if name not in named:
            raise UserError(f"rank test: the table has no column {name!r}")
    keys = [k for k in ("run",) if k in named] or [k for k in ("P", "seed") if k in named]
    texts = np.stack([named[k].astype(str) for k in keys], axis=1)
    run_N = np.asarray(np.unique(texts, axis=0, return_inverse=True)[1]).reshape(-1)
    x_N, y_N, P_N = (named[k].astype(np.float64) for k in (input, target, "P"))
    at = float(x_N.mean())
    rows = []
    for run in range(run_N.max() + 1):
        own = run_N == run
        if own.sum() >= 3 and np.ptp(x_N[own]) > 0:
            slope, offset = np.polyfit(x_N[own] - at, y_N[own], 1)
            rows.append((P_N[own][0], slope, offset))
    if len(rows) < 4 or len({row[0] for row in rows}) < 2:
        raise UserError(
            f"rank test: {len(rows)} runs have three steps or more; it needs four runs and two "
            "ranks"
        )
    size_R, slope_R, level_R = np.array(rows).T
    ranks = np.unique(size_R)
    repeated = min(int((size_R == rank).sum()) for rank in ranks) >= 2
    p_level, p_slope = (_p(size_R, value_R, repeated) for value_R in (level_R, slope_R))
    means: Any = [[float(v[size_R == rank].mean()) for rank in ranks] for v in (slope_R, level_R)]
    return RankTest(
        ranks=tuple(map(float, ranks)),
        slopes=tuple(means[0]),
        levels=tuple(means[1]),
        at=at,
        runs=len(rows),
        p_level=p_level,
        p_slope=p_slope,
        test="F between ranks" if repeated else "trend with log P",
    )


def _p(size_R: np.ndarray, value_R: np.ndarray, repeated: bool) -> float:
    if np.ptp(value_R) == 0:
        return 1.0
    if repeated:
        groups = [value_R[size_R == rank] for rank in np.unique(size_R)]
        if all(np.ptp(group) == 0 for group in groups):
            return 0.0
        return float(stats.f_oneway(*groups).pvalue)
    return float(stats.linregress(np.log(size_R), value_R).pvalue)
