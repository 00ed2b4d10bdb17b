"""Configs: loading `configs/NAME.py`, typed dotted overrides, and the list of fields for --help."""

import ast
import csv
import importlib
import importlib.util
import math
import pkgutil
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from forget_jax.commands import config_file
from forget_jax.errors import UserError, nearest
from forget_jax.files import Path
from forget_jax.settings import WHOLE, is_text, rule, shown

DEEPEST = 20  # sections within sections


def load(name: str, command: str = "") -> ConfigDict:
    """The locked config of `NAME[:arg]` in configs/, of `PATH.py[:arg]` or of a YAML or JSON file.

    Args:
      command: whose defaults a YAML or JSON file differs from.

    Raises:
      UserError: no such config, or one that fails, does not take the argument or gives no config.
    """
    if command and is_text(name) and config_file.is_one(name):
        config = load(command)
        for key, value in config_file.fields(name, command).items():
            override(config, key, value)
        return config
    name, colon, arg = name.partition(":")
    if not is_text(name):
        raise UserError(f"--config={shown(name)} holds characters that no path has")
    if name.endswith(".py"):
        module = _of_file(name)
    else:
        folder = importlib.import_module("forget_jax.configs").__path__
        known = [m.name for m in pkgutil.iter_modules(folder)]
        if name not in known:
            raise UserError(
                f"no config named {shown(name)}{nearest(name, known)}; there are "
                f"{', '.join(known)}, or give the path of a .py, .yaml or .json file"
            )
        module = importlib.import_module(f"forget_jax.configs.{name}")
    if not hasattr(module, "get_config"):
        raise UserError(f"config {name} has no get_config()")
    try:
        config = module.get_config(arg) if colon else module.get_config()
        if isinstance(config, ConfigDict):
            flat(config)  # fields may be computed only when they are asked for
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as e:  # such as sys.exit
        why = f" does not take the argument {shown(arg)}" if colon else ""
        raise UserError(f"config {name}{why}: {_in_words(e)}") from e
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"config {name}: get_config() returns {type(config).__name__}, not a ConfigDict; "
            "begin with one such as forget_jax.configs.finetune.get_config()"
        )
    return config if isinstance(config, FrozenConfigDict) else config.lock()


def _of_file(name: str) -> ModuleType:
    """The module of a file of the user's own."""
    spec = importlib.util.spec_from_file_location("user_config", name)
    if spec is None or spec.loader is None or not Path(name).is_file():
        raise UserError(f"config {name} does not exist")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as e:
        raise UserError(f"config {name}: {_in_words(e)}") from e
    return module


def _in_words(error: BaseException) -> str:
    """What a user's own code raised, in one line."""
    try:
        said = " ".join(str(error).split())
    except Exception:
        said = ""
    return f"{type(error).__name__}: {said[:300]}" if said else type(error).__name__


