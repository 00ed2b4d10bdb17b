"""Tables of measured points out of files: CSV, JSON, JSON lines and parquet.

A column is numbers where all of it are numbers or missing; anything else stays as it is, for the
laws to refuse where they read it.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from forget_jax import files, foreign
from forget_jax.errors import UserError

OF_WORKDIR = ("points.parquet", "points.csv")
MISSING = {"": None, "nan": None, "na": None, "null": None}


def read(path: files.PathLike) -> pd.DataFrame:
    """The points of a file, or of the workdir of `scaling`, one a row.

    Raises:
      UserError: no such file, another ending, or one that is broken; names the file and the line.
    """
    try:
        file = files.Path(path)
        if file.is_dir() and file.suffix.lower() not in READERS:
            held = [file / name for name in OF_WORKDIR if (file / name).exists()]
            if not held:
                raise UserError(
                    f"{path} is a folder without {' or '.join(OF_WORKDIR)}: give a workdir of "
                    "scaling that has ended, or the file of a table"
                )
            file = held[0]
        reader = READERS.get(file.suffix.lower())
        if reader is None:
            raise UserError(f"{path}: a table of points is a {', '.join(READERS)} file")
        if not file.exists():
            raise UserError(f"{path} does not exist")
        data = file.read_bytes()
    except (OSError, ValueError) as e:
        if isinstance(e, UserError):
            raise
        raise UserError(f"{path} cannot be read: {getattr(e, 'strerror', '') or e}") from e
    table = reader(data, str(path))
    if not len(table):
        raise UserError(f"{path}: holds no points")
    found = table.apply(numeric)
    found.attrs = dict(table.attrs)
    return found


def parquet(table: pd.DataFrame) -> bytes:
    """A table as a parquet file; what its `attrs` hold, such as units, `read` and pandas give back.

    Args:
      table: of numbers and texts.
    """
    held = io.BytesIO()
    table.to_parquet(held, index=False)
    return held.getvalue()


def _csv(data: bytes, where: str) -> pd.DataFrame:
    reader = csv.reader(io.StringIO(foreign.decode(data, where), newline=""), strict=True)
    rows = []
    try:
        header = _distinct(next(reader, []), where)
        for row in reader:
            if row and len(row) != len(header):
                raise UserError(
                    f"{where}, line {reader.line_num}: has {len(row)} cells, the header "
                    f"{len(header)}"
                )
            rows += [row] if row else []
    except csv.Error as e:
        raise UserError(f"{where}, line {reader.line_num}: not valid CSV ({e})") from e
    return pd.DataFrame(rows, columns=pd.Index(header), dtype=object)


def _records(rows: Sequence[Any], where: str) -> pd.DataFrame:
    for i, row in enumerate(rows):
        for name, value in foreign.record(row, f"{where}, row {i}").items():
            if isinstance(value, list | dict):
                raise UserError(f"{where}, row {i}: {name} is {foreign.in_words(value)}")
            if isinstance(value, int) and abs(value) > foreign.WHOLE:
                raise UserError(f"{where}, row {i}: {name} is a number beyond 64 bits")
    return pd.DataFrame.from_records(list(rows))


def _jsonl(data: bytes, where: str) -> pd.DataFrame:
    lines = [(n, line) for n, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    return _records([foreign.parse(line, where, n) for n, line in lines], where)


def _json(data: bytes, where: str) -> pd.DataFrame:
    """A list of points, or columns as lists of equal length."""
    held = foreign.parse(data, where)
    if not isinstance(held, dict):
        if not isinstance(held, list):
            raise UserError(f"{where}: holds {foreign.in_words(held)}, not a list of points")
        return _records(held, where)
    columns = {name: foreign.field(held, name, list, where) for name in held}
    if len(set(map(len, columns.values()))) > 1:
        raise UserError(f"{where}: its columns are not of equal length")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return _records(rows, where)


def _parquet(data: bytes, where: str) -> pd.DataFrame:
    try:
        table = pd.read_parquet(io.BytesIO(data))
    except Exception as e:  # pyarrow raises whatever it makes of damaged bytes
        reason = " ".join(str(e).split())[:200]
        raise UserError(f"{where}: not a readable parquet file ({reason})") from e
    named = table.set_axis(_distinct([str(name) for name in table.columns], where), axis=1)
    named.attrs = dict(table.attrs)
    return named


def _distinct(names: list[str], where: str) -> list[str]:
    twice, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise UserError(f"{where}: two columns are called {twice!r}")
    return names


def numeric(column: pd.Series) -> pd.Series:
    """A column of text as numbers, where all of it can be read so."""
    if not pd.api.types.is_object_dtype(column) and not pd.api.types.is_string_dtype(column):
        return column
    texts = column.map(lambda x: MISSING.get(x.strip().lower(), x) if isinstance(x, str) else x)
    if any(isinstance(x, bool) for x in texts):
        return column
    try:
        return pd.to_numeric(texts)
    except (ValueError, TypeError):
        return column


READERS: dict[str, Callable[[bytes, str], pd.DataFrame]] = {
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
