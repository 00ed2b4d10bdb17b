"""The seal of a file that grows by lines: how many of them were flushed, and their digest.

It lies beside the file: what a disk has changed before its end is told. Lines beyond it were on
their way when the run was killed.
"""

import hashlib
from collections.abc import Sequence

from forget_jax import distributed
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.runs import once


class Seal:
    """Follows a file's lines in the order in which they are read back; only process 0 writes."""

    def __init__(self, path: PathLike):
        self.of = Path(path)
        self.path = self.of.with_suffix(".seal.json")
        self._digest, self._lines = hashlib.sha256(), 0
        self._written = -1  # lines of the seal on disk; -1 where there is none, or another

    def held(self, lines: Sequence[bytes]) -> list[bytes]:
        """The lines that were flushed, without those beyond; all of them where there is no seal.

        Raises:
          UserError: they are not what was flushed.
        """
        states = once.unsealed(self.path)
        fitting = [n for n, digest in (states[0] if states else []) if _of(lines[:n]) == digest]
        if states and not fitting:
            raise UserError(
                f"{self.of} is damaged, and what it tells of the run's steps cannot be made again; "
                f"bring it back, start in another --workdir, or remove {self.path.name} to go on "
                "with what it holds"
            )
        found = list(lines[: max(fitting)] if states else lines)
        self.add(found)
        if states and len(states[0]) == 1:
            self._written = len(found)
        return found

    def add(self, lines: Sequence[bytes]) -> None:
        """Follows lines that were written."""
        self._digest.update(_joined(lines))
        self._lines += len(lines)

    def close(self) -> None:
        """Writes the seal of all lines that were written so far, if it is not there."""
        if self._written != self._lines and distributed.is_writer():
            once.seal(self.path, [self._state()])
        self._written = self._lines

    def replace(self, lines: Sequence[bytes]) -> None:
        """Seals what is there and what will be: the file is to hold these lines alone.

        Whenever the run is killed, one of the two fits.
        """
        before = self._state()
        self._digest, self._lines, self._written = hashlib.sha256(), 0, -1
        self.add(lines)
        if distributed.is_writer():
            once.seal(self.path, [before, self._state()])

    @property
    def is_new(self) -> bool:
        """Whether nothing is sealed yet."""
        return self._written < 0

    def _state(self) -> tuple[int, str]:
        return self._lines, self._digest.hexdigest()


def _joined(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _of(lines: Sequence[bytes]) -> str:
    return hashlib.sha256(_joined(lines)).hexdigest()
