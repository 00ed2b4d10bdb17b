"""The association matrix with its names, and reading and writing it: zarr, npz, csv and json.

A zarr store is an xarray data set with the variable `forgetting` over the dimensions `task` and
`example`, whose string coordinates name them; `source` (optional) says where each example is from,
the variable's attribute `metric` (optional) what was measured.
"""

import dataclasses
import io
import os
import zipfile
from typing import Any

import numpy as np

from forget_jax import distributed, files
from forget_jax.associations import checks
from forget_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Forgetting z[i, j] of example j by task i; NaN where it was not measured.

    Attributes:
      z_MxN: float array.
      tasks: M distinct names.
      examples: N distinct names.
      sources: N names of where the examples are from, or none.
      metric: what an entry is: `nll` (nats a token) or `exact_match` (1: a right answer that became
        wrong, 0: one that did not); empty where that is not known.
    """

    z_MxN: np.ndarray
    tasks: tuple[str, ...]
    examples: tuple[str, ...]
    sources: tuple[str, ...] = ()
    metric: str = ""

    def __post_init__(self) -> None:
        """Names and shape must agree; names are distinct."""
        checks.as_matrix(self.z_MxN)
        m, n = self.z_MxN.shape
        if len(self.tasks) != m or len(self.examples) != n:
            raise UserError(
                f"a {m} × {n} matrix with {len(self.tasks)} task names and "
                f"{len(self.examples)} example names"
            )
        if self.sources and len(self.sources) != n:
            raise UserError(f"{n} examples with {len(self.sources)} sources")
        for what, names in (("task", self.tasks), ("example", self.examples)):
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise UserError(f"two {what}s are called {twice!r}")

    def rows(self, tasks: tuple[str | int, ...]) -> list[int]:
        """Row numbers of tasks given by name or by number (a name that exists wins)."""
        where = {name: i for i, name in enumerate(self.tasks)}
        rows = []
        for task in tasks:
            text = str(task).strip()
            if text in where:
                rows.append(where[text])
            elif text.isdecimal() and int(text) < len(self.tasks):
                rows.append(int(text))
            else:
                raise UserError(
                    f"no task {text!r} in the matrix: its {len(self.tasks)} tasks are numbered "
                    f"from 0 and called {', '.join(self.tasks[:5])}, …"
                )
        return rows


def load(path: files.PathLike) -> Matrix:
    """Reads a matrix from .zarr, .npz, .csv or .json, local or in an object store.

    - .zarr: as `save` writes it.
    - .npz: `z`, `arr` or `forgetting` (M × N), optional `tasks`, `examples`, `sources`.
    - .csv: the first row names the examples, the first column the tasks; an empty cell is missing.
    - .json: `arr` (a list of rows), optional `ocl_tasks` or `tasks`, `pt_tasks` or `examples`.

    Names that are not given are `task_0`, … and `example_0`, ….

    Raises:
      UserError: naming the file and what is wrong with it.
    """
    readers = {".zarr": _zarr, ".npz": _npz, ".csv": _csv, ".json": _json}
    where = files.Path(path)
    if where.suffix not in readers:
        raise UserError(f"{path}: a matrix is a {', '.join(readers)} file, not {where.suffix!r}")
    if not where.exists():
        raise UserError(f"{path} does not exist")
    try:
        return _matrix(*readers[where.suffix](where))
    except UserError as e:
        text = str(e)
        raise UserError(text if text.startswith(str(path)) else f"{path}: {text}") from e
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror or e}") from e


def save(path: files.PathLike, matrix: Matrix) -> None:
    """Writes a matrix as a zarr store, replacing what is there; of many processes only the first.

    Raises:
      UserError: not a .zarr path, or the disk refuses.
    """
    import xarray as xr

    if files.Path(path).suffix != ".zarr":
        raise UserError(f"{path}: a matrix is written to a .zarr folder")
    if not distributed.is_writer():
        return
    coordinates: dict[str, Any] = {
        "task": ("task", np.array(matrix.tasks, object)),
        "example": ("example", np.array(matrix.examples, object)),
    }
    if matrix.sources:
        coordinates["source"] = ("example", np.array(matrix.sources, object))
    attributes = {"metric": matrix.metric} if matrix.metric else {}
    forgetting = (("task", "example"), matrix.z_MxN, attributes)
    data = xr.Dataset({"forgetting": forgetting}, coordinates)
    try:
        data.to_zarr(os.fspath(path), mode="w", consolidated=False)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}") from e


def _matrix(z: Any, tasks: Any, examples: Any, sources: Any, metric: str = "") -> Matrix:
    z_MxN = checks.as_matrix(z)
    m, n = z_MxN.shape
    return Matrix(
        z_MxN,
        tuple(map(str, tasks)) if tasks is not None else tuple(f"task_{i}" for i in range(m)),
        tuple(map(str, examples))
        if examples is not None
        else tuple(f"example_{j}" for j in range(n)),
        tuple(map(str, sources)) if sources is not None else (),
        metric,
    )


def _zarr(path: files.Path) -> tuple[Any, ...]:
    import xarray as xr

    try:
        with xr.open_dataset(str(path), engine="zarr", consolidated=False) as data:
            if "forgetting" not in data or set(data["forgetting"].dims) != {"task", "example"}:
                raise UserError("no variable `forgetting` over `task` and `example`")
            z = data["forgetting"].transpose("task", "example").to_numpy()
            metric = str(data["forgetting"].attrs.get("metric", ""))
            names = [
                data[name].to_numpy() if name in data.coords else None
                for name in ("task", "example", "source")
            ]
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, FileNotFoundError) as e:
        raise UserError(f"not a zarr store of a matrix ({e})") from e
    return z, *names, metric


def _npz(path: files.Path) -> tuple[Any, ...]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as data:
            held = {name: data[name] for name in data.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as e:
        raise UserError(f"not an .npz file of plain arrays ({e})") from e
    z = next((held[name] for name in ("z", "arr", "forgetting") if name in held), None)
    if z is None:
        raise UserError(f"holds no array `z`, `arr` or `forgetting` (only {', '.join(held)})")
    return z, held.get("tasks"), held.get("examples"), held.get("sources")


def _csv(path: files.Path) -> tuple[Any, ...]:
    import pandas as pd

    try:
        table = pd.read_csv(io.StringIO(path.read_text()), index_col=0)
    except (ValueError, pd.errors.ParserError) as e:
        raise UserError(f"not a table with example names above and task names beside ({e})") from e
    for name in table.columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise UserError(f"column {name!r} does not hold numbers")
    return table.to_numpy(np.float64), table.index, table.columns, None


def _json(path: files.Path) -> tuple[Any, ...]:
    held = files.read_json(path)
    if not isinstance(held, dict) or "arr" not in held:
        raise UserError("no `arr` (a list of rows) in it")
    try:
        rows = [[np.nan if x is None else x for x in row] for row in held["arr"]]
    except TypeError as e:
        raise UserError("`arr` is not a list of rows") from e
    tasks = held.get("ocl_tasks", held.get("tasks"))
    return rows, tasks, held.get("pt_tasks", held.get("examples")), held.get("sources")
