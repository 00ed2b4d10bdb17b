"""One start at a time in a run's folder: a lock on one of its files, which a kill gives back.

Parts of one run share its folder and go on beside each other, each under a lock of its own; the
whole run waits for none of them: it is refused while one is at work. Stores such as `gs://` have no
locks. Of many processes only process 0 holds them.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path as LocalPath
from typing import Any

from forget_jax import distributed, files, foreign
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike

NAME = ".lock"


@contextlib.contextmanager
def held(folder: PathLike, part: str = "") -> Iterator[None]:
    """Holds a run's folder, which is made where it is missing.

    Args:
      part: such as `2/8`; empty for the whole run.

    Raises:
      UserError: another start is at work there (the line names it), the folder cannot be made, or
        it was removed while it was held.
    """
    with contextlib.ExitStack() as stack:
        file, why = None, ""
        if distributed.is_writer() and files.is_local(folder):
            try:
                file = _take(stack, os.fspath(folder), part)
            except UserError as e:
                why = str(e)
        if why := distributed.agreed(why):
            raise UserError(why)
        try:
            yield
        except Exception as e:
            _check_there(folder, file, e)
            raise
        _check_there(folder, file)


def _take(stack: contextlib.ExitStack, folder: str, part: str) -> int | None:
    """Takes the locks, which `stack` gives back; the descriptor of the folder's own, if any."""
    import fcntl

    try:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        own = f"{NAME}-{part.replace('/', '-of-')}"
        wanted = [(NAME, fcntl.LOCK_SH), (own, fcntl.LOCK_EX)] if part else [(NAME, fcntl.LOCK_EX)]
        opened = [
            (name, kind, stack.enter_context(open(os.path.join(folder, name), "a+b")))  # noqa: PTH118, PTH123, SIM115
            for name, kind in wanted
        ]
    except (OSError, ValueError) as e:
        if os.path.isdir(folder) and not os.access(folder, os.W_OK):  # noqa: PTH112
            return None  # only reading goes well there
        why = getattr(e, "strerror", None) or e
        raise UserError(f"cannot write {folder}: {why}; give another --workdir") from e
    for _, kind, file in opened:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise UserError(
                f"{_holder(folder)} is at work in {folder}; wait for it or stop it, or give "
                "another --workdir"
            ) from e
        except OSError:  # a file system without locks
            continue
        if kind == fcntl.LOCK_EX:
            file.truncate(0)
            file.write(json.dumps(_own()).encode())
            file.flush()
            stack.callback(file.truncate, 0)  # before it is closed
    return opened[0][2].fileno()


def _check_there(folder: PathLike, file: int | None, cause: Exception | None = None) -> None:
    """Refuses to have worked in a folder that is gone: what is left of it is no whole run."""
    if file is None:
        return
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file), os.stat(Path(folder) / NAME)):  # noqa: PTH116
            return
    raise UserError(
        f"{folder} was removed while the run was at work in it; start the same command again"
    ) from cause


def _own() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _holder(folder: str) -> str:
    """Who holds the folder, or a part of its run, as far as the locks' files tell."""
    import fcntl

    for path in sorted(p for p in LocalPath(folder).iterdir() if p.name.startswith(NAME)):
        with contextlib.suppress(OSError, UserError, KeyError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # goes well where a kill left it
            except BlockingIOError:
                found = foreign.record(foreign.parse(file.read(), path.name), path.name)
                return f"process {found['pid']} on {found['host']} (since {found['since']})"
    return "another process"
