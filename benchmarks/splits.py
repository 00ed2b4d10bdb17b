"""Completion on every matrix at hand, on random splits: errors, paired differences, row means.

A split draws train rows and probes anew; every method predicts the same test rows from the same
probes. Differences come with 95 % t intervals over splits, and over test tasks (each task's mean
over the splits that test it), because splits share tasks and tasks share splits.

`CHOOSING` are the matrices on which settings of `auto` may be chosen; the others only report.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.linalg

from forget_jax.associations import (
    complete,
    fit_predictor,
    predict_means,
    predict_row,
    predict_rows,
)
from forget_jax.associations.calibration import is_binary
from forget_jax.associations.evaluation import evaluate, interval
from forget_jax.associations.matrix import load

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "matrices"
CHOOSING = ("OLMo", "mmlu")
REPORTING = ("gsm", "ifeval")
MOST_PROBES = 100
GROUPS = 5  # of columns, that stand in for sources
FOLDS = 5  # of probes, where a mean is corrected by them
PENALTIES = np.geomspace(1e-3, 1e3, 13)  # of ridge regression, in variances of the features
BRIER = {"calibrated": "brier", "cut to 0 and 1": "brier_clipped", "base rate": "brier_base"}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "auto": ("auto", {}),
    "mixture": ("mixture", {}),
    "mixture, rank 12": ("mixture", {"rank": 12}),
    **{
        f"gaussian, rank {rank}, pooled {pooled:g}": ("gaussian", {"rank": rank, "pooled": pooled})
        for rank, pooled in ((1, 100.0), (2, 100.0), (3, 10.0), (5, 10.0), (8, 10.0))
    },
    "ALS": ("als", {}),
    "KNN": ("knn", {}),
    "KNN, width 0.001": ("knn", {"width": 1e-3}),
    "soft-impute": ("soft_impute", {}),
    "additive": ("additive", {}),
    "scaled mean": ("scaled_mean", {}),
    "column mean": ("column_mean", {}),
}


def matrices(folder: pathlib.Path = FOLDER) -> dict[str, tuple[np.ndarray, int]]:
    """By name the rows (float32) and how many of them train; those whose file is absent are not."""
    found = {}
    if (file := folder / "olmo-7b-dolma.json").exists():
        found["OLMo"] = load(file).z_MxN.astype(np.float32)[:66], 46  # the FLAN tasks
    for name in ("gsm", "mmlu", "ifeval"):
        if (file := folder / f"benchpred_{name}.npz").exists():
            z_MxN = load(file).z_MxN.astype(np.float32)
            if len(z_MxN) > 100:  # 100 of 448 models, always the same
                rows = np.random.default_rng(0).choice(len(z_MxN), 100, replace=False)
                z_MxN = z_MxN[np.sort(rows)]
            found[name] = z_MxN, round(0.7 * len(z_MxN))
    return found


def draw(z_MxN: np.ndarray, n_train: int, split: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the train rows and of the test rows."""
    order = np.random.default_rng(1000 + split).permutation(len(z_MxN))
    return np.sort(order[:n_train]), order[n_train:]


def probes(n_columns: int, n_rows: int, count: int, split: int) -> np.ndarray:
    """For each test row its own columns (T × S)."""
    rng = np.random.default_rng((split, count))
    return np.stack([rng.choice(n_columns, count, replace=False) for _ in range(n_rows)])


