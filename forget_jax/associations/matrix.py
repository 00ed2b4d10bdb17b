"""The association matrix with its names, and reading and writing it: zarr, npz, csv and json.

A zarr store is an xarray data set with the variable `forgetting` over the dimensions `task` and
`example`, whose string coordinates name them; `source` (optional) says where each example is from,
the variable's attribute `metric` (optional) what was measured. `xarray.open_zarr(path)` opens what
`save` writes; its attributes say units, base and version.
"""

import collections
import dataclasses
import importlib.metadata
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from forget_jax import distributed, files
from forget_jax.associations import checks, matrix_files
from forget_jax.errors import UserError

MOST_SOURCES = 1000  # with means of their own
UNITS = {"nll": "nats/token", "exact_match": "1"}  # of an entry, by what was measured


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
                twice, _ = collections.Counter(names).most_common(1)[0]
                raise UserError(f"two {what}s are called {twice!r}; give each a name of its own")

    def columns(self, numbers: Sequence[int] | np.ndarray) -> "Matrix":
        """Some columns, with their names and sources."""
        return dataclasses.replace(
            self,
            z_MxN=self.z_MxN[:, numbers],
            examples=tuple(self.examples[j] for j in numbers),
            sources=tuple(self.sources[j] for j in numbers) if self.sources else (),
        )

    def groups(self) -> dict[str, np.ndarray]:
        """Masks of columns by name: all under the empty name, and each source's.

        Without sources, with one, or with more than `MOST_SOURCES` there are none but the first.
        """
        everything = {"": np.ones(len(self.examples), bool)}
        names = list(dict.fromkeys(self.sources))
        if not 1 < len(names) <= MOST_SOURCES:
            return everything
        of = np.array(self.sources, object)
        return everything | {name: of == name for name in names}

    def rows(self, tasks: tuple[str | int, ...]) -> list[int]:
        """Row numbers of tasks given by name or by number (a name that exists wins)."""
        where = {name: i for i, name in enumerate(self.tasks)}
        rows = []
        for task in tasks:
            text = str(task).strip()
            if text in where:
                rows.append(where[text])
            elif text.isdecimal() and len(text) < 10 and int(text) < len(self.tasks):
                rows.append(int(text))
            else:
                raise UserError(
                    f"no task {text!r} in the matrix: its {len(self.tasks)} tasks are numbered "
                    f"from 0 and called {', '.join(self.tasks[:5])}, …"
                )
        return rows


def check_path(path: files.PathLike) -> files.Path:
    """The path of a matrix, which may not be there yet.

    Raises:
      UserError: it is the name of something else.
    """
    return files.readable(path, matrix_files.READERS, "a matrix")


def load(path: files.PathLike) -> Matrix:
    """Reads a matrix from .zarr, .npz, .csv or .json, local or in an object store.

    - .zarr: as `save` writes it.
    - .npz: `z`, `arr` or `forgetting` (M × N), optional `tasks`, `examples`, `sources`.
    - .csv: the first row names the examples, the first column the tasks; an empty cell is missing,
      as are `NA` and `nan`.
    - .json: `arr` (a list of rows), optional `ocl_tasks` or `tasks`, `pt_tasks` or `examples`.

    Names that are not given are `task_0`, … and `example_0`, ….

    Raises:
      UserError: naming the file and what is wrong with it.
    """
    where = check_path(path)
    try:
        if not where.exists():
            raise UserError(f"{path} does not exist")
        held = matrix_files.READERS[where.suffix.lower()](where)
        z_MxN = checks.as_matrix(held.z)
        m, n = z_MxN.shape
        numbered = matrix_files.numbered
        return Matrix(
            z_MxN,
            tuple(numbered("task", m) if held.tasks is None else held.tasks),
            tuple(numbered("example", n) if held.examples is None else held.examples),
            tuple(held.sources or ()),
            held.metric,
        )
    except UserError as e:
        text = str(e)
        raise UserError(text if text.startswith(str(path)) else f"{path}: {text}") from e
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror or e}") from e
    except MemoryError as e:
        raise UserError(f"{path} does not fit into memory") from e


def save(path: files.PathLike, matrix: Matrix, base: str = "") -> None:
    """Writes a matrix as a zarr store, replacing what is there; of many processes only the first.

    Args:
      base: the model that was fine-tuned, for the file's attributes; empty where it has no name.

    Raises:
      UserError: not a .zarr path, or the disk refuses.
    """
    import xarray as xr
    from zarr.codecs import Crc32cCodec, ZstdCodec

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
    attributes = {"long_name": "forgetting"}
    if matrix.metric:
        attributes |= {"metric": matrix.metric, "units": UNITS.get(matrix.metric, "")}
    forgetting = (("task", "example"), matrix.z_MxN, attributes)
    made = {"forget_jax": importlib.metadata.version("forget-jax")}
    if base:
        made["base"] = base
    data = xr.Dataset({"forgetting": forgetting}, coordinates, made)
    encoding = {name: {"compressors": (ZstdCodec(), Crc32cCodec())} for name in data.variables}
    try:
        with warnings.catch_warnings():  # not in zarr 3's specification yet; xarray looks for it
            warnings.filterwarnings("ignore", "Consolidated metadata", category=UserWarning)
            data.to_zarr(os.fspath(path), mode="w", consolidated=True, encoding=encoding)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}") from e
