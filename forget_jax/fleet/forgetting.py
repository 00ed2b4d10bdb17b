"""The forgetting matrix out of tables of scores."""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from forget_jax import files
from forget_jax.errors import UserError
from forget_jax.files import PathLike
from forget_jax.fleet.cells import BASE
from forget_jax.scoring import disk
from forget_jax.scoring.table import NLL, check_complete

Scores = xr.Dataset | PathLike
OTHER_BASE = 0.05  # nats a token, median, beyond which a base is another one


def forgetting(
    before: Scores, after: Scores | Sequence[Scores] | Mapping[str, Scores] | None = None
) -> xr.DataArray:
    """How much fine-tuned models forgot of each example: their NLL less the base's.

    Args:
      before: scores of the base, as `score` gives them or the scores.zarr or scores.parquet of a
        run; the base is the model `base`, or the only one.
      after: scores of fine-tuned models: a table, several, or, for tables of a single model, such
        tables by the names of the tasks. None: the other models of `before`.

    Returns:
      Dims `task` and `example`, float64, in nats a token; positive means forgotten, NaN where a
      score is not finite. Saved with `to_zarr` it is a matrix that commands read.

    Raises:
      UserError: tables of other examples, or of the same with other numbers of tokens (another
        tokenizer or template), a score that is missing, or models that cannot be told apart.
    """
    first = read(before, "the table of the base")
    names = [str(name) for name in first.model.values]
    if BASE not in names and len(names) > 1:
        raise UserError(
            f"none of the models {', '.join(names)} is called {BASE}: give a table of one model"
        )
    base = first.sel(model=BASE if BASE in names else names[0])
    rows: dict[str, np.ndarray] = {}
    for task, scored in _tuned(first, after, str(base.model.values)):
        if task in rows:
            raise UserError(f"two models are called {task}; give their tables by name")
        _check_same(base, scored, task)
        same = scored.sel(example=base.example)
        rows[task] = (same[NLL] / same.tokens - base[NLL] / base.tokens).values
    coords: dict[str, Any] = {
        "task": np.array(list(rows), object),
        "example": base.example.values.astype(object),
    }
    if "source" in base.coords:
        coords["source"] = ("example", base.source.values.astype(object))
    attrs = {"units": "nats/token", "long_name": "forgetting", "metric": "nll"}
    z_MxN = np.array(list(rows.values()))
    return xr.DataArray(z_MxN, coords, ("task", "example"), "forgetting", attrs)


def _tuned(first: xr.Dataset, after: Any, base: str) -> Iterator[tuple[str, xr.Dataset]]:
    """The fine-tuned models: the name of each one's task, and its scores."""
    if isinstance(after, Mapping) and not isinstance(after, xr.Dataset):
        for task, given in after.items():
            table = read(given, task)
            models = [m for m in table.model.values if m != BASE] or [BASE]
            if len(models) > 1:
                raise UserError(f"the table of {task} holds several models: {', '.join(models)}")
            yield task, table.sel(model=models[0])
        return
    if after is None:
        tables, but = [first], base
    else:
        several = list(after) if isinstance(after, list | tuple) else [after]
        tables, but = [read(one, f"table {i} of `after`") for i, one in enumerate(several)], BASE
    for i, table in enumerate(tables):
        models = [m for m in table.model.values if m != but]
        if not models:
            raise UserError(
                f"table {i} holds no model beside {but}; give tables of fine-tuned models by the "
                "names of their tasks: forgetting(before, {'task': after})"
            )
        for model in models:
            yield str(model), table.sel(model=model)


def read(given: Scores, what: str) -> xr.Dataset:
    """A whole table of scores: dims `model` and `example`, sums in nats and numbers of tokens."""
    table = given if isinstance(given, xr.Dataset) else _file(given)
    if not ({NLL, "tokens"} <= set(table.data_vars) and {"model", "example"} <= set(table.coords)):
        raise UserError(f"{what} holds no {NLL} and tokens over model and example")
    check_complete(table)
    for axis in ("model", "example"):
        if not table.indexes[axis].is_unique:
            raise UserError(f"{what} names a{'n' * (axis == 'example')} {axis} twice")
    return table


def _file(given: PathLike) -> xr.Dataset:
    """Reads scores.zarr or scores.parquet."""
    path = files.Path(given)
    if not path.exists():
        raise UserError(f"{os.fspath(given)} does not exist")
    if path.suffix not in (".zarr", ".parquet"):
        raise UserError(f"{os.fspath(given)}: scores are a .zarr or .parquet file")
    try:
        if path.suffix == ".zarr":
            with disk.read(path) as table:
                return table.load()
        frame = pd.read_parquet(io.BytesIO(path.read_bytes()))
    except Exception as e:  # zarr, xarray and pyarrow raise whatever a damaged file makes of it
        reason = " ".join(str(e).split())[:200]
        raise UserError(
            f"{os.fspath(given)} is not a table of scores, or a damaged one ({reason})"
        ) from e
    if missing := {"model", "example", NLL, "tokens"} - set(frame.columns):
        raise UserError(f"{os.fspath(given)} has no column {min(missing)}")
    if odd := [name for name in (NLL, "tokens") if frame[name].dtype.kind not in "fiu"]:
        raise UserError(f"{os.fspath(given)}: its column {odd[0]} does not hold numbers")
    if frame.duplicated(["model", "example"]).any():
        raise UserError(f"{os.fspath(given)} has two rows of one model and example")
    table = frame.set_index(["model", "example"]).to_xarray()
    order = {axis: frame[axis].unique() for axis in ("model", "example")}
    return table.sel(order).assign(tokens=table.tokens.fillna(-1))


def _check_same(base: xr.Dataset, scored: xr.Dataset, task: str) -> None:
    """Raises where two models were not scored on the same targets of the same examples."""
    ours, theirs = base.indexes["example"], scored.indexes["example"]
    if len(apart := ours.symmetric_difference(theirs)):
        side = "the base" if apart[0] in ours else task
        raise UserError(
            f"{len(apart)} examples are scored under one of the base and {task} only, such as "
            f"{apart[0]} under {side}: score the same examples under both"
        )
    ours_N, theirs_N = base.tokens.values, scored.tokens.sel(example=ours).values
    if len(other := np.flatnonzero(ours_N != theirs_N)):
        j = other[0]
        raise UserError(
            f"{len(other)} examples have other numbers of target tokens, such as {ours[j]}: "
            f"{int(ours_N[j])} under the base and {int(theirs_N[j])} under {task}; score both with "
            "one tokenizer and the same settings of `data`"
        )
