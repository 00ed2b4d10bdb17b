"""JSON that others wrote, or that a disk has damaged: every flaw is one line that says where it is.

Whatever reads JSON goes through `parse`, and whatever takes a value out of it through `field`.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from forget_jax.errors import UserError

WHOLE = 2**63 - 1  # larger whole numbers fit into no array
_REQUIRED: Any = object()
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "an object",
}
_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def in_words(value: Any, most: int = 60) -> str:
    """What a wrong value is, such as `a list` or `a number (8.5)`, for an error's line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"{str(value).lower()} (a truth value)"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of over 60 digits"
    if isinstance(value, int | float):
        return f"a number ({value})"
    if isinstance(value, str):
        return f"the text {value[:most]!r}{'…' if len(value) > most else ''}"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else f"of type {type(value).__name__}"


def decode(data: bytes, where: str, line: int = 1) -> str:
    """UTF-8 text, with an optional byte-order mark.

    Args:
      where: the file's name for people.
      line: where in the file `data` begins.

    Raises:
      UserError: other bytes; names the file, the line and, where a mark tells it, the encoding.
    """
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            raise UserError(f"{where}: is {name} text; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        at = line + data.count(b"\n", 0, e.start)
        raise UserError(
            f"{where}, line {at}: not UTF-8 text (byte 0x{data[e.start]:02x}); save it as UTF-8"
        ) from e


def parse(data: bytes | str, where: str, line: int = 1) -> Any:
    """The value of a JSON document.

    Args:
      data: its text, or bytes as `decode` takes them.
      where: the file's name for people.
      line: where in the file `data` begins.

    Raises:
      UserError: no JSON, nested too deep, or a number of thousands of digits; names file and line.
    """
    text = decode(data, where, line) if isinstance(data, bytes) else data
    try:
        return json.loads(text)
    except json.JSONDecodeError as e:
        at = f"{where}, line {line + e.lineno - 1}"
        raise UserError(f"{at}: not valid JSON ({e.msg}, column {e.colno})") from e
    except RecursionError as e:
        raise UserError(f"{where}, line {line}: JSON nested too deep to be data") from e
    except ValueError as e:  # Python's own limit of digits
        raise UserError(f"{where}, line {line}: holds a number of thousands of digits") from e


def record(value: Any, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
      UserError: another type of value.
    """
    if not isinstance(value, dict):
        raise UserError(f"{where}: holds {in_words(value)}, not a JSON object")
    return value


def field(
    held: Mapping[str, Any],
    key: str,
    kind: type,
    where: str,
    default: Any = _REQUIRED,
    *,
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """The value of an object's field, of the type that it must have.

    A null is as good as a missing field where there is a default. A whole number may stand for a
    fraction, and a fraction without a remainder (`8.0`) for a whole number.

    Args:
      held: the object.
      kind: int, float, bool, str, list or dict.
      where: the file's name for people.
      default: what a missing or null field means; without one the field is required.
      least, most: bounds of a number, both allowed.

    Raises:
      UserError: missing, of another type, not finite or out of bounds; names file and field.
    """
    value = held.get(key)
    if value is None:
        if default is not _REQUIRED:
            return default
        state = "null" if key in held else "missing"
        raise UserError(f"{where}: {key} is {state}; it must be {_KINDS[kind]}")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    fits = number if kind is float else isinstance(value, kind) and (kind is bool) == (
        isinstance(value, bool)
    )  # fmt: skip
    if not fits:
        raise UserError(f"{where}: {key} is {in_words(value)}; it must be {_KINDS[kind]}")
    if number and (not _finite(value) or abs(value) > (WHOLE if kind is int else math.inf)):
        raise UserError(f"{where}: {key} is {in_words(value)}: not a number to calculate with")
    if (least is not None and value < least) or (most is not None and value > most):
        said = {f"{least} or more": least, f"{most} or less": most}
        bounds = [words for words, bound in said.items() if bound is not None]
        raise UserError(f"{where}: {key} is {in_words(value)}; it must be {' and '.join(bounds)}")
    return float(value) if kind is float else value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False
