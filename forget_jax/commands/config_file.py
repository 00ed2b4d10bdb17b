"""Settings out of a YAML or JSON file: what differs from a command's defaults."""

from collections.abc import Mapping
from typing import Any

import yaml

from forget_jax import foreign
from forget_jax.errors import UserError
from forget_jax.files import Path
from forget_jax.settings import shown

SUFFIXES = (".yaml", ".yml", ".json")
DEEPEST = 20  # sections within sections


def fields(name: str, command: str) -> dict[str, str | tuple[str, ...]]:
    """A file's fields by dotted key, as they would be given on the command line.

    Args:
      name: the file. A workdir's config.json is one, whose `command` must be this one.

    Raises:
      UserError: no such file, no YAML, or values that no field can have.
    """
    path = Path(name)
    if not path.is_file():
        raise UserError(f"config {name} does not exist")
    try:
        held = yaml.safe_load(foreign.decode(path.read_bytes(), name))
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        raise UserError(f"config {name}: no YAML: {' '.join(str(e).split())[:300]}") from e
    if held is None:
        return {}
    if not isinstance(held, Mapping):
        raise UserError(f"config {name}: holds {foreign.in_words(held)}, not fields and values")
    if (of := held.get("command", command)) != command:
        raise UserError(f"config {name} is of the command {shown(of)}, not of {command}")
    return _flat(name, {key: value for key, value in held.items() if key != "command"})


def _flat(name: str, held: Mapping[Any, Any], prefix: str = "") -> dict[str, str | tuple[str, ...]]:
    if prefix.count(".") > DEEPEST:
        raise UserError(f"config {name}: sections nested too deep; does one hold itself?")
    found: dict[str, str | tuple[str, ...]] = {}
    for key, value in held.items():
        where = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= _flat(name, value, f"{where}.")
        elif isinstance(value, list):
            found[where] = tuple(_text(name, where, x) for x in value)
        else:
            found[where] = _text(name, where, value)
    return found


def _text(name: str, key: str, value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise UserError(
            f"config {name}: {key} is {foreign.in_words(value)}; a field is a text, a number, true "
            "or false, or a list of these"
        )
    try:
        return str(value).lower() if isinstance(value, bool) else str(value)
    except ValueError as e:  # a number of thousands of digits
        raise UserError(f"config {name}: {key} is no number that a field can have") from e


def is_one(name: str) -> bool:
    """Whether a config's name is that of such a file."""
    return name.lower().endswith(SUFFIXES)
