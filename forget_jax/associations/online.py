"""A new task's row from its probes, with intervals, in milliseconds and without refitting.

What the train rows say is computed once (`fit_predictor`); a new row (`predict_row`) then costs one
small solve and one product with the columns. The intervals' width is calibrated on train rows, each
predicted from the others: the share of their entries decides, not the Gaussian quantile.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.associations import checks, evaluation
from forget_jax.associations.completion import complete, mixture, resolve
from forget_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Predictor:
    """What is kept of the train rows.

    Attributes:
      state: the mixture of factor models.
      width: half width of an interval in predictive standard deviations.
      coverage: share of entries the intervals are meant to hold.
      n_columns: N.
    """

    state: mixture.Prepared
    width: float
    coverage: float
    n_columns: int


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


@jax.jit
def _predict(state: mixture.Prepared, columns_S: jax.Array, values_S: jax.Array) -> Any:
    mean_N, variance_N = mixture.predict(state, columns_S, values_S)
    return mean_N, jnp.sqrt(variance_N)


_prepare = jax.jit(mixture.prepare)


def _state(z_MxN: np.ndarray, options: dict[str, Any]) -> mixture.Prepared:
    return _prepare(jnp.asarray(z_MxN), resolve("mixture", options, *z_MxN.shape)[1])


def fit_predictor(
    train: Any, n_observed: int, coverage: float = 0.9, draws: int = 5, **options: Any
) -> Predictor:
    """Prepares predictions of new tasks from `n_observed` probes each.

    Args:
      train: M × N train rows, float, in any unit; NaN entries are first completed.
      n_observed: how many entries of a new row will be known; the intervals are calibrated for it.
      coverage: share of entries that intervals are to hold, between 0 and 1.
      draws: random draws of known columns for each held-out train row.
      **options: settings of the `mixture` method, `rank` and `offset`.

    Returns:
      What `predict_row` takes. It costs M small decompositions, once.

    Raises:
      UserError: fewer than four train rows, a coverage outside (0, 1), too many observed entries.
    """
    train_MxN = checks.as_matrix(train, "the matrix of train rows")
    if train_MxN.shape[0] < 4:
        raise UserError(f"calibrating intervals needs at least 4 train rows, not {len(train_MxN)}")
    if not 0 < coverage < 1:
        raise UserError(f"coverage must lie between 0 and 1, not {coverage}")
    missing_MxN = np.isnan(train_MxN)
    if missing_MxN.any():
        train_MxN = complete(train_MxN, ~missing_MxN, "mixture", **options)
    columns_GxS = evaluation.observed_columns(
        train_MxN.shape[1], n_observed, range(20_000, 20_000 + draws)
    )
    widths = []
    for i, row_N in enumerate(train_MxN):
        state = _state(np.delete(train_MxN, i, 0), options)
        for columns_S in columns_GxS:
            mean_N, deviation_N = _predict(state, columns_S, row_N[columns_S])
            width_N = np.abs(row_N - mean_N) / np.asarray(deviation_N)
            width_N[~np.isfinite(width_N)] = np.inf  # a prediction that is no number
            width_N[columns_S] = np.nan
            width_N[missing_MxN[i]] = np.nan
            widths.append(width_N)
    known = np.stack(widths)
    known = known[~np.isnan(known)]
    if not known.size or not np.isfinite(width := float(np.quantile(known, coverage))):
        raise UserError("no interval can be given: no prediction of the train rows is finite")
    return Predictor(_state(train_MxN, options), width, coverage, train_MxN.shape[1])


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
    mean_N, deviation_N = map(np.asarray, _predict(predictor.state, columns_S, values_S))
    half_N = predictor.width * deviation_N
    return PredictedRow(mean_N, mean_N - half_N, mean_N + half_N)
