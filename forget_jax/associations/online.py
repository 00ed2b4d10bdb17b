"""A new task's row from its probes, with intervals, in milliseconds and without refitting.

What the train rows say is computed once (`fit_predictor`); a new row (`predict_row`) then costs one
small solve and one product with the columns. The intervals' width is calibrated on train rows, each
predicted from the others: the share of their entries decides, not the Gaussian quantile. Rows differ
less in it than the model has them differ, and by how much these rows tell. So are the intervals of
means over groups of examples: there each held-out row counts once.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from forget_jax.associations import checks, evaluation
from forget_jax.associations.completion import METHODS, complete, mixture, resolve
from forget_jax.errors import UserError

FEWEST = 4  # train rows
FEWEST_PROBES = 3  # of a group, for a mean that they correct
POOLED = 5
CAUTION = 10  # rows' worth of evidence that the model's deviations are right

# What predicts: the method's name, its options, its state, and the mixture for the deviations.
Fitted = tuple[str, Any, Any, mixture.Prepared]


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


@dataclasses.dataclass(frozen=True)
class Predictor:
    """What is kept of the train rows.

    Attributes:
      fitted: the method and the models.
      width: half width of an interval in predictive standard deviations.
      levelling: the factor of a row's deviations by their mean.
      coverage: share of entries the intervals are meant to hold.
      n_columns: N.
      rmse: of entries of the train rows, each predicted from the others.
      groups_GxN: boolean, the columns of each group of which means are wanted.
      width_G: half width of a mean's interval, in mean deviations of what is not measured of it.
    """

    fitted: Fitted
    width: float
    levelling: Levelling
    coverage: float
    n_columns: int
    rmse: float
    groups_GxN: np.ndarray
    width_G: np.ndarray


@dataclasses.dataclass(frozen=True)
class PredictedRow:
    """A predicted row.

    Attributes:
      mean_N: float32, in the unit of the matrix; probed entries are predicted too, not copied.
      low_N, high_N: ends of the interval of every entry.
    """

    mean_N: np.ndarray
    low_N: np.ndarray
    high_N: np.ndarray


@functools.partial(jax.jit, static_argnames="method")
def _predict(
    method: str, options: Any, state: Any, spread: mixture.Prepared, columns_S: Any, values_S: Any
) -> tuple[jax.Array, jax.Array]:
    mean_N, variance_N = mixture.predict(spread, columns_S, values_S)
    if method != "mixture":
        extend: Any = METHODS[method].extend
        mean_N = extend(state, columns_S, values_S, jax.random.key(0), options)
    return mean_N, jnp.sqrt(variance_N)


@functools.partial(jax.jit, static_argnames="method")
def _prepare(method: str, options: Any, z_MxN: jax.Array) -> Any:
    prepare: Any = METHODS[method].prepare
    return prepare(z_MxN, options)


@functools.partial(jax.jit, static_argnames="method")
def _again(method: str, options: Any, state: Any, z_MxN: jax.Array) -> Any:
    again: Any = METHODS[method].again
    return again(state, z_MxN, options)


def _fit(
    z_MxN: np.ndarray, method: str, given: dict[str, Any], whole: Fitted | None = None
) -> Fitted:
    """What predicts from some train rows; what is slow to choose is kept of `whole`, of all."""
    z = jnp.asarray(z_MxN)
    if method == "mixture":
        options = resolve(method, given, *z_MxN.shape)[1]
        return method, options, None, _prepare(method, options, z)
    spread = _prepare("mixture", resolve("mixture", {}, *z_MxN.shape)[1], z)
    if whole is not None and METHODS[method].again is not None:
        return method, whole[1], _again(method, whole[1], whole[2], z), spread
    options = resolve(method, given, *z_MxN.shape)[1]
    return method, options, _prepare(method, options, z), spread


def fit_predictor(
    train: Any,
    n_observed: int,
    coverage: float = 0.9,
    draws: int = 5,
    *,
    method: str = "mixture",
    columns: Any = None,
    groups: Sequence[Any] = (),
    **options: Any,
) -> Predictor:
    """Prepares predictions of new tasks from `n_observed` probes each.

    Args:
      train: M × N train rows, float, in any unit; NaN entries are first completed.
      n_observed: how many entries of a new row will be known; the intervals are calibrated for it.
      coverage: share of entries that intervals are to hold, between 0 and 1.
      draws: random draws of known columns for each held-out train row.
      method: what gives the means, one of METHODS that extends; deviations are the mixture's.
      columns: numbers of the columns that will be known, where that is settled: intervals are then
        calibrated for these and not for random draws.
      groups: boolean masks of columns, of whose means `predict_means` will give intervals.
      **options: settings of the method.

    Returns:
      What `predict_row` takes. It costs M small decompositions, once.

    Raises:
      UserError: fewer than four train rows, a coverage outside (0, 1), too many observed entries,
        or a method that cannot extend what it has prepared.
    """
    train_MxN = checks.as_matrix(train, "the matrix of train rows")
    if train_MxN.shape[0] < FEWEST:
        raise UserError(f"calibrating intervals needs at least 4 train rows, not {len(train_MxN)}")
    if not 0 < coverage < 1:
        raise UserError(f"coverage must lie between 0 and 1, not {coverage}")
    if method in METHODS and METHODS[method].extend is None:
        able = ", ".join(name for name, one in METHODS.items() if one.extend is not None)
        raise UserError(f"{method} fits every row anew; rows with intervals take {able}")
    missing_MxN = np.isnan(train_MxN)
    if missing_MxN.any():
        given = options if method == "mixture" else {}
        train_MxN = complete(train_MxN, ~missing_MxN, "mixture", **given)
    n = train_MxN.shape[1]
    if columns is None:
        columns_GxS = evaluation.observed_columns(n, n_observed, range(20_000, 20_000 + draws))
    else:
        columns_GxS = checks.as_rows(columns, n, "the columns that will be known")[None]
    if method == "auto":
        options = {"probes": columns_GxS.shape[1]} | options
    whole = _fit(train_MxN, method, options)
    groups_GxN = np.array(groups, bool).reshape(len(groups), n)
    widths: list[np.ndarray] = []
    squares, ratios, deviations = [], [], []
    for i, row_N in enumerate(train_MxN):
        fitted = _fit(np.delete(train_MxN, i, 0), method, options, whole)
        for columns_S in columns_GxS:
            mean_N, deviation_N = map(np.asarray, _predict(*fitted, columns_S, row_N[columns_S]))
            error_N = row_N - mean_N
            width_N = np.abs(error_N) / deviation_N
            width_N[~np.isfinite(width_N)] = np.inf  # a prediction that is no number
            left_N = ~missing_MxN[i]
            left_N[columns_S] = False
            widths.append(width_N[left_N])
            squares.append(error_N[left_N] ** 2)
            deviations.append(deviation_N)
            among = groups_GxN & left_N
            ratio_G = np.abs(among @ error_N) / np.maximum(among @ deviation_N, 1e-30)
            ratios.append(np.where(among.any(1), ratio_G, np.nan))
    levelling = _levelling(widths, deviations, coverage, len(train_MxN))
    factor_K = np.array([levelling.of(d) for d in deviations])
    known = np.concatenate([w / f for w, f in zip(widths, factor_K, strict=True)])
    if not known.size or not np.isfinite(width := float(np.quantile(known, coverage))):
        raise UserError("no interval can be given: no prediction of the train rows is finite")
    error = float(np.sqrt(np.concatenate(squares).mean()))
    width_G = _of_means(np.array(ratios) / factor_K[:, None], coverage, len(train_MxN))
    return Predictor(whole, width, levelling, coverage, n, error, groups_GxN, width_G)


def _levelling(
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


def _of_means(ratio_KxG: np.ndarray, coverage: float, rows: int) -> np.ndarray:
    """The quantile of each group's ratios that a further row stays below (split conformal)."""
    level = min(1.0, np.ceil((rows + 1) * coverage) / rows)
    known = ~np.isnan(ratio_KxG)
    found = [
        np.quantile(r[k], level, method="higher") if k.any() else np.inf
        for r, k in zip(ratio_KxG.T, known.T, strict=True)
    ]
    return np.array(found, float)


