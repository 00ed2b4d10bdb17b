"""Dataclasses of figures to JSON and back: every field by its name and type, and nothing besides.

NaN and infinities are null in JSON. A null is read as NaN where the field is a `float`, and as None
where it is a `float | None`.
"""

import dataclasses
import math
import types
import typing
from typing import Any

from forget_jax.errors import UserError

FLAT = {"flat": True}  # metadata of a field: the group's own fields stand in its place
SPARSE = {"sparse": True}  # metadata of a field: where it is None, it is left out

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def encode(value: Any) -> Any:
    """A dataclass, and all in it, as dicts and lists in the order of the fields."""
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    if not dataclasses.is_dataclass(value):
        return value
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if "flat" in field.metadata:
            found |= encode(inner)
        elif inner is not None or "sparse" not in field.metadata:
            found[field.name] = encode(inner)
    return found


def decode(kind: Any, value: Any, where: str = "") -> Any:
    """A value of the type `kind` from JSON's own types.

    Args:
      kind: a dataclass, bool, int, float, str, object (anything), `X | None`, `dict[str, X]`,
        `tuple[X, ...]` or a tuple of fixed length.
      value: what was read.
      where: the field's name, for the message.

    Raises:
      UserError: a field is missing, unknown or of another type.
    """
    inner = typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        given = dict(_checked(dict, "a group of figures", value, where))
        made = _take(kind, given, where)
        if given:
            raise UserError(f"{_at(where, next(iter(given)))} is unknown")
        return made
    if isinstance(kind, types.UnionType):
        (some,) = (k for k in inner if k is not types.NoneType)
        return None if value is None else decode(some, value, where)
    if typing.get_origin(kind) is dict:
        group = _checked(dict, "a group of figures", value, where)
        return {name: decode(inner[1], v, _at(where, name)) for name, v in group.items()}
    if typing.get_origin(kind) is tuple:
        values = _checked(list, "a list", value, where)
        kinds = [inner[0]] * len(values) if inner[-1] is Ellipsis else inner
        if len(kinds) != len(values):
            raise UserError(f"{where} holds {len(values)} values, not {len(kinds)}")
        numbered = enumerate(zip(kinds, values, strict=True))
        return tuple(decode(k, v, f"{where}[{i}]") for i, (k, v) in numbered)
    if kind is object:
        return value
    if kind is float:
        return math.nan if value is None else _checked(int | float, _KINDS[float], value, where)
    return _checked(kind, _KINDS[kind], value, where)


def _take(kind: Any, given: dict[str, Any], where: str) -> Any:
    """A dataclass of the fields found in `given`, which are taken out of it."""
    hints = typing.get_type_hints(kind)
    made = {}
    for field in dataclasses.fields(kind):
        at = _at(where, field.name)
        if "flat" in field.metadata:
            made[field.name] = _take(hints[field.name], given, where)
        elif field.name in given:
            made[field.name] = decode(hints[field.name], given.pop(field.name), at)
        elif "sparse" not in field.metadata:
            raise UserError(f"{at} is missing")
    return kind(**made)


def _checked(kind: Any, called: str, value: Any, where: str) -> Any:
    """The value, if it is of the type; a bool counts as no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{where or 'it'} must be {called}, not {value!r:.60}")
    return value


def _at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
