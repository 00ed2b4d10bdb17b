"""The table of completion methods, with their settings and defaults."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from forget_jax.associations import checks
from forget_jax.associations.completion import (
    additive,
    als,
    column_mean,
    gaussian,
    knn,
    logistic,
    mixture,
    sgd,
    soft_impute,
)
from forget_jax.errors import UserError

Array = jax.Array


class Method(NamedTuple):
    fill: Callable[..., Array]
    prepare: Callable[..., Any] | None
    extend: Callable[..., Array] | None
    settings: dict[str, Any]  # the defaults, and so all names there are
    spare_rows: int = 0  # rows needed beyond the rank


METHODS: dict[str, Method] = {
    "column_mean": Method(column_mean.fill, column_mean.prepare, column_mean.extend, {}),
    "scaled_mean": Method(
        column_mean.fill_scaled,
        column_mean.prepare_scaled,
        column_mean.extend_scaled,
        {"shrink": 3.0},
    ),
    "additive": Method(
        additive.fill,
        additive.prepare,
        additive.extend,
        {"shrink_rows": 0.0, "shrink_columns": 0.0},
    ),
    "knn": Method(
        knn.fill, knn.prepare, knn.extend, {"neighbours": 40, "width": 1.0, "shrink": 0.0}
    ),
    "als": Method(
        als.fill,
        als.prepare,
        als.extend,
        {"rank": 5, "reg": 0.15, "reg_bias": 0.1, "steps": 10},
    ),
    "gaussian": Method(
        gaussian.fill,
        gaussian.prepare,
        gaussian.extend,
        {"rank": 1, "offset": 4.0, "pooled": 100.0},
        spare_rows=2,
    ),
    "mixture": Method(
        mixture.fill,
        mixture.prepare,
        mixture.extend,
        {"rank": 8, "offset": 4.0},
        spare_rows=2,
    ),
    "soft_impute": Method(
        soft_impute.fill,
        soft_impute.prepare,
        soft_impute.extend,
        {"threshold": 0.1, "steps": 100},
    ),
    "additive_sgd": Method(
        sgd.fill_additive, None, None, {"rate": 0.005, "reg": 0.02, "epochs": 1000}
    ),
    "knn_sgd": Method(
        knn.fill_sgd,
        None,
        None,
        {"neighbours": 40, "width": 1.0, "rate": 0.005, "reg": 0.02, "epochs": 1000},
    ),
    "svd_sgd": Method(
        sgd.fill,
        None,
        None,
        {"rank": 5, "rate": 0.005, "reg": 0.0, "spread": 0.001, "epochs": 1000},
    ),
    "logistic": Method(
        logistic.fill,
        None,
        None,
        {"rank": 5, "rate": 0.001, "reg": 0.05, "spread": 0.005, "steps": 5000},
    ),
    "logistic_additive": Method(
        logistic.fill_additive,
        None,
        None,
        {"rate": 0.001, "reg": 0.05, "spread": 1.0, "steps": 5000},
    ),
}


def resolve(
    method: str, options: dict[str, Any], n_rows: int, n_columns: int
) -> tuple[Method, tuple[tuple[str, Any], ...], dict[str, float]]:
    """The method, its static settings (as sorted pairs) and its traced ones.

    A default rank beyond what the matrix allows is lowered to it; a given one is a UserError.
    """
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}: choose from {', '.join(METHODS)}")
    chosen = METHODS[method]
    unknown = [name for name in options if name not in chosen.settings]
    if unknown:
        names = ", ".join(chosen.settings) or "none"
        raise UserError(f"{method} has no setting {unknown[0]!r}: its settings are {names}")
    static: list[tuple[str, Any]] = []
    traced = {}
    for name, default in chosen.settings.items():
        value = options.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise UserError(f"{method}: {name} must be a number, not {value!r}")
        if isinstance(default, float):
            if not np.isfinite(value) or value < 0:
                raise UserError(f"{method}: {name} must be a number of at least 0, not {value}")
            traced[name] = float(value)
        else:
            if not np.isfinite(value) or value != int(value) or value < 1:
                raise UserError(f"{method}: {name} must be a positive whole number, not {value}")
            static.append((name, int(value)))
    settings = dict(static)
    if "rank" in settings:
        most = min(max(n_rows - chosen.spare_rows, 1), n_columns)
        if "rank" not in options:
            settings["rank"] = min(settings["rank"], most)
        checks.check_rank(settings["rank"], max(n_rows - chosen.spare_rows, 1), n_columns)
    return chosen, tuple(sorted(settings.items())), traced
