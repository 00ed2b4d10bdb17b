"""A new task's row from its probes, with intervals, in milliseconds and without refitting.

What the train rows say is computed once (`fit_predictor`); a new row (`predict_row`) then costs one
small solve and one product with the columns. The intervals' width is calibrated on train rows, each
predicted from the others: the share of their entries decides, not the Gaussian quantile. Rows'
deviations differ less than the model has it; by how much, these rows tell. So are the intervals of
means over groups of examples calibrated: there each held-out row counts once. Of entries that are
zeros and ones the same rows say how probable a one is.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.associations import calibration, checks, evaluation, intervals
from forget_jax.associations.completion import METHODS, auto, complete, mixture, resolve
from forget_jax.associations.task_features import TaskFeatures
from forget_jax.errors import UserError

FEWEST = 4  # train rows
FEWEST_KNOWING = 8  # train rows, to learn from few what features of a task say

# What predicts: the method's name, its options, its state, and the mixture for the deviations.
Fitted = tuple[str, Any, Any, mixture.Prepared]


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
      probability: of a matrix of zeros and ones, what estimates are turned into; else None.
      judged: how good such probabilities were on the train rows left out; else None.
      side: by kind of features, the share of the weight that estimates by them have.
      tasks: features of the tasks themselves, where these were found to help; else None.
    """

    fitted: Fitted
    width: float
    levelling: intervals.Levelling
    coverage: float
    n_columns: int
    rmse: float
    groups_GxN: np.ndarray
    width_G: np.ndarray
    probability: calibration.Calibration | None = None
    judged: calibration.Judged | None = None
    side: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tasks: TaskFeatures | None = None

    def knowing(self, features: Any) -> "Predictor":
        """The same, for a new task with these features (P; NaN: not known), where they help."""
        if self.tasks is None:
            return self
        return dataclasses.replace(self, tasks=self.tasks.of(features))

    def estimate(self, columns_S: Any, values_S: Any) -> tuple[np.ndarray, np.ndarray]:
        """A row's mean and its deviation by the model (N each), from entries that are known."""
        if self.tasks is not None:
            columns_S = np.r_[columns_S, self.n_columns + np.arange(self.tasks.count)]
            values_S = np.r_[values_S, self.tasks.value_P].astype(np.float32)
        found = row_and_deviation(*self.fitted, columns_S, values_S)
        mean_N, deviation_N = (np.asarray(x)[: self.n_columns] for x in found)
        return mean_N, deviation_N


@dataclasses.dataclass(frozen=True)
class PredictedRow:
    """A predicted row.

    Attributes:
      mean_N: float32, in the unit of the matrix; probed entries are predicted too, not copied.
      low_N, high_N: ends of the interval of every entry.
      deviation_N: of every entry by the model, levelled; intervals are some times as wide.
      probability_N: of being 1, in a matrix of zeros and ones; else None.
    """

    mean_N: np.ndarray
    low_N: np.ndarray
    high_N: np.ndarray
    deviation_N: np.ndarray
    probability_N: np.ndarray | None = None


@functools.partial(jax.jit, static_argnames="method")
def row_and_deviation(
    method: str, options: Any, state: Any, spread: mixture.Prepared, columns_S: Any, values_S: Any
) -> tuple[jax.Array, jax.Array]:
    """A row's mean by the method, and its deviation by the mixture (N each)."""
    mean_N, variance_N = mixture.predict(spread, columns_S, values_S)
    if method != "mixture":
        extend: Any = METHODS[method].extend
        mean_N = extend(state, columns_S, values_S, jax.random.key(0), options)
    return mean_N, jnp.sqrt(variance_N)


@functools.partial(jax.jit, static_argnames="method")
def _prepare(method: str, options: Any, z_MxN: jax.Array, side: Any = ()) -> Any:
    prepare: Any = METHODS[method].prepare
    return prepare(z_MxN, options, side) if side else prepare(z_MxN, options)


@functools.partial(jax.jit, static_argnames="method")
def _again(method: str, options: Any, state: Any, z_MxN: jax.Array) -> Any:
    again: Any = METHODS[method].again
    return again(state, z_MxN, options)


