"""How good predicted rows are: errors, ranks, and what is found of the forgotten examples."""

import numpy as np


def ranks(x_RxK: np.ndarray) -> np.ndarray:
    """Ranks from 1 along the last axis, ties sharing their mean; NaN stays NaN, unranked."""
    from scipy.stats import rankdata

    return rankdata(x_RxK, axis=-1, nan_policy="omit")


def pearson(a_RxK: np.ndarray, b_RxK: np.ndarray) -> np.ndarray:
    """Pearson correlation along the last axis over entries known in both; NaN for a constant."""
    both = ~(np.isnan(a_RxK) | np.isnan(b_RxK))
    count = both.sum(-1, keepdims=True).clip(1)
    a = np.where(both, a_RxK, 0).astype(np.float64)
    b = np.where(both, b_RxK, 0).astype(np.float64)
    a = np.where(both, a - a.sum(-1, keepdims=True) / count, 0)
    b = np.where(both, b - b.sum(-1, keepdims=True) / count, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.where(np.isfinite(r), r, np.nan)


def area_under_curve(score_K: np.ndarray, positive_K: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties counting half (Mann and Whitney)."""
    n_positive = int(positive_K.sum())
    n_negative = positive_K.size - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    above = ranks(score_K)[positive_K].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def precision_at(truth_RxK: np.ndarray, score_RxK: np.ndarray, k: int) -> float:
    """Share of each row's k highest scored entries that are among its k highest, over rows.

    Entries that are NaN in `truth_RxK` are not scored; rows with fewer than 2 k are left out.
    """
    shares = []
    for truth_K, score_K in zip(truth_RxK, score_RxK, strict=True):
        scored = np.flatnonzero(~np.isnan(truth_K))
        if scored.size < 2 * k:
            continue
        top = np.argpartition(-truth_K[scored], k - 1)[:k]
        chosen = np.argpartition(-score_K[scored], k - 1)[:k]
        shares.append(np.intersect1d(top, chosen).size / k)
    return float(np.mean(shares)) if shares else float("nan")


def score(
    truth_RxN: np.ndarray, predicted_RxN: np.ndarray, threshold: float, k: int
) -> dict[str, float]:
    """Every metric of predicted rows over the entries that are not NaN in `truth_RxN`.

    `rmse`, `mae`, `f1`, `precision`, `recall` and `auc` pool rows and columns (an entry is positive
    above `threshold`); `spearman` and `precision_at_k` are means over rows; `row_mean_error` is the
    root mean squared error of each row's mean.
    """
    scored = ~np.isnan(truth_RxN)
    error = np.where(scored, predicted_RxN - truth_RxN, np.nan)
    positive, called = truth_RxN[scored] > threshold, predicted_RxN[scored] > threshold
    hits = int((positive & called).sum())
    precision = hits / called.sum() if called.any() else 0.0
    recall = hits / positive.sum() if positive.any() else 0.0
    correlation = pearson(ranks(truth_RxN), ranks(np.where(scored, predicted_RxN, np.nan)))
    known = correlation[~np.isnan(correlation)]
    return {
        "rmse": float(np.sqrt(np.nanmean(error.astype(np.float64) ** 2))),
        "mae": float(np.nanmean(np.abs(error), dtype=np.float64)),
        "spearman": float(known.mean()) if known.size else float("nan"),
        "f1": 2 * hits / max(int(positive.sum() + called.sum()), 1),
        "precision": float(precision),
        "recall": float(recall),
        "auc": area_under_curve(predicted_RxN[scored], positive),
        "precision_at_k": precision_at(truth_RxN, predicted_RxN, k),
        "row_mean_error": float(
            np.sqrt(np.mean((error.sum(-1, where=scored) / scored.sum(-1).clip(1)) ** 2))
        ),
    }
