"""Loads a data set, named by one line of text, as a list of examples.

    path/to/file.jsonl              also .json, .csv, .parquet and .txt; local or gs://
    hf:NAME[:config][:split]        through `datasets`; NAME may be a local folder
    tfds:NAME[:version][:split]     through `tensorflow_datasets`; NAME may be a local folder
    builtin:NAME                    ships with the package and works offline

Rows hold `text`, or `prompt` and `completion`, or `messages`, and optionally `name`, `source` and
`answers` (`forget_jax.data.rows`).
"""

import logging
import random
from collections.abc import Callable, Mapping, Sequence

from forget_jax.data import builtin, hubs
from forget_jax.data.examples import Example
from forget_jax.data.row_files import Rows, read_rows
from forget_jax.data.rows import check_columns, to_example
from forget_jax.errors import UserError

_log = logging.getLogger(__name__)


def load(
    spec: str,
    *,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int | None = None,
    skip: int = 0,
) -> list[Example]:
    """Loads the examples a spec names; names are unique within the list.

    Args:
      spec: a path, or `hf:`, `tfds:` or `builtin:` and a name; see the module's docstring.
      columns: our field names onto the data set's, such as `{"prompt": "question"}`.
      limit: at most so many examples; None is all of them.
      seed: shuffles the rows first; None keeps their order. Names do not depend on it.
      skip: leaves out so many examples after the shuffle, so that `limit=n` and `skip=n` with one
        seed give disjoint slices of one data set.

    Rows of blank text are left out before `skip` and `limit` count. A row's default name is
    `<stem>#<row number>`, counted from 0 in the data set's own order.

    Raises:
      UserError: for a data set that is missing, empty or not readable, and for a bad row; the line
        names the file and the row.
    """
    if skip < 0:
        raise UserError(f"skip is {skip}; it must be 0 or more")
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; it must be 1 or more (leave it out for all rows)")
    columns = dict(columns or {})
    check_columns(columns)
    kind, _, name = spec.partition(":")
    if kind == "builtin":
        if columns:
            raise UserError(f"{spec}: columns are for files and hubs; built-in data has none")
        examples = builtin.load(name)
        return _select(spec, len(examples), examples.__getitem__, limit, seed, skip)
    rows: Rows
    if kind == "hf":
        rows = hubs.hf_rows(name)
    elif kind == "tfds":
        rows = hubs.tfds_rows(name)
    else:
        rows = read_rows(spec)

    def get(i: int) -> Example | None:
        default = f"{rows.stem}#{i}"
        return to_example(rows.get(i), columns, where=rows.where(i), name=default, source=rows.stem)

    return _select(spec, rows.count, get, limit, seed, skip, rows.where)


def _select(
    spec: str,
    count: int,
    get: Callable[[int], Example | None],
    limit: int | None,
    seed: int | None,
    skip: int,
    where: Callable[[int], str] = str,
) -> list[Example]:
    """The chosen examples in order; blank ones (None) are passed over and counted for the log."""
    chosen: list[Example] = []
    place_of: dict[str, int] = {}
    blank = passed = 0
    for i in _order(count, seed):
        if limit is not None and len(chosen) == limit:
            break
        example = get(i)
        if example is None:
            blank += 1
        elif passed < skip:
            passed += 1
        elif example.name in place_of:
            first, second = sorted((place_of[example.name], i))
            raise UserError(
                f"{where(second)}: the name {example.name!r} is already that of {where(first)}; "
                "names must be unique"
            )
        else:
            place_of[example.name] = i
            chosen.append(example)
    if blank:
        _log.info("%s: left out %d rows of blank text", spec, blank)
    if not chosen:
        usable = passed
        raise UserError(
            f"{spec}: skip={skip} leaves nothing of its {usable} examples"
            if usable
            else f"{spec} is empty: all of its {count} rows are blank"
        )
    return chosen


def _order(count: int, seed: int | None) -> Sequence[int]:
    """Row numbers, shuffled by sorting random keys: Python promises `random()` never changes."""
    if seed is None:
        return range(count)
    draw = random.Random(seed).random
    keys = [draw() for _ in range(count)]
    return sorted(range(count), key=keys.__getitem__)