def compare(
    z_MxN: np.ndarray,
    n_train: int,
    splits: int,
    observed: int = 30,
    methods: Mapping[str, tuple[str, dict[str, Any]]] = METHODS,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every method's mean squared error of every test row (splits × T), and the rows' numbers.

    In a matrix of zeros and ones every method's estimates are cut to between them, as `auto` does.
    """
    bounds = (0, 1) if is_binary(z_MxN) else (-np.inf, np.inf)
    errors: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    tests = []
    for split in range(splits):
        train, test = draw(z_MxN, n_train, split)
        columns_TxS = probes(z_MxN.shape[1], len(test), observed, split)
        truth_TxN = z_MxN[test]
        values_TxS = np.take_along_axis(truth_TxN, columns_TxS, 1)
        for name, (method, options) in methods.items():
            found = predict_rows(z_MxN[train], columns_TxS, values_TxS, method, **options)
            square_TxN = (np.clip(found, *bounds) - truth_TxN).astype(np.float64) ** 2
            np.put_along_axis(square_TxN, columns_TxS, np.nan, 1)
            errors[name].append(np.nanmean(square_TxN, 1))
        tests.append(test)
    return {name: np.array(found) for name, found in errors.items()}, np.array(tests)


def difference(a_GxT: np.ndarray, b_GxT: np.ndarray, rows_GxT: np.ndarray) -> dict[str, Any]:
    """Intervals of a − b over splits (of the RMSE of all rows) and over tasks (of each row's)."""
    over_splits = interval(np.sqrt(a_GxT.mean(1)) - np.sqrt(b_GxT.mean(1)))
    each = np.sqrt(a_GxT) - np.sqrt(b_GxT)
    by_task = np.array([each[rows_GxT == row].mean() for row in np.unique(rows_GxT)])
    return {"splits": over_splits, "tasks": interval(by_task)}


def _ridge(x_MxS: np.ndarray, y_MxK: np.ndarray, new_TxS: np.ndarray) -> np.ndarray:
    """Ridge regression of several targets, the penalty that leave-one-out finds best (T × K)."""
    mean_S, mean_K = x_MxS.mean(0), y_MxK.mean(0)
    x, y = (x_MxS - mean_S).astype(np.float64), (y_MxK - mean_K).astype(np.float64)
    u, size, vt = scipy.linalg.svd(x, full_matrices=False)
    inside, scale = u.T @ y, np.maximum((x**2).sum() / x.shape[1], 1e-12)

    def left_out(penalty: float) -> float:
        shrink = size**2 / (size**2 + penalty * scale)
        leverage = (u**2) @ shrink + 1 / len(x)
        return float((((y - u @ (shrink[:, None] * inside)) / (1 - leverage)[:, None]) ** 2).sum())

    penalty = min(PENALTIES, key=left_out)
    weight = vt.T @ ((size / (size**2 + penalty * scale))[:, None] * inside)
    return mean_K + (new_TxS - mean_S) @ weight


def row_means(
    train_MxN: np.ndarray, test_TxN: np.ndarray, columns_TxS: np.ndarray
) -> dict[str, np.ndarray]:
    """Errors (T) of every estimate of the test rows' means from their probes."""
    n = train_MxN.shape[1]
    t, s = columns_TxS.shape
    values_TxS = np.take_along_axis(test_TxN, columns_TxS, 1)
    part_S = np.arange(s) % FOLDS  # probes are in random order already
    held = [part_S == part for part in range(FOLDS)]
    hidden = [values_TxS, *(np.where(out, np.nan, values_TxS) for out in held)]
    # One program for every number of probes: unknown ones are added, and weights are for 30.
    more = ((0, 0), (0, max(MOST_PROBES - s, 0)))
    found = predict_rows(
        train_MxN,
        np.pad(np.tile(columns_TxS, (FOLDS + 1, 1)), more),
        np.pad(np.concatenate(hidden), more, constant_values=np.nan),
        "auto",
        probes=min(30, n // 2),
    ).reshape(FOLDS + 1, t, n)
    whole_TxN = found[0].copy()
    np.put_along_axis(whole_TxN, columns_TxS, values_TxS, 1)
    ridge_T, ridge_parts = np.empty(t), np.empty((FOLDS, t, n))
    for i, (columns_S, values_S) in enumerate(zip(columns_TxS, values_TxS, strict=True)):
        anchors = train_MxN[:, columns_S]
        ridge_T[i] = _ridge(anchors, train_MxN.mean(1, keepdims=True), values_S[None])[0, 0]
        for part, out in enumerate(held):
            ridge_parts[part, i] = _ridge(anchors[:, ~out], train_MxN, values_S[None, ~out])[0]

    def corrected(parts: np.ndarray) -> np.ndarray:
        """Augmented inverse propensity weighting, cross-fitted over parts of the probes."""
        estimate_T = np.zeros(t)
        for out, row_TxN in zip(held, parts, strict=True):
            off_TxS = values_TxS - np.take_along_axis(row_TxN, columns_TxS, 1)
            estimate_T += out.mean() * row_TxN.mean(1) + off_TxS[:, out].sum(1) / s
        return estimate_T

    estimates = {
        "auto": whole_TxN.mean(1),
        "AIPW of auto": corrected(found[1:]),
        "AIPW of ridge": corrected(ridge_parts),
        "ridge on anchors": ridge_T,
        "random sample": values_TxS.mean(1),
    }
    return {name: found - test_TxN.mean(1) for name, found in estimates.items()}


def compare_means(
    z_MxN: np.ndarray, n_train: int, splits: int, counts: Sequence[int]
) -> dict[int, dict[str, np.ndarray]]:
    """By number of probes and estimate the errors of every test row's mean (splits × T)."""
    found: dict[int, dict[str, np.ndarray]] = {}
    for count in counts:
        rows = []
        for split in range(splits):
            train, test = draw(z_MxN, n_train, split)
            columns = probes(z_MxN.shape[1], len(test), count, split)
            rows.append(row_means(z_MxN[train], z_MxN[test], columns))
        found[count] = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return found


def compare_probabilities(
    z_MxN: np.ndarray, n_train: int, splits: int, observed: int = 30
) -> dict[str, np.ndarray]:
    """Brier scores of `auto` on a matrix of zeros and ones, for every split.

    Calibrated on train rows left out, as estimates cut to 0 and 1, and of one probability for all.
    """
    found = []
    for split in range(splits):
        train, test = draw(z_MxN, n_train, split)
        figures = evaluate(z_MxN, train.tolist(), test.tolist(), observed, [split], ["auto"])
        found.append([figures["auto"][name] for name in BRIER.values()])
    return dict(zip(BRIER, np.array(found).T, strict=True))


def compare_intervals(
    z_MxN: np.ndarray, n_train: int, splits: int, observed: int = 30
) -> tuple[dict[str, np.ndarray], float]:
    """What the 90 % intervals of `auto` hold, of every test row of every split.

    Returns:
      By kind splits × T shares: of the row's `entries` that were not probed; `mean`, whether that
      of the row's mean holds it; `groups`, of the intervals of five groups' means (a fifth of the
      columns each, by the train rows' mean). And the mean slope of the rows' deviations.
    """
    found: list[list[tuple[float, float, float]]] = []
    slopes = []
    for split in range(splits):
        train, test = draw(z_MxN, n_train, split)
        rank_N = z_MxN[train].mean(0).argsort(kind="stable").argsort()
        fifth_N = rank_N * GROUPS // len(rank_N)
        masks = [fifth_N >= 0, *(fifth_N == group for group in range(GROUPS))]
        predictor = fit_predictor(z_MxN[train], observed, 0.9, method="auto", groups=masks)
        slopes.append(predictor.levelling.slope)
        held = []
        columns_TxS = probes(z_MxN.shape[1], len(test), observed, split)
        for truth_N, columns_S in zip(z_MxN[test], columns_TxS, strict=True):
            row = predict_row(predictor, columns_S, truth_N[columns_S])
            measured_N = np.full(len(truth_N), np.nan)
            measured_N[columns_S] = truth_N[columns_S]
            left_N = np.isnan(measured_N)
            _, low_G, high_G = predict_means(predictor, row, measured_N)
            mean_G = np.array([truth_N[mask].mean(dtype=np.float64) for mask in masks])
            inside_N = (row.low_N <= truth_N) & (truth_N <= row.high_N)
            inside_G = (low_G <= mean_G) & (mean_G <= high_G)
            held.append((inside_N[left_N].mean(), float(inside_G[0]), inside_G[1:].mean()))
        found.append(held)
    entries, mean, groups = np.moveaxis(np.array(found), -1, 0)
    return {"entries": entries, "mean": mean, "groups": groups}, float(np.mean(slopes))


def ratings(
    seed: int = 0, rows: int = 943, columns: int = 1682, known: int = 100_000
) -> tuple[np.ndarray, np.ndarray]:
    """Ratings of 1 to 5 like MovieLens 100k, and which of them are known (about 6 %).

    Columns differ in popularity by a power law, and popular ones are rated higher; rows differ in
    how much they rate; 12 factors and noise.
    """
    rng = np.random.default_rng(seed)
    popular_N = rng.permutation(1 / np.arange(4, columns + 4) ** 0.9)
    active_M = rng.lognormal(0, 0.9, rows)
    rate = np.outer(active_M / active_M.sum(), popular_N / popular_N.sum()) * known
    for _ in range(8):
        rate *= known / (1 - np.exp(-rate)).sum()
    known_MxN = rng.random((rows, columns)) < 1 - np.exp(-rate)
    scale_k = 0.8 ** np.arange(12)
    scale_k *= 0.45 / np.sqrt((scale_k**2).sum())
    z = 3.5 + 0.42 * rng.normal(size=(rows, 1)) + 0.5 * rng.normal(size=(1, columns))
    z += 0.2 * np.log(popular_N / np.median(popular_N))
    z += (rng.normal(size=(rows, 12)) * scale_k) @ rng.normal(size=(12, columns))
    z += 0.85 * rng.normal(size=z.shape)
    return np.clip(np.rint(z), 1, 5).astype(np.float32), known_MxN


def compare_ratings(seeds: int, methods: Sequence[str]) -> dict[str, np.ndarray]:
    """RMSE of a hidden tenth of the known ratings, for every seed."""
    errors: dict[str, list[float]] = {name: [] for name in methods}
    for seed in range(seeds):
        z_MxN, known_MxN = ratings(seed)
        test = known_MxN & (np.random.default_rng(1000 + seed).random(z_MxN.shape) < 0.1)
        for name in methods:
            found = complete(z_MxN, known_MxN & ~test, name)
            errors[name].append(float(np.sqrt(np.mean((found - z_MxN)[test] ** 2))))
    return {name: np.array(found) for name, found in errors.items()}
