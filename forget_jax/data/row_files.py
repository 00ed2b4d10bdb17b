"""Rows of a .jsonl, .json, .csv, .parquet or .txt file, local or in an object store.

A file is read whole, but a row is parsed only when asked for, so that `limit` on a large file is
cheap. JSONL rows go by their line in messages; others by their number, counted from 0.
"""

import csv
import dataclasses
import io
from collections.abc import Callable, Mapping
from typing import Any

from forget_jax import foreign
from forget_jax.data.passages import split_articles
from forget_jax.errors import UserError, nearest
from forget_jax.files import Path, is_local

TXT_CHARACTERS = 1500  # a passage of a .txt file: some 350 tokens of a large vocabulary


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of one data set, each parsed when asked for.

    Attributes:
      stem: names the set; the default source, and the first part of default names.
      count: how many rows there are.
      get: the row of an index, as column names and values.
      where: the file and line or row of an index, for error messages.
    """

    stem: str
    count: int
    get: Callable[[int], Mapping[str, Any]]
    where: Callable[[int], str]


def read_rows(path_text: str) -> Rows:
    """The rows of a file, by its ending; raises UserError for one missing, broken or not known."""
    path = Path(path_text).expanduser()
    reader = _READERS.get(path.suffix.lower())
    if reader is None and not path.is_dir():
        raise UserError(
            f"{path_text}: is neither a file ending in {', '.join(_READERS)} nor hf:NAME, "
            "tfds:NAME or builtin:NAME"
        )
    data = _read_bytes(path)
    assert reader is not None  # a folder has raised in _read_bytes
    rows = reader(path, data)
    if rows.count == 0:
        raise UserError(f"{path} is empty: it has no rows")
    return rows


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise UserError(
                f"{path} is a folder; give one file in it, or hf:{path} for a saved data set"
            )
        return path.read_bytes()
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist{_nearest_file(path)}") from e
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror or e}") from e
    except ImportError as e:
        raise UserError(
            f"cannot read {path}: {e}; object stores need `pip install forget-jax[gcs]`"
        ) from e


def _nearest_file(path: Path) -> str:
    if not is_local(path):
        return ""
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    return nearest(path.name, (p.name for p in path.parent.iterdir()))


def _numbered(path: Path, rows: list[dict[str, Any]]) -> Rows:
    return Rows(path.stem, len(rows), rows.__getitem__, lambda i: f"{path}, row {i}")


def _read_jsonl(path: Path, data: bytes) -> Rows:
    lines = [
        (n, line) for n, line in enumerate(data.split(b"\n"), 1) if line.strip(b"\xef\xbb\xbf\r\t ")
    ]

    def get(i: int) -> Mapping[str, Any]:
        n, line = lines[i]
        return foreign.record(foreign.parse(line, str(path), n), f"{path}, line {n}")

    return Rows(path.stem, len(lines), get, lambda i: f"{path}, line {lines[i][0]}")


def _read_json(path: Path, data: bytes) -> Rows:
    """A JSON list of objects; a .json file that starts otherwise is read as JSON lines."""
    if data.strip() and not data.lstrip(b"\xef\xbb\xbf\r\n\t ").startswith(b"["):
        return _read_jsonl(path, data)
    rows = foreign.parse(data.strip() or b"[]", str(path))
    for i, row in enumerate(rows):
        foreign.record(row, f"{path}, row {i}")
    return _numbered(path, rows)


def _read_csv(path: Path, data: bytes) -> Rows:
    """CSV with a header line; every cell is text, so that `007` stays what it is."""
    csv.field_size_limit(1 << 30)  # a document may be longer than the module's 128 KiB
    reader = csv.DictReader(io.StringIO(foreign.decode(data, str(path)), newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise UserError(
                    f"{path}, line {reader.line_num}: has more or fewer cells than the "
                    f"{len(reader.fieldnames or ())} columns of the header"
                )
            rows.append(row)
    except csv.Error as e:
        raise UserError(f"{path}, line {reader.reader.line_num}: not valid CSV ({e})") from e
    return _numbered(path, rows)


def _read_parquet(path: Path, data: bytes) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    except (pyarrow.ArrowException, OSError) as e:
        raise UserError(f"{path}: not a readable parquet file ({str(e).splitlines()[0]})") from e

    def get(i: int) -> Mapping[str, Any]:
        return table.slice(i, 1).to_pylist()[0]

    return Rows(path.stem, table.num_rows, get, lambda i: f"{path}, row {i}")


def _read_txt(path: Path, data: bytes) -> Rows:
    """Passages of at most TXT_CHARACTERS, cut at paragraph ends; see `split_articles`."""
    passages = split_articles(foreign.decode(data, str(path)), TXT_CHARACTERS)
    return _numbered(path, [{"text": p} for p in passages])


_READERS: dict[str, Callable[[Path, bytes], Rows]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_txt,
}
