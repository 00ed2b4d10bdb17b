"""Means of groups of a row's entries, from its probes: two estimates, each with an interval.

`predict_means` trusts the predicted row and is as wide as held-out train rows needed; it errs less
for a task like them. `robust_means` needs random probes and nothing else.
"""

from typing import Any

import numpy as np
import scipy.stats

from forget_jax.associations import checks
from forget_jax.associations.online import PredictedRow, Predictor

FEWEST_PROBES = 3  # of a group, for a mean that they correct
POOLED = 5  # probes' worth of the whole row's variance in a group's own


def predict_means(
    predictor: Predictor, row: PredictedRow, measured_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of each group of the predictor, and both ends of its interval.

    Args:
      row: a predicted row.
      measured_N: what was measured of it, NaN elsewhere; this counts as it is.
    """
    known_N = ~np.isnan(measured_N)
    z_N = np.where(known_N, measured_N, row.mean_N)
    groups = predictor.groups_GxN
    size_G = groups.sum(1)
    mean_G = groups @ z_N / size_G
    left_G = (groups & ~known_N) @ row.deviation_N
    # a group that is measured whole has no interval, however wide one of others would be
    half_G = np.where(left_G > 0, predictor.width_G, 0) * left_G / size_G
    return mean_G, mean_G - half_G, mean_G + half_G


def robust_means(
    predictor: Predictor, columns: Any, values: Any, folds: int = 5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of groups that random probes correct: right on average however wrong the predictions.

    The doubly robust estimate (augmented inverse propensity weighting, Robins et al. 1994) with
    cross-fitting (Chernozhukov et al. 2018): what was not measured is predicted, without a part of
    the probes at a time, and moved by the mean error of these predictions on that part. Unlike
    `predict_means` it asks nothing of the train rows, but that probes are a random sample of the
    columns.

    Args:
      predictor: made by `fit_predictor`, with groups.
      columns, values: of the probes, as for `predict_row`.
      folds: parts of the probes, as many as there are probes at most.

    Returns:
      Means (G) and both ends of t intervals of the predictor's coverage; NaN for a group with
      fewer than three probes, and a group that was probed whole is exact.
    """
    columns_S = checks.as_rows(columns, predictor.n_columns, "the probed columns")
    values_S = np.asarray(values, np.float32).reshape(-1)
    columns_S, values_S = columns_S[~np.isnan(values_S)], values_S[~np.isnan(values_S)]
    s = columns_S.size
    part_S = np.random.default_rng(0).permutation(s) % min(folds, s)
    if s < FEWEST_PROBES:
        return (np.full(len(predictor.groups_GxN), np.nan),) * 3
    row_N = np.zeros(predictor.n_columns)
    error_S = np.zeros(s)
    for part in np.unique(part_S):
        out_S = part_S == part
        others_S = np.where(out_S, np.float32(np.nan), values_S)
        mean_N = predictor.estimate(columns_S, others_S)[0].astype(float)
        row_N += mean_N * out_S.mean()
        error_S[out_S] = values_S[out_S] - mean_N[columns_S[out_S]]
    groups = predictor.groups_GxN
    among_GxS = groups[:, columns_S]
    probed_G, size_G = among_GxS.sum(1), groups.sum(1)
    enough = probed_G >= FEWEST_PROBES
    count_G = np.where(enough, probed_G, np.nan)
    off_G = among_GxS @ error_S / count_G
    measured_N = np.full(predictor.n_columns, np.nan)
    measured_N[columns_S] = values_S
    known_N = ~np.isnan(measured_N)
    whole_G = groups @ np.where(known_N, measured_N, row_N)
    mean_G = (whole_G + (size_G - probed_G) * off_G) / size_G
    # Few probes tell little of their variance: that of all counts as more of their own.
    own_G = (among_GxS * (error_S - off_G[:, None]) ** 2).sum(1)
    freedom_G = count_G - 1 + POOLED
    square_G = (own_G + POOLED * error_S.var(ddof=1)) / freedom_G
    half_G = scipy.stats.t.ppf((1 + predictor.coverage) / 2, freedom_G) * np.sqrt(
        square_G / count_G * (1 - count_G / size_G)
    )
    return mean_G, mean_G - half_G, mean_G + half_G