def predict_row(predictor: Predictor, columns: Any, values: Any) -> PredictedRow:
    """The whole row of a new task from its values in some columns.

    Args:
      predictor: made by `fit_predictor`.
      columns: numbers of the S probed columns.
      values: S numbers, in the unit of the train rows; NaN means that one is not known after all.

    Raises:
      UserError: another number of values than of columns, columns outside the matrix or named
        twice, infinite values.
    """
    columns_S = checks.as_rows(columns, predictor.n_columns, "the probed columns")
    values_S = np.asarray(values, np.float32).reshape(-1)
    if values_S.shape != columns_S.shape or np.isinf(values_S).any():
        raise UserError(f"{columns_S.size} probed columns need as many finite values (or NaN)")
    mean_N, deviation_N = map(np.asarray, _predict(*predictor.fitted, columns_S, values_S))
    half_N = predictor.width * predictor.levelling.of(deviation_N) * deviation_N
    return PredictedRow(mean_N, mean_N - half_N, mean_N + half_N)


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
    deviation_N = (row.high_N - row.mean_N) / predictor.width
    groups = predictor.groups_GxN
    size_G = groups.sum(1)
    mean_G = groups @ z_N / size_G
    left_G = (groups & ~known_N) @ deviation_N
    # a group that is measured whole has no interval, however wide one of others would be
    half_G = np.where(left_G > 0, predictor.width_G, 0) * left_G / size_G
    return mean_G, mean_G - half_G, mean_G + half_G


def robust_means(
    predictor: Predictor, columns: Any, values: Any, folds: int = 5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of groups that random probes correct: right on average however wrong the predictions.

    The doubly robust estimate (augmented inverse propensity weighting, Robins et al. 1994) with
    cross-fitting (Chernozhukov et al. 2018): the mean of a row predicted without a part of the
    probes, plus the mean error of these predictions on that part. Unlike `predict_means` it asks
    nothing of the train rows, but that the probes are a random sample of the columns.

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
        mean_N = np.asarray(_predict(*predictor.fitted, columns_S, others_S)[0], float)
        row_N += mean_N * out_S.mean()
        error_S[out_S] = values_S[out_S] - mean_N[columns_S[out_S]]
    groups = predictor.groups_GxN
    among_GxS = groups[:, columns_S]
    probed_G, size_G = among_GxS.sum(1), groups.sum(1)
    enough = probed_G >= FEWEST_PROBES
    count_G = np.where(enough, probed_G, np.nan)
    off_G = among_GxS @ error_S / count_G
    mean_G = groups @ row_N / size_G + off_G
    # Few probes tell little of their variance: that of all counts as POOLED more of a group's own.
    own_G = (among_GxS * (error_S - off_G[:, None]) ** 2).sum(1)
    freedom_G = count_G - 1 + POOLED
    square_G = (own_G + POOLED * error_S.var(ddof=1)) / freedom_G
    half_G = scipy.stats.t.ppf((1 + predictor.coverage) / 2, freedom_G) * np.sqrt(
        square_G / count_G * (1 - count_G / size_G)
    )
    return mean_G, mean_G - half_G, mean_G + half_G
