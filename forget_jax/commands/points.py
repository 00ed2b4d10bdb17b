"""Points of one sweep or table, or of several sweeps whose runs stand in one folder, joined."""

from urllib.parse import unquote

import pandas as pd

from forget_jax import files
from forget_jax.commands import variants
from forget_jax.errors import UserError
from forget_jax.scaling import tables


def read(path: str) -> pd.DataFrame:
    """What `tables.read` takes, or a folder that `scaling --sweep.FIELD=...` has filled.

    Runs of the latter bear the folder they come from; a column says the value of each swept field
    that the points do not hold by themselves, `model` that of `model.path`.

    Raises:
      UserError: as `tables.read`, or no run of the folder has ended.
    """
    if not files.is_local(path) or not (files.Path(path) / variants.TABLE).exists():
        return tables.read(path)
    parts = []
    for folder in sorted(files.Path(path).iterdir()):
        if not any((folder / name).exists() for name in tables.OF_WORKDIR):
            continue
        part = tables.read(folder)
        for item in folder.name.split(","):
            key, _, value = item.partition("=")
            name = "model" if key == "model.path" else key.rpartition(".")[2]
            if name not in part:
                part[name] = unquote(value)
        part["run"] = [f"{folder.name}/{run}" for run in part.get("run", part.index)]
        parts.append(part)
    if not parts:
        raise UserError(f"{path}: no run of this sweep has points yet; let `scaling` end there")
    table = pd.concat(parts, ignore_index=True).apply(tables.numeric)
    table.attrs = dict(parts[0].attrs)
    return table
