"""What is predicted of a forgetting matrix, by the names of its tasks and examples."""

import os
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from forget_jax import associations
from forget_jax.associations import matrix
from forget_jax.errors import UserError, nearest
from forget_jax.files import PathLike


def complete(
    z: xr.DataArray | PathLike, method: str = "mixture", *, seed: int = 0, **options: Any
) -> xr.DataArray:
    """The matrix with its missing entries estimated from the others.

    Args:
      z: as `forgetting` gives it, NaN where nothing was measured (`z.where(known)` hides entries);
        or the path of a .zarr, .npz, .csv or .json matrix.
      method: a name in `forget_jax.associations.METHODS`.
      seed: of the random start, for the methods that have one.
      **options: settings of the method.

    Raises:
      UserError: nothing known, infinities, an unknown method or setting.
    """
    z = _labelled(z)
    z_MxN = z.values
    return z.copy(data=associations.complete(z_MxN, ~np.isnan(z_MxN), method, seed=seed, **options))


def predict_row(
    z: xr.DataArray | PathLike,
    measured: Mapping[str, float] | pd.Series | xr.DataArray,
    coverage: float = 0.9,
    **options: Any,
) -> xr.Dataset:
    """A new task's forgetting of every example, from the few that were measured, with intervals.

    Prepares its predictor anew: for many rows, keep one (`forget_jax.associations.fit_predictor`).

    Args:
      z: earlier tasks, at least four, as for `complete`.
      measured: the new task's forgetting by example, in the unit of `z`; NaN is not known.
      coverage: share of entries that the intervals are to hold.
      **options: `rank` and `offset` of the `mixture` method.

    Returns:
      `forgetting`, `low` and `high` over `example`, in the unit of `z`; measured entries are
      predicted too, not copied.

    Raises:
      UserError: an example that is not in `z`, nothing measured, too few tasks, or a coverage
        outside (0, 1).
    """
    z = _labelled(z)
    known = _series(measured).dropna()
    where = z.indexes["example"].get_indexer(known.index)
    if (unknown := known.index[where < 0]).size:
        near = nearest(str(unknown[0]), map(str, z.example.values))
        raise UserError(f"the matrix has no example {unknown[0]!r}{near}")
    predictor = associations.fit_predictor(z.values, known.size, coverage, **options)
    row = associations.predict_row(predictor, where, known.to_numpy())
    found = {"forgetting": row.mean_N, "low": row.low_N, "high": row.high_N}
    units = {"units": z.attrs.get("units", "")}
    coords = {name: c for name, c in z.coords.items() if c.dims == ("example",)}
    arrays = {name: ("example", values, units) for name, values in found.items()}
    return xr.Dataset(arrays, coords, {"coverage": coverage})


def choose_probes(
    z: xr.DataArray | PathLike, n_probes: int, aim: str = "row", **options: Any
) -> list[Hashable]:
    """Which examples to measure for the next task, the most useful first.

    Args:
      z: earlier tasks, as for `complete`.
      n_probes: how many.
      aim: what is to be decided: the whole `row`, its `mean`, or the `top` k most forgotten.
      **options: as for `forget_jax.associations.choose_probes`; its masks follow the order of `z`.

    Returns:
      Names of examples of `z`.

    Raises:
      UserError: an unknown aim or setting, or more probes than examples.
    """
    z = _labelled(z)
    columns = associations.choose_probes(z.values, n_probes, aim, **options)
    names: list[Hashable] = z.example.values[columns].tolist()
    return names


def _labelled(z: xr.DataArray | PathLike) -> xr.DataArray:
    """A matrix over `task` and `example`, each name once."""
    if isinstance(z, str | os.PathLike):
        held = matrix.load(z)
        attrs = {"units": matrix.UNITS.get(held.metric, ""), "metric": held.metric}
        coords: dict[str, Any] = {
            "task": np.array(held.tasks, object),
            "example": np.array(held.examples, object),
        }
        if held.sources:
            coords["source"] = ("example", np.array(held.sources, object))
        return xr.DataArray(held.z_MxN, coords, ("task", "example"), "forgetting", attrs)
    if not isinstance(z, xr.DataArray) or set(z.dims) != {"task", "example"}:
        raise UserError(
            "a matrix is an xarray.DataArray over task and example, or the path of one; "
            "forget_jax.associations takes plain arrays"
        )
    z = z.transpose("task", "example").assign_coords(task=z["task"], example=z["example"])
    for axis in z.dims:
        if not z.indexes[axis].is_unique:
            raise UserError(f"the matrix names a{'n' * (axis == 'example')} {axis} twice")
    return z


def _series(measured: Any) -> pd.Series:
    """Measured entries by example."""
    if isinstance(measured, xr.DataArray):
        if measured.dims != ("example",):
            raise UserError("measured entries are those of one task, over example alone")
        measured = measured.to_series()
    series = pd.Series(measured, dtype=float)
    if not series.index.is_unique:
        raise UserError("an example was measured twice: take the mean of both")
    return series