def flat(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Every field by its dotted key.

    Raises:
      UserError: sections that hold themselves, or a key that is no text.
    """
    if prefix.count(".") > DEEPEST:
        raise UserError(f"config.{prefix[:80]}…: sections nested too deep; does one hold itself?")
    fields: dict[str, Any] = {}
    for key in config:
        if not isinstance(key, str):
            raise UserError(f"config.{prefix}: the key {shown(key)} is no text")
        value = config[key]
        if isinstance(value, ConfigDict):
            fields |= flat(value, f"{prefix}{key}.")
        else:
            fields[prefix + key] = value
    return fields


def plain(config: ConfigDict) -> dict[str, Any]:
    """The config as nested dicts for JSON, tuples as lists."""
    return {
        key: plain(value)
        if isinstance(value, ConfigDict)
        else list(value)
        if isinstance(value, tuple)
        else value
        for key, value in config.items()
    }


def override(config: ConfigDict, key: str, given: str | Sequence[str] | None) -> None:
    """Sets one field from the command line, as the type its default has.

    Args:
      given: its text; of a sequence, elements between commas (one that holds a comma in double
        quotes) or a list as Python writes it; or the elements' texts. None: the field's name alone,
        which sets one of true or false to true.

    Raises:
      UserError: an unknown key (names the closest) or a value of the wrong type.
    """
    fields = flat(config)
    if key not in fields:
        raise UserError(
            f"no config field {shown(key)}{nearest(key, fields)}; see --help for all fields"
        )
    old = fields[key]
    if given is None:
        if not isinstance(old, bool):
            raise UserError(f"--config.{key} needs a value: --config.{key}=...")
        given = "true"
    if isinstance(old, tuple):
        parts = elements(key, given) if isinstance(given, str) else given
        like = old[0] if old else ""
        new: Any = tuple(_parse(key, part, like) for part in parts)
    elif isinstance(given, str):
        new = _parse(key, given, old)
    else:
        raise UserError(f"config.{key} takes one value, not a list")
    node = config
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    node[last] = new


def elements(key: str, text: str) -> Sequence[str]:
    """What stands between commas, or in a list as Python writes it."""
    listed = _literal(text)
    if listed is not None:
        return listed
    try:
        return [x for row in csv.reader([text], skipinitialspace=True) for x in row]
    except csv.Error as e:  # a line's end within, or an element of over 131,072 characters
        raise UserError(f"config.{key} takes elements between commas: {e}") from e


def _literal(text: str) -> list[str] | None:
    """The elements of `("a", "b")` or `[1, 4]` as texts; None where the text is no such list."""
    text = text.strip()
    if (text[:1], text[-1:]) not in (("(", ")"), ("[", "]")):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of escapes that are none
            held = ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    held = list(held) if isinstance(held, list | tuple) else [held]
    return [str(x) for x in held] if all(isinstance(x, str | int | float) for x in held) else None


def _parse(key: str, text: str, like: Any) -> Any:
    """The text as a value of the type of `like`."""
    text = text.strip()
    if not is_text(text):
        raise UserError(f"config.{key} is {shown(text)}: NUL and bytes that are no UTF-8 cannot be")
    if isinstance(like, bool):
        if text.lower() in ("true", "1", "yes"):
            return True
        if text.lower() in ("false", "0", "no"):
            return False
        raise UserError(f"config.{key} takes true or false, not {shown(text)}{_sweep(key, text)}")
    if isinstance(like, int | float):
        whole = isinstance(like, int)
        article = "a whole number" if whole else "a number"
        try:
            value = _whole(text) if whole else float(text)
            if abs(value) <= WHOLE if whole else math.isfinite(value):
                return value
            article += " of at most 63 bits" if whole else ""
        except (ValueError, OverflowError):
            pass
        raise UserError(f"config.{key} takes {article}, not {shown(text)}{_sweep(key, text)}")
    return text


def _sweep(key: str, text: str) -> str:
    """How to try several values, for a field of one that is given several."""
    if "," not in text.strip(",") or not all(part.strip() for part in text.split(",")):
        return ""
    return (
        f"; for a run of each value: --sweep.{key}={text} (`forget-jax scaling` takes several lrs, "
        "ranks, steps and methods in one run)"
    )


def _whole(text: str) -> int:
    """A whole number, also as `1e2`; ValueError or OverflowError where it is none."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if number.is_integer():
            return int(number)
        raise


def describe(table: type, config: ConfigDict) -> str:
    """One line a field of a command's table: key, value and meaning."""
    fields = flat(config)
    shown = {
        key: ",".join(map(str, v)) if isinstance(v, tuple) else str(v) for key, v in fields.items()
    }
    if not fields:
        return "  it has no config fields"
    width = max(len(key) for key in fields) + 9
    return "\n".join(
        f"  --config.{key:{width - 9}}  {rule(table, key).meaning}\n  {'':{width}}  [{shown[key]}]"
        for key in fields
    )
