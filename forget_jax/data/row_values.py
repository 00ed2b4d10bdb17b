"""Values of a row's cells: texts, names, and lists of texts, in the ways that people write them."""

from typing import Any

from forget_jax import foreign
from forget_jax.errors import UserError
from forget_jax.foreign import in_words


def text_of(value: Any, field: str, where: str) -> str:
    """A text that can be written as UTF-8.

    Raises:
      UserError: another type of value, or half a character, which no tokenizer takes.
    """
    if not isinstance(value, str):
        raise UserError(f"{where}: {field} is {in_words(value)}, not text")
    try:
        value.encode()
    except UnicodeEncodeError as e:  # JSON can hold such escapes
        broken = value[e.start].encode("ascii", "backslashreplace").decode()
        raise UserError(f"{where}: {field} holds {broken}, which is no character") from e
    return value


def label(value: Any, field: str, where: str) -> str:
    """A name or source: text, or a number as data bases give their ids; empty where there is none.

    Raises:
      UserError: another type of value.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= foreign.WHOLE:
        return str(value)
    return text_of(value, field, where)


def texts_of(value: Any, field: str, where: str) -> tuple[str, ...]:
    """A list of texts, given as a list, as JSON text of a list, or as one text.

    Raises:
      UserError: another type of value, or a list of others than texts.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        listed = as_list(value)
        value = [value] if listed is None else listed
    if not isinstance(value, list):
        raise UserError(f"{where}: {field} is {in_words(value)}, not a list of texts")
    return tuple(text_of(item, f"an entry of {field}", where) for item in value)


def as_list(value: str) -> list[str] | None:
    """The list of texts that a text is in JSON; None where it is none."""
    held = from_json(value, "[")
    return held if held is not None and all(isinstance(x, str) for x in held) else None


def from_json(value: str, opening: str) -> Any:
    """What a text is in JSON, where it begins as such; None where it is not JSON at all."""
    if not value.lstrip().startswith(opening):
        return None
    try:
        return foreign.parse(value, "")
    except UserError:
        return None
