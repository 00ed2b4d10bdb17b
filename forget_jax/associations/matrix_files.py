"""What a matrix file holds, by its format; every flaw of a file is a line that says where it is.

Names are text as it is written: `007`, `NA` and `false` stay what they are.
"""

import csv
import io
import os
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from forget_jax import files, foreign
from forget_jax.errors import UserError

# How a missing entry is written in a CSV, and the headings that a column of names has.
MISSING = ("", "na", "n/a", "nan", "null", "none", "-")
HEADINGS = ("", "task", "tasks", "name", "names", "index", "id")
LONGEST = 64  # characters of a number


class Held(NamedTuple):
    """What a file says of a matrix; None where it says nothing.

    Attributes:
      z: M × N, not checked yet.
      tasks, examples, sources: names.
      metric: what was measured.
    """

    z: Any
    tasks: Sequence[str] | None
    examples: Sequence[str] | None
    sources: Sequence[str] | None = None
    metric: str = ""


def names(value: Any, what: str) -> list[str] | None:
    """Names out of a file as text; whole numbers may stand for text.

    Raises:
      UserError: not a list of texts.
    """
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or value.dtype.kind not in "USOTiu":
            raise UserError(
                f"`{what}` is {value.ndim}-dimensional {value.dtype}, not a list of names"
            )
        if value.dtype.kind == "S":
            value = np.char.decode(value, "utf-8")
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise UserError(f"`{what}` is {foreign.in_words(value)}, not a list of names")
    for i, name in enumerate(value):
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise UserError(f"`{what}`: name {i} is {foreign.in_words(name)}, not text")
    return [str(name) for name in value]


def _zarr(path: files.Path) -> Held:
    import xarray as xr

    try:
        with xr.open_dataset(str(path), engine="zarr", consolidated=False) as data:
            if "forgetting" not in data or set(data["forgetting"].dims) != {"task", "example"}:
                raise UserError("no variable `forgetting` over `task` and `example`")
            z = data["forgetting"].transpose("task", "example").to_numpy()
            metric = str(data["forgetting"].attrs.get("metric", ""))
            tasks, examples, sources = (
                names(data[name].to_numpy(), name) if name in data.coords else None
                for name in ("task", "example", "source")
            )
    except UserError:
        raise
    except Exception as e:  # zarr, its codecs and xarray raise whatever a damaged store makes of it
        reason = " ".join(str(e).split())[:200]
        raise UserError(f"not a zarr store of a matrix, or a damaged one ({reason})") from e
    return Held(z, tasks, examples, sources, metric)


def _npz(path: files.Path) -> Held:
    data = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_sizes(archive)
        with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
            held = {name: loaded[name] for name in loaded.files}
    except UserError:
        raise
    except Exception as e:  # zipfile, zlib and numpy raise a dozen kinds
        reason = " ".join(str(e).split())[:200]
        raise UserError(f"not an .npz file of plain arrays ({reason})") from e
    z = next((held[name] for name in ("z", "arr", "forgetting") if name in held), None)
    if z is None:
        raise UserError(f"holds no array `z`, `arr` or `forgetting` (only {', '.join(held)})")
    tasks, examples, sources = (
        names(held.get(name), name) for name in ("tasks", "examples", "sources")
    )
    return Held(z, tasks, examples, sources)


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Refuses arrays that claim more than their file holds, or than this machine could."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if sum(member.file_size for member in archive.infolist()) > whole:
        raise UserError(f"its arrays are over the {whole >> 30} GiB of this machine's memory")
    for member in archive.infolist():
        with archive.open(member) as f:
            version = np.lib.format.read_magic(f)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(f)
        claimed = dtype.itemsize
        for n in shape:
            claimed *= int(n)
        if claimed > member.file_size:
            raise UserError(f"{member.filename} claims {claimed} bytes and has {member.file_size}")


def _csv(path: files.Path) -> Held:
    csv.field_size_limit(1 << 30)
    text = foreign.decode(path.read_bytes(), str(path))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    tasks: list[str] = []
    rows: list[np.ndarray] = []
    try:
        header = next(reader, [])
        if len(header) < 2:
            raise UserError("no table with example names above and task names beside")
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(
                    f"line {reader.line_num}: has {len(row)} cells, the header {len(header)}"
                )
            tasks.append(row[0])
            rows.append(_numbers(row[1:], header[1:], reader.line_num))
    except csv.Error as e:
        raise UserError(f"line {reader.line_num}: not valid CSV ({e})") from e
    if not rows:
        raise UserError("has a header and no row")
    if header[0].strip().lower() not in HEADINGS and all(map(_is_number, tasks)):
        raise UserError(
            f"its first column, {header[0]!r}, holds numbers: the first column must name the tasks "
            "(give it the heading `task`)"
        )
    return Held(np.stack(rows), tasks, header[1:])


def _numbers(cells: list[str], header: list[str], line: int) -> np.ndarray:
    """A row's entries; NaN where they are missing."""
    long = next((i for i, cell in enumerate(cells) if len(cell) > LONGEST), None)
    try:
        if long is not None:
            raise ValueError
        text = np.array(cells, f"U{LONGEST}")
        text[np.isin(np.char.lower(np.char.strip(text)), MISSING)] = "nan"
        return text.astype(np.float64)
    except ValueError:
        i = next(i for i, c in enumerate(cells) if not (_is_missing(c) or _is_number(c)))
        raise UserError(
            f"line {line}, column {header[i]!r}: {cells[i][:LONGEST]!r} is not a number"
        ) from None


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def _is_number(cell: str) -> bool:
    try:
        float(cell if len(cell) <= LONGEST else "no")
    except ValueError:
        return False
    return True


def _json(path: files.Path) -> Held:
    held = foreign.record(files.read_json(path), str(path))
    if "arr" not in held:
        raise UserError("no `arr` (a list of rows) in it")
    rows = foreign.field(held, "arr", list, str(path))
    for i, row in enumerate(rows):
        if not isinstance(row, list):
            raise UserError(f"`arr` is not a list of rows: row {i} is {foreign.in_words(row)}")
        if len(row) != len(rows[0]):
            raise UserError(f"row {i} has {len(row)} entries, the first has {len(rows[0])}")
        wrong = next((x for x in row if x is not None and type(x) not in (int, float)), None)
        if wrong is not None:
            raise UserError(f"row {i} holds {foreign.in_words(wrong)}, not only numbers")
    try:
        z = np.array([[np.nan if x is None else float(x) for x in row] for row in rows])
    except OverflowError:
        raise UserError("holds a number beyond every float") from None
    tasks, examples = (
        held.get(theirs, held.get(ours))
        for theirs, ours in (("ocl_tasks", "tasks"), ("pt_tasks", "examples"))
    )
    return Held(
        z, names(tasks, "tasks"), names(examples, "examples"), names(held.get("sources"), "sources")
    )


READERS: dict[str, Callable[[files.Path], Held]] = {
    ".zarr": _zarr,
    ".npz": _npz,
    ".csv": _csv,
    ".json": _json,
}


def numbered(what: str, count: int) -> tuple[str, ...]:
    """Names where a file gives none: `task_0`, `task_1`, …"""
    return tuple(f"{what}_{i}" for i in range(count))
