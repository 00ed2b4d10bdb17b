"""What is made once in a run's life, however often it starts and however many processes it has.

A file that process 0 writes and all read at once is a race, and a decision that each process takes
on its own view of the disk can part them. All processes pass through these functions together.
"""

from collections.abc import Callable
from typing import Any

from forget_jax import distributed, files
from forget_jax.files import Path, PathLike


def once(path: PathLike, make: Callable[[], Any]) -> Any:
    """The JSON value kept at `path`; or what `make()` gives, which is then kept there.

    All processes take part in `make` where the value is missing, so it may use all devices; the
    value that process 0 gets is the one that counts.

    Returns:
      What process 0 reads back from the file, in all processes: JSON's own types, whether it was
      made just now or by an earlier start.
    """
    return _read(path) if is_there(path) else keep(path, make())


def is_there(path: PathLike) -> bool:
    """Whether a file is there, as process 0 sees it, for all processes."""
    return distributed.agreed(distributed.is_writer() and Path(path).exists())


def kept(path: PathLike) -> Any | None:
    """The JSON value at `path` as process 0 reads it, for all processes; None without one."""
    return _read(path) if is_there(path) else None


def _read(path: PathLike) -> Any:
    return distributed.agreed(files.read_json(path) if distributed.is_writer() else None)


def keep(path: PathLike, value: Any) -> Any:
    """Keeps process 0's value at `path`; gives what is read back, in all processes."""
    files.write_json(path, value)
    return _read(path)


def make_once(marker: PathLike, make: Callable[[], object]) -> None:
    """Has process 0 alone make files, unless `marker` is there, for all processes to read.

    Args:
      marker: the file that `make` writes last of all, and that says that the others are whole.
      make: must not wait for other processes, as computations over all devices do.
    """
    if not is_there(marker):
        if distributed.is_writer():
            make()
        distributed.barrier(f"{Path(marker).name} is there")
