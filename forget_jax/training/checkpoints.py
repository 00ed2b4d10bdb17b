"""Orbax checkpoints of what training changes (never the base), restored onto any devices.

Orbax writes a step into a temporary folder and renames it when complete, so the newest step listed
is always a whole one.
"""

import contextlib
from collections.abc import Iterator

import jax
import orbax.checkpoint as ocp

from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.types import Tree


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Makes a disk's errors a UserError; tensorstore's are ValueErrors that end in the reason."""
    try:
        yield
    except (OSError, ValueError) as e:
        if isinstance(e, ValueError) and "[os_error_code=" not in str(e):
            raise
        reason = getattr(e, "strerror", None) or str(e).rpartition(": ")[2].partition(" [")[0]
        raise UserError(
            f"{what}: {reason}; free space, then start the same command again: it resumes"
        ) from e


class Checkpoints:
    """The checkpoints of one run: the newest `keep` steps, written in the background."""

    def __init__(self, folder: PathLike, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        with _one_line(f"cannot write checkpoints to {folder}"):
            self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

    def restore(self, like: Tree) -> Tree:
        """The newest complete state, with the shapes and shardings of `like`."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(self.latest(), args=ocp.args.StandardRestore(abstract))

    def save(self, step: int, state: Tree) -> None:
        """Starts to write the state; returns once it is copied off the device."""
        with _one_line(f"cannot write checkpoint {step}"):
            self._manager.save(step, args=ocp.args.StandardSave(state))

    def wait(self) -> None:
        """Waits until everything started is on disk."""
        with _one_line("cannot finish a checkpoint"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then frees the manager's threads."""
        self.wait()
        self._manager.close()
