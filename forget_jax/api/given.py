"""What a notebook gives: examples in whatever form they are at hand, and settings as keywords."""

import dataclasses
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader
from forget_jax.data.rows import to_example
from forget_jax.data.settings import Data
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError, nearest
from forget_jax.files import PathLike
from forget_jax.lm.hf.base import Base
from forget_jax.settings import check

# A data set by name; or its texts, pairs of prompt and completion, rows, or examples.
Examples = PathLike | Sequence[str | tuple[str, str] | Mapping[str, Any] | Example]


def settings(
    what: str, given: Mapping[str, Any], *tables: type, without: Sequence[str] = ()
) -> list[Any]:
    """The tables of settings, with the values that are given.

    Args:
      what: takes them, for error messages.
      tables: dataclasses of `forget_jax.settings`, without a field in common.
      without: fields that are not given.

    Raises:
      UserError: an unknown field (names the nearest), or a value of another type or out of bounds.
    """
    fields = {f.name: f for t in tables for f in dataclasses.fields(t) if f.name not in without}
    values = {}
    for name, value in given.items():
        if name not in fields:
            raise UserError(
                f"{what} has no setting {name!r}{nearest(name, fields)}; there are "
                f"{', '.join(fields)}"
            )
        values[name] = _like(fields[name].default, value, f"{what}: {name}")
    made = []
    for table in tables:
        own = {f.name for f in dataclasses.fields(table)}
        made.append(table(**{name: value for name, value in values.items() if name in own}))
        check(made[-1], what)
    return made


def _like(default: Any, value: Any, what: str) -> Any:
    """The value as the type of the default."""
    truth = isinstance(value, bool | np.bool_)
    if isinstance(default, bool):
        kind, fits = "True or False", truth
    elif isinstance(default, int):
        kind, fits = "a whole number", isinstance(value, numbers.Integral) and not truth
    elif isinstance(default, float):
        kind, fits = "a number", isinstance(value, numbers.Real) and not truth
        fits = fits and math.isfinite(value)
    elif isinstance(default, str):
        kind, fits = "text", isinstance(value, str)
    else:
        kind, fits = "a list of texts", isinstance(value, list | tuple)
        fits = fits and all(isinstance(x, str) for x in value)
    if not fits:
        raise UserError(f"{what} takes {kind}, not {value!r}")
    return type(default)(value)


def encoded(
    base: Base, data: Examples, how: Mapping[str, Any] | None, scored: bool
) -> list[Encoded]:
    """Examples as rows of tokens.

    Args:
      base: its tokenizer and context hold.
      data: a data set by name (a file, `builtin:NAME`, `hf:NAME` or `tfds:NAME`, with rows
        `[a:b]`), or a list of texts, of pairs of prompt and completion, of rows with the columns of
        a file, or of examples.
      how: fields of `forget_jax.data.settings.Data`.
      scored: they are scored, not trained on.

    Raises:
      UserError: as `Reader.read`; a list that is empty, or holds something else.
    """
    (chosen,) = settings("reading", how or {}, Data)
    shape = base.model.config
    reader = Reader(chosen, base.tokenizer, shape.context, shape.vocab_size)
    if isinstance(data, str | os.PathLike):
        return reader.read((os.fspath(data),), scored).encoded
    listed = [_example(item, i) for i, item in enumerate(data)]
    if not listed:
        raise UserError("the list of examples is empty")
    names = [e.name for e in listed]
    if len(set(names)) < len(names):
        raise UserError(f"two examples are called {max(names, key=names.count)}")
    return reader.encode(listed, scored)[0]


def _example(item: Any, i: int) -> Example:
    """An item of a list as an example; one without a name is called by its place."""
    where = f"item {i} of the list"
    if isinstance(item, Example):
        return item
    if isinstance(item, str):
        _check_text(item, where)
        item = {"text": item}
    elif isinstance(item, tuple) and len(item) == 2:
        item = dict(zip(("prompt", "completion"), item, strict=True))
    elif not isinstance(item, Mapping):
        raise UserError(
            f"{where} is {item!r}; it must be a text, a pair (prompt, completion), a row such as "
            "{'text': ...}, or an Example"
        )
    example = to_example(item, {}, where=where, name=f"example#{i}", source="list")
    if example is None:
        raise UserError(f"{where} is blank: leave it out")
    return example


def _check_text(text: str, where: str) -> None:
    """Refuses the name of a data set among texts, which would be scored as it stands."""
    kind = text.partition(":")[0]
    short = len(text) < 256 and "\n" not in text
    if short and (kind in ("builtin", "hf", "tfds") or Path(text).is_file()):
        raise UserError(f"{where} is {text!r}, a data set: give it by itself, not in a list")
