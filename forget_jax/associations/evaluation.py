"""The paper's protocol: some rows train, the others are predicted from a few observed entries.

For each seed, S columns are drawn; every test task is predicted from its entries in them and the
train rows alone (arXiv 2406.14026, section 4), and scored on its other columns. All test tasks and
seeds of a method are one compiled call.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from forget_jax.associations import calibration, checks, metrics
from forget_jax.associations.completion import METHODS, predict_left_out, predict_rows
from forget_jax.errors import UserError

Settings = Mapping[str, Any]
FEWEST = 4  # train rows, to calibrate probabilities on
DRAWS = 4  # of known columns for each of them


def observed_columns(n_columns: int, n_observed: int, seeds: Sequence[int]) -> np.ndarray:
    """G × S column numbers, drawn without replacement, the same for every test task of a seed.

    Raises:
      UserError: not 0 < `n_observed` < `n_columns`.
    """
    if n_columns < 2:
        raise UserError("a matrix of one column: beside what is observed none is left to predict")
    if not 0 < n_observed < n_columns:
        raise UserError(
            f"{n_observed} observed entries of {n_columns} columns: take 1 to {n_columns - 1}, "
            "so that some are left to predict"
        )
    return np.stack(
        [np.random.default_rng(s).choice(n_columns, n_observed, replace=False) for s in seeds]
    )


def split_rows(
    z: Any, train_rows: Sequence[int], test_rows: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Train and test rows (M × N and T × N) of a matrix.

    Raises:
      UserError: rows outside the matrix, named twice, or in both; a test row without known entries.
    """
    z_MxN = checks.as_matrix(z)
    train = checks.as_rows(train_rows, z_MxN.shape[0], "the train split")
    test = checks.as_rows(test_rows, z_MxN.shape[0], "the test split")
    shared = np.intersect1d(train, test)
    if shared.size:
        raise UserError(f"row {shared[0]} is both a train and a test task")
    empty = test[np.isnan(z_MxN[test]).all(1)]
    if empty.size:
        raise UserError(f"test row {empty[0]} has no known entry to score")
    return z_MxN[train], z_MxN[test]


def predict_split(
    train_MxN: np.ndarray,
    test_TxN: np.ndarray,
    columns_GxS: np.ndarray,
    seeds: Sequence[int],
    method: str,
    settings: Settings | None = None,
) -> np.ndarray:
    """Predictions G × T × N of every test row from its entries in each seed's columns.

    Args:
      train_MxN, test_TxN: float rows of one matrix.
      columns_GxS: the columns known of every test row, a set for each seed.
      seeds: G seeds of the methods that start at random.
      method, settings: as for `complete`.
    """
    g, s = columns_GxS.shape
    t, n = test_TxN.shape
    columns_GxTxS = np.broadcast_to(columns_GxS[:, None, :], (g, t, s))
    values_GxTxS = test_TxN[:, columns_GxS].transpose(1, 0, 2)
    predicted = predict_rows(
        train_MxN,
        columns_GxTxS.reshape(g * t, s),
        values_GxTxS.reshape(g * t, s),
        method,
        seeds=np.repeat(np.asarray(seeds), t),
        **(settings or {}),
    )
    return predicted.reshape(g, t, n)


