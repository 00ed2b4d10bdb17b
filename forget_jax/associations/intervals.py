"""How wide intervals are, from the errors of train rows that were left out and predicted."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from forget_jax.associations import checks

CAUTION = 10  # rows' worth of evidence that the model's deviations are right


@dataclasses.dataclass(frozen=True)
class Levelling:
    """How much closer rows' deviations are than the model has them: a power of their means' ratio.

    Attributes:
      slope: of held-out rows' own quantiles on their mean deviation, both logarithms; 0 where the
        model's deviations are right, -1 where all rows vary alike.
      centre, low, high: mean, least and greatest of the logarithms; none beyond is believed.
    """

    slope: float
    centre: float
    low: float
    high: float

    def of(self, deviation_N: np.ndarray) -> float:
        """The factor of a row's deviations."""
        logarithm = np.log(max(float(deviation_N.mean(dtype=np.float64)), 1e-300))
        return float(np.exp(self.slope * (np.clip(logarithm, self.low, self.high) - self.centre)))


def levelled(
    widths: Sequence[np.ndarray], deviations: Sequence[np.ndarray], coverage: float, rows: int
) -> Levelling:
    """The least-squares slope over held-out rows, drawn towards 0 and within -1 and 0.

    Args:
      widths: of each held-out row and draw, its errors in predictive deviations.
      deviations: of each, N.
      rows: how many rows there are; draws of one row are no further evidence.
    """
    own_K = np.array([np.quantile(w, coverage) if w.size else np.nan for w in widths])
    with np.errstate(divide="ignore", invalid="ignore"):
        x_K, y_K = np.log([d.mean(dtype=np.float64) for d in deviations]), np.log(own_K)
    known = np.isfinite(x_K) & np.isfinite(y_K)
    if not known.any() or checks.is_constant(x_K[known]):
        return Levelling(0.0, 0.0, 0.0, 0.0)
    x_K, y_K = x_K[known], y_K[known]
    off_K = x_K - x_K.mean()
    slope = float(off_K @ y_K / (off_K @ off_K)) * rows / (rows + CAUTION)
    slope = float(np.clip(slope, -1, 0))
    return Levelling(slope, float(x_K.mean()), float(x_K.min()), float(x_K.max()))


def of_means(ratio_KxG: np.ndarray, coverage: float, rows: int) -> np.ndarray:
    """The quantile of each group's ratios that a further row stays below (split conformal)."""
    level = min(1.0, np.ceil((rows + 1) * coverage) / rows)
    known = ~np.isnan(ratio_KxG)
    found = [
        np.quantile(r[k], level, method="higher") if k.any() else np.inf
        for r, k in zip(ratio_KxG.T, known.T, strict=True)
    ]
    return np.array(found, float)
