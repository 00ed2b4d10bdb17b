"""Rows of a .jsonl, .json, .csv, .tsv, .parquet or .txt file, local or in an object store.

A file is read whole, but a row is parsed only when asked for, so that `limit` on a large file is
cheap. JSONL rows go by their line in messages; others by their number, counted from 0.
"""

import array
import csv
import dataclasses
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forget_jax import foreign
from forget_jax.data import row_paths
from forget_jax.data.cells import Cells
from forget_jax.data.notes import say
from forget_jax.data.passages import split_articles
from forget_jax.errors import UserError
from forget_jax.files import Path

TXT_CHARACTERS = 1500  # a passage of a .txt file: some 350 tokens of a large vocabulary
DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # of .csv files without commas
_BLANK = b"\xef\xbb\xbf\r\n\t "


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
    path = row_paths.path_of(path_text)
    base, end = row_paths.ending(path.name)
    packed = end == ".gz"
    reader = _READERS.get(row_paths.ending(base)[1] if packed else end)
    if reader is None and not path.is_dir():
        raise UserError(
            f"{path_text}: is neither a file ending in {', '.join(_READERS)} (or one of these and "
            ".gz) nor hf:NAME, tfds:NAME or builtin:NAME"
        )
    data = row_paths.read_bytes(path)
    assert reader is not None  # a folder has raised in read_bytes
    if packed:
        data = row_paths.unpacked(data, path)
    rows = reader(path, data)
    if rows.count == 0:
        raise UserError(f"{path} is empty: it has no rows")
    return dataclasses.replace(rows, stem=stem(path.name))


def stem(name: str) -> str:
    """A file's name without the endings of data files: `train.v1` of `train.v1.jsonl.gz`."""
    return row_paths.stem(name, _READERS)


def _numbered(path: Path, count: int, get: Callable[[int], Mapping[str, Any]]) -> Rows:
    shown = str(path)  # which takes long
    return Rows("", count, get, lambda i: f"{shown}, row {i}")


def _read_jsonl(path: Path, data: bytes) -> Rows:
    """JSON lines; of each only where it lies is kept."""
    starts, numbers = array.array("q"), array.array("q")
    start, number, shown = 0, 1, str(path)  # which takes long
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        if data[start:end].strip(_BLANK):
            starts.append(start)
            numbers.append(number)
        start, number = end + 1, number + 1

    def get(i: int) -> Mapping[str, Any]:
        end = data.find(b"\n", starts[i])
        line = data[starts[i] : len(data) if end < 0 else end]
        return foreign.record(foreign.parse(line, shown, numbers[i]), where(i))

    def where(i: int) -> str:
        return f"{shown}, line {numbers[i]}"

    return Rows("", len(starts), get, where)


def _read_json(path: Path, data: bytes) -> Rows:
    """A JSON list of objects, or one object that holds such a list; otherwise JSON lines."""
    body = data.strip(_BLANK)
    if not body.startswith(b"["):
        if not body:
            return _read_jsonl(path, data)
        if b"\n" in body and _is_json(body.partition(b"\n")[0]):
            return _read_jsonl(path, data)
        held = foreign.record(foreign.parse(data, str(path)), f"{path}, line 1")
        rows = _only_list(held, path)
        if rows is None:
            return Rows("", 1, lambda i: held, lambda i: f"{path}, line 1")
    else:
        rows = foreign.parse(data, str(path))
    for i, row in enumerate(rows):
        foreign.record(row, f"{path}, row {i}")
    return _numbered(path, len(rows), rows.__getitem__)


def _is_json(line: bytes) -> bool:
    try:
        foreign.parse(line, "")
    except UserError:
        return False
    return True


def _only_list(held: dict[str, Any], path: Path) -> list[Any] | None:
    """The rows in an object that is no row itself but holds a list of them."""
    if any(isinstance(held.get(key), str | list) for key in _OF_ROWS):
        return None
    lists = [
        key
        for key, value in held.items()
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
    ]
    if len(lists) > 1:
        raise UserError(
            f"{path}: holds several lists of rows ({', '.join(map(repr, lists[:9]))}); write the "
            "one you mean as a file of its own"
        )
    if not lists:
        return None
    say(f"{path}: its rows are the list {lists[0]!r} in it")
    rows: list[Any] = held[lists[0]]
    return rows