def evaluate(
    z: Any,
    train_rows: Sequence[int],
    test_rows: Sequence[int],
    n_observed: int,
    seeds: int | Sequence[int],
    methods: Sequence[str] | Mapping[str, Settings],
    k: int = 50,
) -> dict[str, dict[str, Any]]:
    """Scores completion methods on test rows, each seen only at S random columns.

    Args:
      z: a matrix, float, in any unit; NaN entries are neither observed nor scored.
      train_rows, test_rows: row numbers; they may not share any.
      n_observed: S, entries observed of each test row.
      seeds: how many draws of the S columns, or the seeds themselves.
      methods: names in METHODS, or a mapping of any label to settings, in which `method` names the
        method where the label does not.
      k: of `precision_at_k`, at most half of the scored columns.

    Returns:
      For each method, the mean over seeds of every metric of `metrics.score`, the standard
      deviation over seeds as `<metric>_std`, each seed's value under `per_seed`, `settings`, and
      `seconds` (wall, compilation included), and `k`, and each test task's mean over
      seeds as `precision_at_k_by_task`. An entry counts as forgotten above 0.

      In a matrix of zeros and ones it does so above 0.5, and with four train rows or more there are
      probabilities, calibrated on train rows left out: `brier` is their score (a metric), and
      `reliability` as `calibration.reliability` has it; `brier_clipped` is the score of the
      estimates as they are, cut to 0 and 1, `brier_base` that of the share of ones in the train
      rows.

    Raises:
      UserError: rows outside the matrix or in both splits, too many observed entries, no entry left
        to score, infinities, an unknown method or setting.
    """
    train_MxN, test_TxN = split_rows(z, train_rows, test_rows)
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    if len(seeds) == 0:
        raise UserError("the protocol needs at least one seed")
    columns_GxS = observed_columns(train_MxN.shape[1], n_observed, seeds)
    known_TxN = ~np.isnan(test_TxN)
    for columns_S in columns_GxS:
        if known_TxN[:, columns_S].sum() == known_TxN.sum():
            raise UserError(
                f"the {n_observed} observed columns of a seed hold all {known_TxN.sum()} known "
                "entries of the test rows, so none is left to score: observe fewer"
            )
    k = max(min(k, (train_MxN.shape[1] - n_observed) // 2), 1)
    binary = calibration.is_binary(train_MxN) and calibration.is_binary(test_TxN)
    if not isinstance(methods, Mapping):
        methods = {name: {} for name in methods}
    results = {}
    truth_GxTxN = np.repeat(test_TxN[None], len(seeds), 0)
    np.put_along_axis(truth_GxTxN, columns_GxS[:, None, :], np.nan, 2)
    for label, settings in methods.items():
        options = {name: value for name, value in settings.items() if name != "method"}
        method = settings.get("method", label)
        start = time.perf_counter()
        predicted = predict_split(train_MxN, test_TxN, columns_GxS, seeds, method, options)
        seconds = time.perf_counter() - start
        probability = None
        if binary and len(train_MxN) >= FEWEST and np.isfinite(predicted).all():
            probability = _calibrated(train_MxN, n_observed, method, options).of(predicted)
        rows, shares = [], []
        for seed, truth_TxN in enumerate(truth_GxTxN):
            row = metrics.score(truth_TxN, predicted[seed], 0.5 if binary else 0.0, k)
            shares.append(metrics.precision_at(truth_TxN, predicted[seed], k))
            if probability is not None:
                row["brier"] = calibration.brier(probability[seed], truth_TxN)
            rows.append(row)
        found = summarise(rows) | {"settings": dict(settings), "seconds": seconds}
        found |= {"k": k, "precision_at_k_by_task": np.mean(shares, 0).tolist()}
        if probability is not None:
            found["brier_clipped"] = calibration.brier(np.clip(predicted, 0, 1), truth_GxTxN)
            found["brier_base"] = calibration.brier(np.nanmean(train_MxN), truth_GxTxN)
            found["reliability"] = calibration.reliability(probability, truth_GxTxN)
        results[label] = found
    return results


def _calibrated(
    train_MxN: np.ndarray, n_observed: int, method: str, options: Settings
) -> calibration.Calibration:
    """From every train row, left out and estimated from `n_observed` of its entries."""
    # Draws of their own, beyond any small seeds.
    draws = DRAWS if METHODS[method].extend is not None else 1
    columns_DxS = observed_columns(train_MxN.shape[1], n_observed, range(40_000, 40_000 + draws))
    value_MxDxN = predict_left_out(train_MxN, columns_DxS, method, **options)
    truth_MxDxN = np.repeat(train_MxN[:, None], draws, 1)
    np.put_along_axis(truth_MxDxN, columns_DxS[None], np.nan, 2)
    known = ~np.isnan(truth_MxDxN) & np.isfinite(value_MxDxN)
    return calibration.fitted(value_MxDxN[known], truth_MxDxN[known])


def summarise(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation of each metric over seeds, and the values themselves."""
    per_seed = {name: [row[name] for row in rows] for name in rows[0]}
    summary: dict[str, Any] = {}
    for name, values in per_seed.items():
        summary[name] = float(np.mean(values))
        summary[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return summary | {"per_seed": per_seed}


def paired_difference(
    results: Mapping[str, Mapping[str, Any]], a: str, b: str, metric: str = "rmse"
) -> dict[str, float]:
    """Mean of a − b over seeds, which share their columns, with a 95 % t interval and p value.

    Args:
      results: as `evaluate` returns.
      a, b: labels of two methods in it.
      metric: a name of `metrics.score`.

    Returns:
      `mean`, `low`, `high` in the metric's unit, `p` (two-sided, paired t) and `seeds`.

    Raises:
      UserError: fewer than two seeds, or a label or metric that is not there.
    """
    for name in (a, b):
        if name not in results or metric not in results[name]["per_seed"]:
            raise UserError(f"no {metric} of {name!r}: the results are of {', '.join(results)}")
    values = [np.asarray(results[name]["per_seed"][metric]) for name in (a, b)]
    return interval(values[0] - values[1])


def interval(difference_G: np.ndarray) -> dict[str, float]:
    """95 % t interval and two-sided p of the mean of paired differences, G of them.

    Where a difference is not finite, neither is any figure.

    Raises:
      UserError: fewer than two differences.
    """
    from scipy.stats import t

    n = difference_G.size
    if n < 2:
        raise UserError("an interval needs at least two seeds")
    if not np.isfinite(difference_G).all():
        return {**dict.fromkeys(("mean", "low", "high", "p"), float("nan")), "seeds": n}
    mean = float(difference_G.mean())
    error = float(difference_G.std(ddof=1) / np.sqrt(n))
    half = float(t.ppf(0.975, n - 1)) * error
    p = float(2 * t.sf(abs(mean) / error, n - 1)) if error > 0 else float(mean == 0)
    return {"mean": mean, "low": mean - half, "high": mean + half, "p": p, "seeds": n}
