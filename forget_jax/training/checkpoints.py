"""Orbax checkpoints of what training changes (never the base), restored onto any devices.

Orbax writes a step into a temporary folder and renames it when complete, so the newest step listed
is always a whole one. Its formats have no checksums: each step keeps sums of its own, and one that
does not match them, or cannot be read, gives way to the one before it.
"""

import contextlib
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
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


@jax.jit
def sums(state: Tree) -> Tree:
    """A sum of every array's bits, uint32, that any single changed byte changes.

    Each word counts times an odd number of its own place, so words that change places show too; on
    a mesh the devices sum what they hold.
    """

    def one(x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        bits = x.astype(jnp.uint8) if x.dtype == bool else x
        if not jnp.issubdtype(bits.dtype, jnp.unsignedinteger):
            bits = jax.lax.bitcast_convert_type(bits, f"uint{8 * bits.dtype.itemsize}")
        place, stride = jnp.zeros((), jnp.uint32), 1
        for axis in reversed(range(bits.ndim)):
            place += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * (stride % 2**32)
            stride *= bits.shape[axis]
        return jnp.sum(bits.astype(jnp.uint32) * (2 * place + 1), dtype=jnp.uint32)

    return jax.tree.map(one, state)


class Checkpoints:
    """The checkpoints of one run: the newest `keep` steps, written in the background."""

    def __init__(self, folder: PathLike, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        with _one_line(f"cannot write checkpoints to {folder}"):
            self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

    def restore(self, like: Tree) -> tuple[int, Tree] | None:
        """The newest sound step and its state, with the shapes and shardings of `like`.

        Steps that are damaged are removed, and a line on stderr says so. None where none is sound.
        """
        abstract = jax.tree.map(
            ocp.utils.to_shape_dtype_struct, {"state": like, "sums": sums(like)}
        )
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
                same = jax.tree.map(lambda a, b: bool(a == b), sums(found["state"]), found["sums"])
                if all(jax.tree.leaves(same)):
                    return step, found["state"]
                why = "its sums do not match"
            except (
                Exception
            ) as e:  # Orbax and tensorstore raise whatever damaged files make of them
                why = " ".join(str(e).split())[:120]
            print(
                f"the checkpoint of step {step} is damaged ({why}); going on from the one before "
                "it, or from the beginning",
                file=sys.stderr,
            )
            self._manager.delete(step)
        return None

    def forget_after(self, step: int) -> None:
        """Removes the checkpoints of later steps."""
        for later in (n for n in self._manager.all_steps() if n > step):
            self._manager.delete(later)

    def save(self, step: int, state: Tree) -> None:
        """Starts to write the state; returns once it is copied off the device."""
        with _one_line(f"cannot write checkpoint {step}"):
            whole = {"state": state, "sums": sums(state)}
            self._manager.save(step, args=ocp.args.StandardSave(whole))

    def wait(self) -> None:
        """Waits until everything started is on disk."""
        with _one_line("cannot finish a checkpoint"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then frees the manager's threads."""
        self.wait()
        self._manager.close()
