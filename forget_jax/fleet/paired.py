"""Paired tests between two arms of an experiment, corrected where there are many.

A pair is a cluster (a task, a sequence of sets, or a seed) under a seed. Seeds of one cluster are
alike, so tests flip the signs of whole clusters, and intervals are over clusters.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

DRAWS = 100_000  # exact for up to 16 clusters
POWER = 0.8416 + 1.9600  # normal quantiles of 80 % power and of a two-sided 5 % test


@dataclasses.dataclass(frozen=True)
class Paired:
    """One arm's figure less another's over pairs of task and seed.

    Attributes:
      mean, low, high: of the tasks' mean differences, with their 95 % t interval.
      p: two-sided sign-flip permutation test, whole tasks flipped; NaN for one task.
      p_holm: the same after Holm's correction over its family.
      pairs, tasks: there are.
      needed: tasks at which such an effect would be found at 5 % in 4 of 5 comparisons.
    """

    mean: float
    low: float
    high: float
    p: float
    pairs: int
    tasks: int
    needed: int | None
    p_holm: float = float("nan")

    def figures(self) -> dict[str, Any]:
        """Pairs, mean, interval and both p for a summary, where None is what is not known."""
        found = {"low": self.low, "high": self.high, "p": self.p, "p_holm": self.p_holm}
        known = {name: None if math.isnan(x) else x for name, x in found.items()}
        return {"pairs": self.pairs, "mean": self.mean, **known}


def paired(d_TxS: np.ndarray) -> Paired:
    """Tests that differences are zero, of T tasks under S seeds."""
    from scipy.stats import permutation_test, t

    mean_T = np.asarray(d_TxS, float).mean(1)
    T, mean = len(mean_T), float(mean_T.mean())
    if T < 2 or not np.isfinite(mean):
        nan = float("nan")
        return Paired(mean, nan, nan, nan, d_TxS.size, T, None)
    error = float(mean_T.std(ddof=1) / np.sqrt(T))
    half = float(t.ppf(0.975, T - 1)) * error
    flipped = permutation_test(
        (mean_T,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        axis=0,
        n_resamples=DRAWS,
        rng=np.random.default_rng(0),
    )
    p = float(flipped.pvalue)  # of differences that are all alike, too
    needed = int(np.ceil((POWER * error * np.sqrt(T) / mean) ** 2)) if mean and error else None
    return Paired(mean, mean - half, mean + half, p, d_TxS.size, T, needed)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction; NaN stays and does not count."""
    p_K = np.asarray(p, float)
    known = np.flatnonzero(~np.isnan(p_K))
    found = np.full(len(p_K), np.nan)
    order = known[np.argsort(p_K[known], kind="stable")]
    steps = p_K[order] * np.arange(len(order), 0, -1)
    found[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(x) for x in found]
