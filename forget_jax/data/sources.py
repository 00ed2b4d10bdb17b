"""Loads a data set, named by one line of text, as a list of examples.

    path/to/file.jsonl              also .json, .csv, .tsv, .parquet and .txt, each also .gz;
                                    local, gs:// or s3://
    hf:NAME[:config][:split]        through `datasets`; NAME may be a local folder
    tfds:NAME[:version][:split]     through `tensorflow_datasets`; NAME may be a local folder
    builtin:NAME                    ships with the package and works offline

Rows hold `text`, or `prompt` and `completion`, or `messages`, and optionally `name`, `source` and
`answers` (`forget_jax.data.rows`).
"""

import array
import logging
import random
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from forget_jax.data import builtin, hubs
from forget_jax.data.examples import Example
from forget_jax.data.notes import Notes
from forget_jax.data.row_files import Rows, read_rows
from forget_jax.data.rows import check_columns, to_example, to_prompt
from forget_jax.errors import UserError

_log = logging.getLogger(__name__)


def load(
    spec: str,
    *,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int | None = None,
    skip: int = 0,
    prompts: bool = False,
) -> list[Example]:
    """Loads the examples a spec names; names are unique within the list.

    Args:
      spec: a path, or `hf:`, `tfds:` or `builtin:` and a name; see the module's docstring.
      columns: our field names onto the data set's, such as `{"prompt": "question"}`; an empty one
        switches a field off.
      limit: at most so many examples; None is all of them.
      seed: shuffles the rows first; None keeps their order. Names do not depend on it.
      skip: leaves out so many examples after the shuffle, so that `limit=n` and `skip=n` with one
        seed give disjoint slices of one data set.
      prompts: rows need no completion: a prompt alone is read as a text.

    Rows of blank text are left out before `skip` and `limit` count. A row's default name is
    `<stem>#<row number>`, counted from 0 in the data set's own order. What was read in another way
    than it is written is said on stderr.

    Raises:
      UserError: for a data set that is missing, empty or not readable, and for a bad row; the line
        names the file and the row.
    """
    return load_named(spec, columns=columns, limit=limit, seed=seed, skip=skip, prompts=prompts)[1]


def load_named(
    spec: str,
    *,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int | None = None,
    skip: int = 0,
    prompts: bool = False,
) -> tuple[str, list[Example]]:
    """As `load`, with the stem of default names and sources; empty for built-in data."""
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
        return "", _select(spec, len(examples), examples.__getitem__, limit, seed, skip)
    rows: Rows
    if kind == "hf":
        rows = hubs.hf_rows(name)
    elif kind == "tfds":
        rows = hubs.tfds_rows(name)
    else:
        rows = read_rows(spec)
    notes, stem = Notes(), sys.intern(rows.stem)
    read = to_prompt if prompts else to_example

    def get(i: int) -> Example | None:
        row, where = rows.get(i), rows.where(i)
        return read(row, columns, where=where, name=f"{stem}#{i}", source=stem, notes=notes)

    examples = _select(spec, rows.count, get, limit, seed, skip, rows.where)
    notes.say(spec)
    return stem, examples


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
    names: set[str] = set()
    blank = passed = 0
    order = _order(count, seed)
    for i in order:
        if limit is not None and len(chosen) == limit:
            break
        example = get(i)
        if example is None:
            blank += 1
        elif passed < skip:
            passed += 1
        elif example.name in names:
            first, second = sorted((i, next(j for j in order if _name(get(j)) == example.name)))
            raise UserError(
                f"{where(second)}: the name {example.name!r} is already that of {where(first)}; "
                "names must be unique"
            )
        else:
            names.add(example.name)
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


def _name(example: Example | None) -> str | None:
    return None if example is None else example.name


def _order(count: int, seed: int | None) -> Sequence[int]:
    """Row numbers, shuffled by sorting random keys: Python promises `random()` never changes."""
    if seed is None:
        return range(count)
    draw = random.Random(seed).random
    keys = np.fromiter((draw() for _ in range(count)), np.float64, count)
    return array.array("q", np.argsort(keys, kind="stable").astype(np.int64).tobytes())
