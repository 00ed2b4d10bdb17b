"""One command under several values of some fields: a run for each, and a table of all of them.

`--sweep.train.lr=1e-4,1e-3 --sweep.lora.rank=4,16` are four runs, each in a folder of the workdir
that bears its values, in the order of the command line, the last field fastest.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from forget_jax import distributed, files
from forget_jax.commands import config as configs
from forget_jax.errors import UserError
from forget_jax.files import Path

TABLE = "sweep.csv"
MOST = 1000  # runs of a sweep


def values_of(key: str, text: str) -> list[str]:
    """The values between commas; one that holds commas stands in double quotes."""
    found = list(configs.elements(f"sweep.{key}", text))
    if not found or not all(value.strip() for value in found):
        raise UserError(f"--sweep.{key}={text} names no value, or an empty one between commas")
    if twice := [value for value in found if found.count(value) > 1]:
        raise UserError(f"--sweep.{key} names {twice[0]} twice")
    return found


def expand(
    config: ConfigDict, sweeps: Sequence[tuple[str, str]]
) -> list[tuple[dict[str, str], ConfigDict]]:
    """Every combination of the values: what it sets, and the whole config.

    Args:
      config: what all share.
      sweeps: fields by their dotted keys, each with its values as text; without any there is one
        combination, which sets nothing.

    Raises:
      UserError: a field that is not there or swept twice, a value of the wrong type, no value, or
        too many runs.
    """
    keys = [key for key, _ in sweeps]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise UserError(f"--sweep.{twice[0]} stands twice; give all of its values in one")
    values = [values_of(key, text) for key, text in sweeps]
    if (runs := math.prod(map(len, values))) > MOST:
        raise UserError(f"a sweep of {runs:,} runs; at most {MOST:,} are taken")
    found = []
    for some in itertools.product(*values):
        sets = dict(zip(keys, some, strict=True))
        # like the given one, with its types
        own = config.copy_and_resolve_references()
        for key, value in sets.items():
            configs.override(own, key, value)
        found.append((sets, own.lock()))
    return found


def folder(workdir: str, sets: Mapping[str, str]) -> str:
    """The folder of a run: the workdir itself, or one in it that bears what the run sets."""
    if not sets:
        return workdir
    named = ",".join(f"{key}={files.safe_name(value)}" for key, value in sets.items())
    if len(named) > 200:
        named = files.safe_name(named)
    return str(Path(workdir) / named)


def check_place(workdir: str) -> None:
    """Refuses a sweep in the folder of a single run."""
    if files.is_local(workdir) and (Path(workdir) / "config.json").exists():
        raise UserError(f"{workdir} is the folder of a run; give the sweep another --workdir")


def write_table(workdir: str, runs: Sequence[Mapping[str, str]]) -> Path:
    """Writes `sweep.csv`: a row for every run that has ended, its values and its figures."""
    import pandas as pd  # nothing that only reads a command line waits for it

    rows: list[dict[str, Any]] = []
    for sets in runs:
        summary = Path(folder(workdir, sets)) / "summary.json"
        if summary.exists():
            rows.append(dict(sets) | figures(json.loads(summary.read_text())))
    where = Path(workdir) / TABLE
    if distributed.is_writer():
        files.write_text(where, pd.DataFrame(rows).to_csv(index=False))
    return where


def figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The single figures of a summary, nested ones by their dotted names."""
    import pandas as pd

    (flat,) = pd.json_normalize(dict(summary)).to_dict("records")
    return {
        str(key): value
        for key, value in flat.items()
        if isinstance(value, bool | int | float | str) and key != "command"
    }
