"""How good predicted rows are: errors, ranks, and what is found of the forgotten examples."""

import numpy as np

METRICS = (
    *("rmse", "mae", "spearman", "f1", "precision", "recall", "auc", "precision_at_k"),
    "row_mean_error",
)


def ranks(x_TxN: np.ndarray) -> np.ndarray:
    """Ranks from 1 along the last axis, ties sharing their mean; NaN stays NaN, unranked."""
    from scipy.stats import rankdata

    return rankdata(x_TxN, axis=-1, nan_policy="omit")


def pearson(a_TxN: np.ndarray, b_TxN: np.ndarray) -> np.ndarray:
    """Pearson correlation along the last axis over entries known in both; NaN for a constant."""
    both = ~(np.isnan(a_TxN) | np.isnan(b_TxN))
    count = both.sum(-1, keepdims=True).clip(1)
    a = np.where(both, a_TxN, 0).astype(np.float64)
    b = np.where(both, b_TxN, 0).astype(np.float64)
    a = np.where(both, a - a.sum(-1, keepdims=True) / count, 0)
    b = np.where(both, b - b.sum(-1, keepdims=True) / count, 0)
    varies = _varies(a, a_TxN, both) & _varies(b, b_TxN, both)
    power = np.sqrt((a**2).sum(-1)) * np.sqrt((b**2).sum(-1))
    return np.where(varies, (a * b).sum(-1) / np.where(varies, power, 1), np.nan)


def _varies(off_TxN: np.ndarray, x_TxN: np.ndarray, known_TxN: np.ndarray) -> np.ndarray:
    """Which rows are further from their mean than rounding takes equal entries."""
    largest = np.abs(np.where(known_TxN, x_TxN, 0)).max(-1)
    return np.abs(off_TxN).max(-1) > 8 * np.finfo(np.float64).eps * largest


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive entry scores above a negative one, ties counting half.

    Both are flat and equally long, `positive` boolean; NaN where all entries are of one kind. The
    statistic is Mann and Whitney's.
    """
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    above = ranks(scores)[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def precision_at(truth_TxN: np.ndarray, score_TxN: np.ndarray, k: int) -> np.ndarray:
    """Share of each row's k highest scored entries that are among its k highest (T).

    Entries as high as the k-th count among these, but the row's lowest never do: of zeros and ones
    it is the share of ones. Entries that are NaN in `truth_TxN` are not scored; rows with fewer
    than 2 k of them, or with one value alone, are NaN.
    """
    shares_T = np.full(len(truth_TxN), np.nan)
    for i, (truth_N, score_N) in enumerate(zip(truth_TxN, score_TxN, strict=True)):
        truth, found = (x[~np.isnan(truth_N)] for x in (truth_N, score_N))
        if truth.size < 2 * k or truth.min() == truth.max():
            continue
        kth = np.partition(truth, -k)[-k]
        high = (truth >= kth) & (truth > truth.min())
        shares_T[i] = high[np.argpartition(-found, k - 1)[:k]].mean()
    return shares_T


def _mean(x_T: np.ndarray) -> float:
    """Of what is not NaN; NaN where nothing is."""
    known = x_T[~np.isnan(x_T)]
    return float(known.mean()) if known.size else float("nan")


def score(
    truth_TxN: np.ndarray, predicted_TxN: np.ndarray, threshold: float, k: int
) -> dict[str, float]:
    """Every metric of predicted rows over the entries that are not NaN in `truth_TxN`.

    Args:
      truth_TxN: measured rows.
      predicted_TxN: their predictions.
      threshold: an entry above it is positive (forgotten).
      k: of `precision_at_k`.

    Returns:
      `rmse`, `mae`, `f1`, `precision`, `recall` and `auc` over all entries of all rows; `spearman`
      and `precision_at_k`, means over rows; `row_mean_error`, the root mean squared error of each
      row's mean. Errors are in the unit of the rows. All are NaN where nothing is to be scored or
      a prediction is not finite: no figure is that of a part.
    """
    scored = ~np.isnan(truth_TxN)
    if not scored.any() or not np.isfinite(predicted_TxN[scored]).all():
        return dict.fromkeys(METRICS, float("nan"))
    error = np.where(scored, np.subtract(predicted_TxN, truth_TxN, dtype=np.float64), 0)
    count = scored.sum()
    positive, called = truth_TxN[scored] > threshold, predicted_TxN[scored] > threshold
    hits = int((positive & called).sum())
    precision = hits / called.sum() if called.any() else 0.0
    recall = hits / positive.sum() if positive.any() else 0.0
    correlation = pearson(ranks(truth_TxN), ranks(np.where(scored, predicted_TxN, np.nan)))
    some = scored.any(-1)
    row_error_T = error[some].sum(-1) / scored[some].sum(-1)
    found = {
        "rmse": float(np.sqrt((error**2).sum() / count)),
        "mae": float(np.abs(error).sum() / count),
        "spearman": _mean(correlation),
        "f1": 2 * hits / max(int(positive.sum() + called.sum()), 1),
        "precision": float(precision),
        "recall": float(recall),
        "auc": area_under_curve(predicted_TxN[scored], positive),
        "precision_at_k": _mean(precision_at(truth_TxN, predicted_TxN, k)),
        "row_mean_error": float(np.sqrt(np.mean(row_error_T**2))),
    }
    assert tuple(found) == METRICS
    return found