def _fit(
    z_MxN: np.ndarray,
    method: str,
    given: dict[str, Any],
    whole: Fitted | None = None,
    side: Any = (),
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
    return method, options, _prepare(method, options, z, side), spread


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
      groups: boolean masks of columns, of whose means `means.predict_means` will give intervals.
      **options: settings of the method; and of `auto`, as `side`, what it may know of the columns
        beside: by name of the kind its features, p × N numbers. And as `tasks` features of the
        train rows, M × P numbers, such as their losses in training: they count as entries that are
        always known, and are kept where train rows left out are predicted better with them. Not
        of fewer than eight rows, where one is not finite, or in a matrix of zeros and ones.

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
    features = options.pop("tasks", None)
    binary = calibration.is_binary(train_MxN)  # before its gaps are filled
    missing_MxN = np.isnan(train_MxN)
    if missing_MxN.any():
        given = {k: v for k, v in options.items() if k != "side"} if method == "mixture" else {}
        train_MxN = complete(train_MxN, ~missing_MxN, "mixture", **given)
    n = train_MxN.shape[1]
    if columns is None:
        columns_GxS = evaluation.observed_columns(n, n_observed, range(20_000, 20_000 + draws))
    else:
        columns_GxS = checks.as_rows(columns, n, "the columns that will be known")[None]
    groups_GxN = np.array(groups, bool).reshape(len(groups), n)
    given_rows = _Rows(train_MxN, missing_MxN, columns_GxS, groups_GxN, coverage, binary)
    plain, error_M = _calibrated(given_rows, method, options)
    tasks = None if features is None else TaskFeatures.scaled(features, train_MxN)
    if tasks is None or len(train_MxN) < FEWEST_KNOWING or binary:
        return plain
    joined, less_M = _calibrated(given_rows.beside(tasks), method, tasks.widened(options))
    if np.sqrt(less_M).mean() >= np.sqrt(error_M).mean():
        return plain
    return dataclasses.replace(joined, n_columns=n, groups_GxN=groups_GxN, tasks=tasks)


class _Rows(NamedTuple):
    """Train rows, what of them was missing, draws of known columns, groups, a coverage, and
    whether what was there holds zeros and ones alone.
    """

    train_MxN: np.ndarray
    missing_MxN: np.ndarray
    columns_GxS: np.ndarray
    groups_GxN: np.ndarray
    coverage: float
    binary: bool

    def beside(self, tasks: TaskFeatures) -> "_Rows":
        """The same with features as further columns, always known and of no group."""
        n, p = self.train_MxN.shape[1], tasks.count
        always_GxP = np.broadcast_to(n + np.arange(p), (len(self.columns_GxS), p))
        return self._replace(
            train_MxN=np.concatenate([self.train_MxN, tasks.train_MxP], 1),
            missing_MxN=np.pad(self.missing_MxN, ((0, 0), (0, p))),
            columns_GxS=np.concatenate([self.columns_GxS, always_GxP], 1),
            groups_GxN=np.pad(self.groups_GxN, ((0, 0), (0, p))),
        )


def _calibrated(rows: _Rows, method: str, options: dict[str, Any]) -> tuple[Predictor, np.ndarray]:
    """A predictor whose intervals are as wide as the rows, each left out, need.

    Beside it the mean squared error of each row (M) when it was left out.
    """
    train_MxN, missing_MxN, columns_GxS, groups_GxN, coverage, binary = rows
    n = train_MxN.shape[1]
    options = dict(options)
    side: Mapping[str, Any] = options.pop("side", {})
    if method == "auto":
        options = {"probes": columns_GxS.shape[1]} | options
    kinds = checks.as_side(tuple(side.values()), n, method)
    whole = _fit(train_MxN, method, options, side=tuple(map(jnp.asarray, kinds)))
    widths: list[np.ndarray] = []
    squares, ratios, deviations = [], [], []
    value_MxDxN = np.zeros((len(train_MxN), len(columns_GxS), n) if binary else 0, np.float32)
    truth_MxDxN = np.full(value_MxDxN.shape, np.nan, np.float32)
    for i, row_N in enumerate(train_MxN):
        fitted = _fit(np.delete(train_MxN, i, 0), method, options, whole)
        for draw, columns_S in enumerate(columns_GxS):
            mean_N, deviation_N = map(
                np.asarray, row_and_deviation(*fitted, columns_S, row_N[columns_S])
            )
            error_N = row_N - mean_N
            width_N = np.abs(error_N) / deviation_N
            width_N[~np.isfinite(width_N)] = np.inf  # a prediction that is no number
            left_N = ~missing_MxN[i]
            left_N[columns_S] = False
            widths.append(width_N[left_N])
            squares.append(error_N[left_N] ** 2)
            deviations.append(deviation_N)
            if binary:
                value_MxDxN[i, draw] = mean_N
                truth_MxDxN[i, draw, left_N] = row_N[left_N]
            among = groups_GxN & left_N
            ratio_G = np.abs(among @ error_N) / np.maximum(among @ deviation_N, 1e-30)
            ratios.append(np.where(among.any(1), ratio_G, np.nan))
    levelling = intervals.levelled(widths, deviations, coverage, len(train_MxN))
    factor_K = np.array([levelling.of(d) for d in deviations])
    known = np.concatenate([w / f for w, f in zip(widths, factor_K, strict=True)])
    if not known.size or not np.isfinite(width := float(np.quantile(known, coverage))):
        raise UserError("no interval can be given: no prediction of the train rows is finite")
    error = float(np.sqrt(np.concatenate(squares).mean()))
    width_G = intervals.of_means(np.array(ratios) / factor_K[:, None], coverage, len(train_MxN))
    found = Predictor(whole, width, levelling, coverage, n, error, groups_GxN, width_G)
    if side:
        shares = dict(zip(side, auto.side_weights(whole[2]), strict=True))
        found = dataclasses.replace(found, side=shares)
    means = [float(x.mean()) if x.size else 0.0 for x in squares]
    error_MxD = np.reshape(means, (-1, len(columns_GxS)))
    if binary:
        found = dataclasses.replace(
            found,
            probability=calibration.fitted(value_MxDxN, truth_MxDxN),
            judged=calibration.judged(value_MxDxN, truth_MxDxN),
        )
    return found, error_MxD.mean(1)


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
    mean_N, deviation_N = predictor.estimate(columns_S, values_S)
    deviation_N = predictor.levelling.of(deviation_N) * deviation_N
    half_N = predictor.width * deviation_N
    probability_N = predictor.probability.of(mean_N) if predictor.probability else None
    return PredictedRow(mean_N, mean_N - half_N, mean_N + half_N, deviation_N, probability_N)
