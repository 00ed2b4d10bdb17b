"""One of our commands as its users start it, in a process of its own."""

import pathlib
import subprocess
import sys
from collections.abc import Collection, Mapping
from typing import Any


def run(
    name: str,
    fields: Mapping[str, Any],
    work: pathlib.Path,
    config: str = "",
    accepted: Collection[int] = (0,),
) -> int:
    """Runs it to its end and returns its exit status; one that has ended before ends at once.

    Raises:
      SystemExit: a status that is not accepted; the command has said why.
    """
    told = [f"--config={config}"] * bool(config)
    told += [f"--config.{field}={value}" for field, value in fields.items()]
    begun = [sys.executable, "-m", "forget_jax", name, *told, f"--workdir={work}"]
    status = subprocess.run(begun).returncode
    if status not in accepted:
        raise SystemExit(status)
    return status
