"""What is made once in a run's life, however often it starts and however many processes it has.

A file that process 0 writes and all read at once is a race, and a decision that each process takes
on its own view of the disk can part them. All processes pass through these functions together.

A value is kept with its digest. One that does not match it, or is no JSON any more, was damaged: it
is made again, and a line on stderr says so.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from forget_jax import distributed, files
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.runs import manifest

FILES = "files.json"  # of a folder that is made once, written last: the digests of its files


def once(path: PathLike, make: Callable[[], Any]) -> Any:
    """The JSON value kept at `path`; or what `make()` gives, which is then kept there.

    All processes take part in `make` where the value is missing, so it may use all devices; the
    value that process 0 gets is the one that counts.

    Returns:
      What process 0 reads back from the file, in all processes: JSON's own types, whether it was
      made just now or by an earlier start.
    """
    there = _found(path)
    return there[0] if there else keep(path, make())


def is_there(path: PathLike) -> bool:
    """Whether a file is there, as process 0 sees it, for all processes."""
    return distributed.agreed(distributed.is_writer() and Path(path).exists())


def kept(path: PathLike) -> Any | None:
    """The sound JSON value at `path` as process 0 reads it, for all processes, or None."""
    there = _found(path)
    return there[0] if there else None


def _found(path: PathLike) -> list[Any]:
    """The sound value in a list, or an empty one; in all processes."""
    found: list[Any] = distributed.agreed(unsealed(path) if distributed.is_writer() else [])
    return found


def unsealed(path: PathLike) -> list[Any]:
    """The sound value at `path` in a list, or an empty one; says where it is damaged."""
    if not Path(path).exists():
        return []
    try:
        held = files.read_json(path)
        if set(held) == {"value", "sha256"} and held["sha256"] == _digest(held["value"]):
            return [held["value"]]
    except (UserError, TypeError):
        pass
    print(f"{path} is damaged; what it held is made again", file=sys.stderr)
    return []


def _digest(value: Any) -> str:
    return files.digest_of(files.dump_json(value).encode())


def keep(path: PathLike, value: Any) -> Any:
    """Keeps process 0's value at `path`; gives what is read back, in all processes."""
    return distributed.agreed(seal(path, value))


def seal(path: PathLike, value: Any) -> Any:
    """Keeps a value with its digest, for `unsealed` to read; gives it in JSON's own types."""
    plain = json.loads(files.dump_json(value))
    files.write_json(path, {"value": plain, "sha256": _digest(plain)})
    return plain


def make_once(folder: PathLike, make: Callable[[], object]) -> None:
    """Has process 0 alone make a folder's files, for all processes to read, unless all are there.

    Args:
      make: writes files into the folder. It must not wait for other processes, as computations
        over all devices do.
    """
    if not distributed.agreed(distributed.is_writer() and _is_whole(Path(folder))):
        if distributed.is_writer():
            make()
            inside = (file for file in files.walk(folder) if file.name != FILES)
            seal(Path(folder) / FILES, manifest.digests(Path(folder), inside))
        distributed.barrier(f"{Path(folder).name} is there")


def _is_whole(folder: Path) -> bool:
    for held in unsealed(folder / FILES):
        wrong = manifest.changed(folder, held)
        if wrong:
            print(f"{folder / wrong[0]} is damaged or gone; it is made again", file=sys.stderr)
        return not wrong
    return False
