"""Probabilities of entries that are zeros or ones (1: lost), calibrated on rows that were left out.

A completion's estimate of such an entry is near its probability without being one. Every train row
is estimated from the others, and the share of ones among its entries, as it rises with the
estimate, is what a new row's estimates are turned into.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy.optimize

BINS = 10
FOLDS = 5  # of rows, where a calibration is judged on the rows that it is fitted to


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Estimates (rising) with their probabilities; linear between them, constant beyond."""

    value_K: np.ndarray
    probability_K: np.ndarray

    def of(self, value: np.ndarray) -> np.ndarray:
        """Probabilities of estimates, of any shape."""
        return np.interp(value, self.value_K, self.probability_K)


class Bin(NamedTuple):
    """Entries of about one probability: its mean, the share of ones among them, their number."""

    predicted: float
    observed: float
    entries: int


@dataclasses.dataclass(frozen=True)
class Judged:
    """How good probabilities are on entries that they were not fitted to.

    Attributes:
      brier: mean squared difference of probability and outcome.
      brier_base: the same of one probability for all, the share of ones.
      reliability: as `reliability` has it.
    """

    brier: float
    brier_base: float
    reliability: tuple[Bin, ...]


def is_binary(z: np.ndarray) -> bool:
    """Whether all known entries are 0 or 1."""
    return bool(((z == 0) | (z == 1) | np.isnan(z)).all())


def fitted(value: np.ndarray, truth: np.ndarray) -> Calibration:
    """Isotonic regression (Zadrozny and Elkan 2002) of outcomes on their estimates.

    Args:
      value: estimates, of any shape.
      truth: the outcomes, 0 or 1; NaN is left out, as is an estimate that is no number.

    Returns:
      Probabilities between 0 and 1, neither of them reached: n entries say no more than
      1 / (2 n + 2).
    """
    known = ~np.isnan(truth) & np.isfinite(value)
    if not known.any():  # estimates as they are
        return Calibration(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    value_K, at_K, count_K = np.unique(value[known], return_inverse=True, return_counts=True)
    share_K = np.bincount(at_K, truth[known]) / count_K  # equal estimates share one probability
    found = scipy.optimize.isotonic_regression(share_K, weights=count_K)
    first, last = found.blocks[:-1], found.blocks[1:] - 1
    least = 0.5 / (found.weights + 1)
    # A step from its first estimate to its last, so that only what lies between two is shared out.
    ends = np.unique(np.concatenate([first, last]))
    step = np.searchsorted(first, ends, side="right") - 1
    probability = np.clip(found.x[ends], least[step], 1 - least[step])
    return Calibration(value_K[ends].astype(float), np.maximum.accumulate(probability))


def brier(probability: np.ndarray | float, truth: np.ndarray) -> float:
    """Mean squared difference of probability and outcome (Brier 1950), where that is not NaN."""
    return float(np.nanmean(np.subtract(probability, truth, dtype=np.float64) ** 2))


def reliability(probability: np.ndarray, truth: np.ndarray) -> tuple[Bin, ...]:
    """Entries in the order of their probability, in up to ten parts as equal as ties allow."""
    known = ~np.isnan(truth)
    p_K, truth_K = probability[known], truth[known]
    edges = np.unique(np.quantile(p_K, np.arange(1, BINS) / BINS))
    part_K = np.searchsorted(edges, p_K, side="left")
    count = np.bincount(part_K)
    mean_p, mean_truth = (np.bincount(part_K, x) / np.maximum(count, 1) for x in (p_K, truth_K))
    return tuple(
        Bin(float(p), float(t), int(n))
        for p, t, n in zip(mean_p, mean_truth, count, strict=True)
        if n
    )


def judged(value_MxDxN: np.ndarray, truth_MxDxN: np.ndarray) -> Judged:
    """Of M rows' estimates under D draws, each turned into what other rows' calibration says."""
    part_M = np.arange(len(value_MxDxN)) % FOLDS
    found = np.empty(value_MxDxN.shape)
    for part in np.unique(part_M):
        out = part_M == part
        found[out] = fitted(value_MxDxN[~out], truth_MxDxN[~out]).of(value_MxDxN[out])
    share = float(np.nanmean(truth_MxDxN))
    return Judged(
        brier(found, truth_MxDxN), brier(share, truth_MxDxN), reliability(found, truth_MxDxN)
    )
