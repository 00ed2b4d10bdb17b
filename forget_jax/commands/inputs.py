"""Which inputs a command has, from its settings, and what they hold now (`runs.inputs`)."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

from forget_jax import files
from forget_jax.commands import matrices
from forget_jax.data import reading, row_paths
from forget_jax.data.examples import Example
from forget_jax.data.reading import split_slice
from forget_jax.data.settings import Data
from forget_jax.errors import UserError
from forget_jax.files import Path
from forget_jax.lm.hf import about
from forget_jax.runs import inputs, manifest
from forget_jax.runs.workdir import Workdir
from forget_jax.scaling import tables

NAMED = {"named rows": "rows", "named prompts": "prompts"}  # of a field, and of what it names
ROWS = ("rows", "prompts")
FIELDS = tuple(field.name for field in dataclasses.fields(Example))


def watcher(work: Workdir) -> Callable[[str, list[Example]], None]:
    """What a run is told of each data set as it reads it: it must be what it was at first."""
    return lambda spec, rows: inputs.check(work, {f"rows of {spec}": _of_rows(rows)})


def check_there(settings: Any) -> None:
    """Refuses files of this machine that are not there, before anything is made or loaded.

    Raises:
      UserError: one that is missing, or columns that cannot be read.
    """
    for _, kind, name, data in _inputs(settings):
        if kind in ROWS:
            source = split_slice(name)[0]
            if ":" not in source:
                row_paths.check_there(row_paths.path_of(source))
                reading.columns(data)
        elif kind == "file":
            row_paths.check_there(
                Path(matrices.place(name, (*matrices.TABLES, *tables.OF_WORKDIR)))
            )


def check(settings: Any, work: Workdir) -> None:
    """Compares models, adapters and files with what they were when the run began.

    Where the run has ended, its rows too, which nobody would read any more; what is gone since is
    said, and that is all.

    Raises:
      UserError: an input has changed.
    """
    ended = work.done is not None
    found: dict[str, str] = {}
    for key, kind, name, data in _inputs(settings):
        if kind in ROWS and (not ended or name.startswith("builtin:")):
            continue
        what = f"rows of {name}" if kind in ROWS else f"{key} {name}"
        if kind not in ROWS and not ended and _is_here(name):
            manifest.check(name)
        try:
            digest = _of(kind, name, data)
        except (UserError, OSError, ValueError) as e:
            if not ended:
                continue  # the command itself says what is wrong with it
            if _is_here(name):
                raise
            print(f"{what}: not compared with what it was ({e})", file=sys.stderr)
            continue
        if digest:
            found[what] = digest
    inputs.check(work, found, keep=not ended)


def _inputs(settings: Any, prefix: str = "") -> Iterator[tuple[str, str, str, Any]]:
    """Every input that settings name: its field, kind and name, and how rows are read."""
    data = getattr(settings, "data", settings if isinstance(settings, Data) else None)
    for field in dataclasses.fields(settings):
        value, key = getattr(settings, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _inputs(value, f"{key}.")
        elif kind := field.metadata["rule"].input:
            for name in value if isinstance(value, tuple) else (value,):
                if kind in NAMED:
                    yield key, NAMED[kind], reading.split_name(name)[1], data
                elif name:
                    yield key, kind, name, data


def _of(kind: str, name: str, data: Any) -> str:
    """The digest of an input; empty where there is nothing to read."""
    if kind in ROWS:
        return _of_rows(reading.load((name,), data, prompts=kind == "prompts"))
    if kind == "file":
        return inputs.of_path(matrices.place(name, (*matrices.TABLES, *tables.OF_WORKDIR)))
    for place in (Path(name) / "adapter", Path(name) / "model") if kind == "adapter" else ():
        if place.is_dir():
            return inputs.of_weights(place)
    if Path(name).exists() or not files.is_local(name):
        return inputs.of_weights(name)
    return inputs.of_weights(about.folder(name))  # of the hub


def _of_rows(rows: list[Example]) -> str:
    return inputs.of_rows(
        # options count where there are any: runs from before there were such go on
        [getattr(row, name) for name in FIELDS if name != "options" or row.options]
        for row in rows
    )


def _is_here(name: str) -> bool:
    """Whether an input lies on this machine, so that it cannot be read for a flaw of its own."""
    return files.is_local(name) and Path(split_slice(name)[0]).exists()
