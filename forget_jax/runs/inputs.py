"""What a run was made of: a digest of each input, kept at its first start and compared at others.

A run that goes on with other rows, or under another model, would be made of two halves that do not
belong together; and one that has ended says nothing of a file that was corrected since.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from forget_jax import distributed
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.runs import once
from forget_jax.runs.workdir import Workdir

WHOLE = 2**28  # bytes up to which a file is hashed whole
BLOCKS, BLOCK = 256, 2**20  # of a larger one: so many evenly spaced blocks
WEIGHTS = (".safetensors", ".gguf", ".json", ".txt", ".model", ".jinja")


def check(work: Workdir, found: Mapping[str, str], keep: bool = True) -> None:
    """Compares inputs with what they were at the run's first start; new ones are kept.

    Of many processes each brings what it read itself, all of them together.

    Args:
      found: a digest of each input, by what people call it.
      keep: whether to keep what is new.

    Raises:
      UserError: an input has changed since, or is another one in another process.
    """
    own = "inputs.json" if not work.parts else f"inputs-{work.part}-of-{work.parts}.json"
    mine = dict(found)
    first, kept = distributed.agreed([mine, _kept(work)] if distributed.is_writer() else [])
    for name in mine:
        if first.get(name) != mine[name]:
            raise UserError(f"{name}: not the same in process 0 as here; copy it to all machines")
    if changed := [name for name in mine if kept.get(name, mine[name]) != mine[name]]:
        raise UserError(
            f"{', '.join(changed[:3])} changed after the run in {work.path} began, and what it has "
            "made would not go with it; bring back what it was, or give another --workdir"
        )
    if keep and set(mine) - set(kept):
        once.seal(work / own, kept | mine)


def _kept(work: Workdir) -> dict[str, Any]:
    """What all parts of the run have kept."""
    found: dict[str, Any] = {}
    for path in sorted(work.path.iterdir()):
        if re.fullmatch(r"inputs(-\d+-of-\d+)?\.json", path.name):
            for held in once.unsealed(path):
                found |= held
    return found


def of_rows(rows: Iterable[Any]) -> str:
    """The digest of rows of plain values, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, default=repr).encode() + b"\n")
    return digest.hexdigest()


def of_path(path: PathLike) -> str:
    """The digest of a file, or of all files of a folder with their names."""
    here = Path(path)
    if not here.is_dir():
        return _of_file(here)
    return of_rows((file.name, of_path(file)) for file in sorted(here.iterdir()))


def of_weights(path: PathLike) -> str:
    """The digest of a model or an adapter: of a file, or of a folder's weights and settings."""
    here = Path(path)
    if not here.is_dir():
        return _of_file(here)
    inside = sorted(f for f in here.iterdir() if f.suffix in WEIGHTS and not f.is_dir())
    return of_rows((f.name, _of_file(f)) for f in inside)


def _of_file(path: Path) -> str:
    """The digest of a file; a very large one's is of its length and of blocks all over it."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        size = f.seek(0, os.SEEK_END)
        digest.update(str(size).encode())
        blocks = -(-size // BLOCK)
        if size > WHOLE:
            places = [i * (size - BLOCK) // (BLOCKS - 1) for i in range(BLOCKS)]
        else:
            places = [i * BLOCK for i in range(blocks)]
        for place in places:
            f.seek(place)
            digest.update(f.read(BLOCK))
    return digest.hexdigest()
