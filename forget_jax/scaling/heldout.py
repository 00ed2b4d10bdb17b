"""The error of a law on ranks or runs that were left out of its fit, and that of the nulls."""

from dataclasses import replace
from typing import Any

import numpy as np

from forget_jax.errors import UserError
from forget_jax.scaling import resample
from forget_jax.scaling.fitted import predictions
from forget_jax.scaling.lanes import best_of, root_weight, solve_law
from forget_jax.scaling.laws import LAWS, NULLS, Law
from forget_jax.scaling.options import FitOptions
from forget_jax.scaling.points import Points, read_points
from forget_jax.scaling.solve import LANES, draw_starts

_FOLD_LIMIT = 16


def heldout_error(law: Law, data: Points, warm_SxZ: np.ndarray, options: FitOptions) -> float:
    """Mean absolute error of the main target on groups left out, each refitted from warm starts.

    NaN where the table cannot spare a group.
    """
    keep_FxN = resample.leave_out(data.fold_N, _FOLD_LIMIT)
    folds = len(keep_FxN)
    if folds < 2 or (keep_FxN.sum(axis=1) < len(law.parameters)).any():
        return float("nan")
    each = max(1, LANES // folds) if len(law.shape) else 1
    z_SxZ = np.tile(np.resize(warm_SxZ, (each, len(law.shape))), (folds, 1))
    weight_SxN = np.repeat(keep_FxN * root_weight(data, options.loss), each, axis=0)
    lanes = best_of(solve_law(law, data, z_SxZ, weight_SxN, options), folds)
    error_FxN = np.abs(predictions(law, lanes, data.cols) - data.y_N)
    out = (keep_FxN == 0) & data.main_N
    return float(error_FxN[out].mean())


def heldout_of_nulls(
    points: Any, target: str, options: FitOptions, rng: np.random.Generator
) -> dict[str, float]:
    """Held-out errors, on the same folds, of the nulls that have their columns (least squares)."""
    options = replace(options, loss="mse")
    errors = {}
    for name in NULLS:
        null = LAWS[name]
        try:
            data = read_points(null, points, target, "mse")
        except UserError:  # no such column, or it never changes: then this null says nothing
            continue
        errors[name] = heldout_error(null, data, draw_starts(null, LANES, rng), options)
    return errors
