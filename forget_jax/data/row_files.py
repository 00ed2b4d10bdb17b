"""Rows of a .jsonl, .json, .csv, .tsv, .parquet or .txt file, local or in an object store.

A file is read whole, but a row is parsed only when asked for, so that `limit` on a large file is
cheap. JSONL rows go by their line in messages; others by their number, counted from 0.
"""

import csv
import dataclasses
import functools
import gzip
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from forget_jax import foreign
from forget_jax.data.passages import split_articles
from forget_jax.errors import UserError, nearest
from forget_jax.files import Path, is_local

STORES = ("gs", "s3")
LONGEST_PATH = 4096
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
    """The rows of a file, by its ending; raises UserError for one missing, broken or not known.

    A further ending `.gz` is unpacked.
    """
    path = _path(path_text)
    packed = path.suffix.lower() == ".gz"
    named = path.with_suffix("") if packed else path
    reader = _READERS.get(named.suffix.lower())
    if reader is None and not path.is_dir():
        raise UserError(
            f"{path_text}: is neither a file ending in {', '.join(_READERS)} nor hf:NAME, "
            "tfds:NAME or builtin:NAME"
        )
    data = _read_bytes(path)
    assert reader is not None  # a folder has raised in _read_bytes
    rows = reader(path, _unpacked(data, path) if packed else data)
    if rows.count == 0:
        raise UserError(f"{path} is empty: it has no rows")
    return dataclasses.replace(rows, stem=stem(path.name))


def stem(name: str) -> str:
    """A file's name without the endings of data files: `train.v1` of `train.v1.jsonl.gz`."""
    base, dot, end = name.rpartition(".")
    if dot and f".{end.lower()}" == ".gz":
        base, dot, end = base.rpartition(".")
    return base if dot and base and f".{end.lower()}" in _READERS else name


def _path(text: str) -> Path:
    """A path that some store of files takes."""
    scheme, colon, _ = text.partition("://")
    if colon and scheme not in STORES:
        known = ", ".join(f"{name}://" for name in STORES)
        raise UserError(
            f"{text[:200]}: {scheme}:// is not read; copy the file here, or give a path, {known}, "
            "hf:NAME or tfds:NAME"
        )
    if "\0" in text or len(text) > LONGEST_PATH:
        raise UserError(f"{text[:60]!r}…: no path is of this kind")
    try:
        return Path(text).expanduser()
    except (ValueError, RuntimeError, ImportError) as e:
        raise UserError(f"{text[:200]}: {' '.join(str(e).split())[:200]}") from e


def _unpacked(data: bytes, path: Path) -> bytes:
    """What a .gz file holds, if this machine's memory could."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as f:
            whole = f.read(most + 1)
    except (OSError, EOFError, zlib.error) as e:
        raise UserError(f"{path}: not a readable .gz file ({e})") from e
    if len(whole) > most:
        raise UserError(f"{path}: over {most >> 30} GiB unpacked; unpack and split it")
    return whole


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
    except (ImportError, ValueError) as e:  # fsspec's word for a store without its package
        extra = "; gs:// needs `pip install 'forget-jax[gcs]'`, s3:// the package s3fs"
        raise UserError(f"cannot read {path}: {e}{extra if not is_local(path) else ''}") from e


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
    """A JSON list of objects, or one object that holds such a list; otherwise JSON lines."""
    if data.strip() and not data.lstrip(b"\xef\xbb\xbf\r\n\t ").startswith(b"["):
        inner = _only_list(data)
        if inner is None:
            return _read_jsonl(path, data)
        key, held = inner
        print(f"{path}: its rows are the list {key!r} in it", file=sys.stderr)
        return _numbered(path, held)
    rows = foreign.parse(data.strip() or b"[]", str(path))
    for i, row in enumerate(rows):
        foreign.record(row, f"{path}, row {i}")
    return _numbered(path, rows)


def _only_list(data: bytes) -> tuple[str, list[Any]] | None:
    """The key and the rows of one JSON object with a single list of objects in it."""
    try:
        held = foreign.parse(data, "")
    except UserError:
        return None
    lists = {
        key: value
        for key, value in (held.items() if isinstance(held, dict) else ())
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
    }
    if len(lists) != 1 or any(key in held for key in ("messages", "conversations")):
        return None
    return next(iter(lists.items()))


def _read_csv(path: Path, data: bytes, delimiter: str = ",") -> Rows:
    """CSV with a header line; every cell is text, so that `007` stays what it is."""
    csv.field_size_limit(1 << 30)  # a document may be longer than the module's 128 KiB
    text = foreign.decode(data, str(path))
    first = text.partition("\n")[0]
    if delimiter == "," and "," not in first and ";" in first:
        print(f"{path}: cells lie between semicolons", file=sys.stderr)
        delimiter = ";"
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    rows = []
    try:
        _check_distinct(reader.fieldnames or (), path)
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
        _check_distinct(pyarrow.parquet.read_schema(pyarrow.BufferReader(data)).names, path)
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    except (pyarrow.ArrowException, OSError) as e:
        raise UserError(f"{path}: not a readable parquet file ({str(e).splitlines()[0]})") from e

    get = functools.partial(ParquetRow, table, path)
    return Rows(path.stem, table.num_rows, get, lambda i: f"{path}, row {i}")


def _check_distinct(names: Sequence[str], path: Path) -> None:
    if twice := next((name for name in names if list(names).count(name) > 1), None):
        raise UserError(f"{path}: two columns are called {twice!r}; give each a name of its own")


class ParquetRow(Mapping[str, Any]):
    """A row whose cells are read when asked for: what nobody maps cannot stop a reader."""

    def __init__(self, table: Any, path: Path, number: int):
        self.table, self.path, self.number = table, path, number

    def __getitem__(self, name: str) -> Any:
        """The cell of a column.

        Raises:
          KeyError: no such column.
          UserError: a cell that is no value of Python's, such as text that is not UTF-8.
        """
        if name not in self.table.column_names:
            raise KeyError(name)
        try:
            return self.table.column(name)[self.number].as_py()
        except (ValueError, OverflowError, NotImplementedError, ArithmeticError) as e:
            reason = " ".join(str(e).split())[:120]
            raise UserError(
                f"{self.path}, row {self.number}: column {name!r} cannot be read ({reason})"
            ) from e

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.column_names)

    def __len__(self) -> int:
        return len(self.table.column_names)


def _read_txt(path: Path, data: bytes) -> Rows:
    """Passages of at most TXT_CHARACTERS, cut at paragraph ends; see `split_articles`."""
    passages = split_articles(foreign.decode(data, str(path)), TXT_CHARACTERS)
    return _numbered(path, [{"text": p} for p in passages])


_READERS: dict[str, Callable[[Path, bytes], Rows]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": functools.partial(_read_csv, delimiter="\t"),
    ".parquet": _read_parquet,
    ".txt": _read_txt,
}
