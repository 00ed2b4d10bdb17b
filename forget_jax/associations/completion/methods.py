"""The table of completion methods, and how their settings are read."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from forget_jax.associations import checks
from forget_jax.associations.completion import (
    additive,
    als,
    auto,
    column_mean,
    gaussian,
    knn,
    logistic,
    mixture,
    scattered,
    sgd,
    soft_impute,
    variational,
)
from forget_jax.errors import UserError

Array = jax.Array


class Method(NamedTuple):
    """A method's functions (their signatures are in this package's docstring).

    Attributes:
      options: the class of its settings, which a function takes last.
      fill: of any missing entries.
      prepare, extend: of one new row beside complete train rows, or None.
      spare_rows: rows needed beyond the rank.
      again: the state of other rows, with what is slow to choose kept of a state of more; or None.
      scattered: `fill` of a matrix of many rows, or of entries known here and there; or None.
    """

    options: type
    fill: Callable[..., Array]
    prepare: Callable[..., Any] | None = None
    extend: Callable[..., Array] | None = None
    spare_rows: int = 0
    again: Callable[..., Any] | None = None
    scattered: Callable[..., Array] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """All settings' names with their defaults."""
        return dataclasses.asdict(self.options())


def _variational(z_MxN: Array, known_MxN: Array, key: Array, options: Any) -> Array:
    """A Gaussian model's factors, by variational Bayes."""
    return variational.fill(z_MxN, known_MxN, key, variational.Settings(options.rank))


def _combined(z_MxN: Array, known_MxN: Array, key: Array, options: auto.Settings) -> Array:
    return scattered.fill(z_MxN, known_MxN, key, options.rank)


METHODS: dict[str, Method] = {
    "column_mean": Method(
        column_mean.Plain, column_mean.fill, column_mean.prepare, column_mean.extend
    ),
    "scaled_mean": Method(
        column_mean.Scaled,
        column_mean.fill_scaled,
        column_mean.prepare,
        column_mean.extend_scaled,
    ),
    "additive": Method(additive.Settings, additive.fill, additive.prepare, additive.extend),
    "knn": Method(knn.Settings, knn.fill, knn.prepare, knn.extend),
    "als": Method(als.Settings, als.fill, als.prepare, als.extend),
    "gaussian": Method(
        gaussian.Settings,
        gaussian.fill,
        gaussian.prepare,
        gaussian.extend,
        spare_rows=2,
        scattered=_variational,
    ),
    "mixture": Method(
        mixture.Settings,
        mixture.fill,
        mixture.prepare,
        mixture.extend,
        spare_rows=2,
        scattered=_variational,
    ),
    "auto": Method(
        auto.Settings,
        auto.fill,
        auto.prepare,
        auto.extend,
        spare_rows=3,
        again=auto.again,
        scattered=_combined,
    ),
    "soft_impute": Method(
        soft_impute.Settings, soft_impute.fill, soft_impute.prepare, soft_impute.extend
    ),
    "additive_sgd": Method(sgd.Additive, sgd.fill_additive),
    "knn_sgd": Method(knn.Descended, knn.fill_sgd),
    "svd_sgd": Method(sgd.Settings, sgd.fill),
    "logistic": Method(logistic.Settings, logistic.fill),
    "logistic_additive": Method(logistic.Additive, logistic.fill_additive),
}


def resolve(
    method: str, given: Mapping[str, Any], n_rows: int, n_columns: int
) -> tuple[Method, Any]:
    """The method called `method`, and its settings: those given, defaults for the others.

    A default rank beyond what `n_rows` × `n_columns` known entries allow is lowered to it.

    Raises:
      UserError: an unknown method or setting, a value that is not a number of its kind, or a given
        rank beyond the matrix.
    """
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}: choose from {', '.join(METHODS)}")
    chosen = METHODS[method]
    defaults = chosen.settings
    unknown = [name for name in given if name not in defaults]
    if unknown:
        names = ", ".join(defaults) or "none"
        raise UserError(f"{method} has no setting {unknown[0]!r}: its settings are {names}")
    values = {
        name: _number(f"{method}: {name}", given.get(name, default), isinstance(default, float))
        for name, default in defaults.items()
    }
    if "rank" in values:
        rows = max(n_rows - chosen.spare_rows, 1)
        if "rank" not in given:
            values["rank"] = min(values["rank"], rows, n_columns)
        checks.check_rank(int(values["rank"]), rows, n_columns)
    return chosen, chosen.options(**values)


def _number(what: str, value: Any, fraction: bool) -> float:
    """A setting's value: a number of at least 0, or a positive whole number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise UserError(f"{what} must be a number, not {value!r}")
    if fraction:
        if not np.isfinite(value) or value < 0:
            raise UserError(f"{what} must be a number of at least 0, not {value}")
        return float(value)
    if not np.isfinite(value) or value != int(value) or value < 1:
        raise UserError(f"{what} must be a positive whole number, not {value}")
    return int(value)