def _read_csv(path: Path, data: bytes, delimiter: str = ",") -> Rows:
    """CSV with a header line; every cell is text, so that `007` stays what it is."""
    csv.field_size_limit(1 << 30)  # a document may be longer than the module's 128 KiB
    first = foreign.decode(data, str(path)).partition("\n")[0]
    if delimiter == "," and "," not in first:
        found = next((mark for mark in DELIMITERS if mark in first), ",")
        if found != ",":
            say(f"{path}: cells lie between {DELIMITERS[found]}")
        delimiter = found
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    reader = csv.reader(text, strict=True, delimiter=delimiter)
    rows: list[list[str]] = []
    try:
        header = next(reader, [])
        _check_distinct(header, path)
        for cells in reader:
            if cells and len(cells) != len(header):
                raise UserError(
                    f"{path}, line {reader.line_num}: has more or fewer cells than the "
                    f"{len(header)} columns of the header"
                )
            if cells:
                rows.append(cells)
    except csv.Error as e:
        raise UserError(f"{path}, line {reader.line_num}: not valid CSV ({e})") from e
    return _numbered(path, len(rows), lambda i: dict(zip(header, rows[i], strict=True)))


def _read_parquet(path: Path, data: bytes) -> Rows:
    """A parquet file, of which a column is read when a row is asked for it."""
    import pyarrow
    import pyarrow.parquet

    def broken(error: Exception) -> UserError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return UserError(f"{path}: not a readable parquet file ({reason[:200]})")

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        names = dict.fromkeys(file.schema_arrow.names)
        count = _parquet_count(file.metadata)
    except (pyarrow.ArrowException, OSError, ValueError) as e:
        raise broken(e) from e
    _check_distinct(file.schema_arrow.names, path)

    shown = str(path)

    @functools.cache
    def column(name: str) -> Any:
        try:
            found = file.read(columns=[name]).column(name)
        except (pyarrow.ArrowException, OSError, KeyError, ValueError) as e:
            raise broken(e) from e
        if len(found) != count:
            raise broken(ValueError(f"{len(found)} of {count} rows in column {name!r}"))
        return found

    def get(i: int) -> Mapping[str, Any]:
        return Cells(names, lambda name: column(name)[i].as_py(), f"{shown}, row {i}")

    return _numbered(path, count, get)


def _parquet_count(metadata: Any) -> int:
    """How many rows a parquet file has, if its parts say so too.

    Raises:
      ValueError: they say otherwise, or there are more rows than values in them.
    """
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    for group in groups:
        if group.num_columns and not 0 <= group.num_rows <= group.column(0).num_values:
            raise ValueError(f"a group of {group.num_rows} rows without as many values")
    count: int = metadata.num_rows
    if count != sum(group.num_rows for group in groups):
        raise ValueError(f"{count} rows, which its groups do not hold")
    return count


def _check_distinct(names: Sequence[str], path: Path) -> None:
    """Refuses two columns of one name; those without any cannot be asked for."""
    seen: set[str] = set()
    for name in names:
        if name and name in seen:
            raise UserError(
                f"{path}: two columns are called {name[:80]!r}; give each a name of its own"
            )
        seen.add(name)


def _read_txt(path: Path, data: bytes) -> Rows:
    """Passages of at most TXT_CHARACTERS, cut at paragraph ends; see `split_articles`."""
    passages = split_articles(foreign.decode(data, str(path)), TXT_CHARACTERS)
    return _numbered(path, len(passages), lambda i: {"text": passages[i]})


_OF_ROWS = ("text", "prompt", "completion", "messages", "conversations")  # columns of a row
_READERS: dict[str, Callable[[Path, bytes], Rows]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": functools.partial(_read_csv, delimiter="\t"),
    ".parquet": _read_parquet,
    ".txt": _read_txt,
}
