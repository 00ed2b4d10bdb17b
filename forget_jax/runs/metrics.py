"""metrics.jsonl: one record a line, for every step of a run's stages.

On a local disk lines are added to the end of the file. An object store can neither append nor
rename, so there each write is a piece of its own, `metrics/000001.jsonl` and so on, and the pieces
are joined into metrics.jsonl when the run ends. Either way the bytes written are linear in the
number of records. A killed run loses only records that its newest checkpoint will produce again;
what a disk has changed is found by a seal (`runs.seal`), which is renewed at every flush.
"""

import math
import re
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from forget_jax import distributed, files, foreign
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.runs.seal import Seal

SECONDS = 2  # between two writes, unless somebody waits for one

Record = dict[str, Any]
Curve = TypeVar("Curve", bound=Sequence[float] | np.ndarray)


def ends(losses: Curve) -> tuple[Curve, Curve]:
    """The first and the last tenth of the steps, at least one each: single steps are noisy."""
    tenth = max(1, len(losses) // 10)
    return losses[:tenth], losses[-tenth:]  # type: ignore[return-value]


class Metrics:
    """The records of a run, in memory and on disk; only process 0 writes.

    All records are kept in memory (some hundred bytes each): summaries and pages are made of them.
    No method waits for other processes.
    """

    def __init__(self, path: PathLike, parts: Sequence[PathLike] = ()):
        """Reads what an earlier start has written, and the files of other parts of the run.

        Args:
          path: of metrics.jsonl; it need not exist, nor do those of the parts.
          parts: a record that this run has done again, after its part left it, counts once.

        Raises:
          UserError: records that were flushed are damaged.
        """
        self.path = Path(path)
        self._seal = Seal(self.path)
        own, self._last_piece, self._whole = _read(self.path, self._seal)
        done = {_at(r) for r in own}
        others = [
            r for part in parts for r in _read(Path(part), Seal(part))[0] if _at(r) not in done
        ]
        self.records: list[Record] = others + own
        self._joined = not others  # whether metrics.jsonl, with its pieces, has all records
        self._new: list[Record] = []  # not written yet
        self._synced = True
        self._written = time.monotonic()

    def resume(self, stage: str, step: int) -> None:
        """Forgets the records of a stage after `step`, on disk too: the run does them again."""
        left = [r for r in self.records if r["stage"] != stage or r.get("step", math.inf) <= step]
        if len(left) < len(self.records):
            self.records = left
            self._rewrite()

    def add(self, stage: str, record: Record) -> None:
        """Adds one record, which is written within seconds or with those that follow it."""
        self._new.append({"stage": stage, **record})
        self.records.append(self._new[-1])
        if time.monotonic() - self._written > SECONDS:
            self._write(sync=False)

    def flush(self) -> None:
        """Returns once all records are on disk, and sealed."""
        self._write(sync=True)
        self._seal.close()

    def join(self) -> None:
        """Leaves one file of all records, those of the other parts among them: the run ends."""
        self.flush()
        if not (self._whole and self._joined and self.path.exists()) or self._last_piece:
            self._rewrite()

    def stage(self, stage: str) -> list[Record]:
        """The records of a stage and its parts (`stage/0`, …), in order."""
        return [r for r in self.records if f"{r['stage']}/".startswith(f"{stage}/")]

    def _write(self, sync: bool) -> None:
        """Writes the new records: to the end of the file, or as the next piece."""
        local, lines = files.is_local(self.path), _lines(self._new)
        if lines and self._seal.is_new:
            self._seal.close()
        if not distributed.is_writer():
            pass
        elif not self._whole or (local and self._last_piece):
            self._rewrite()
        elif local and (lines or (sync and not self._synced)):
            self._whole = False  # should this end half-way, the next write mends the file
            files.append_bytes(self.path, _bytes(lines), sync)
            self._whole, self._synced = True, sync
            self._seal.add(lines)
        elif lines:
            piece = _pieces(self.path) / f"{self._last_piece + 1:06}.jsonl"
            files.write_bytes(piece, _bytes(lines))
            self._last_piece += 1
            self._seal.add(lines)
        self._new = []
        self._written = time.monotonic()

    def _rewrite(self) -> None:
        """Writes all records as one file, atomically, and removes the pieces."""
        if distributed.is_writer():
            lines = _lines(self.records)
            self._seal.replace(lines)
            files.write_bytes(self.path, _bytes(lines))
            self._seal.close()
            for piece in _list_pieces(self.path):
                files.remove(piece)
        self._new, self._last_piece = [], 0
        self._whole = self._joined = self._synced = True
        self._written = time.monotonic()


def parts_beside(path: PathLike) -> list[str]:
    """The names of the metrics files of a run's parts, written in full or in pieces."""
    there = (f.name.removesuffix(".jsonl") for f in _inside(Path(path).parent))
    found = {name for name in there if re.fullmatch(r"metrics-\d+-of-\d+", name)}
    return [f"{name}.jsonl" for name in sorted(found)]


def _read(path: Path, seal: Seal) -> tuple[list[Record], int, bool]:
    """The records of a file and its pieces, the last piece's number, and whether both are whole.

    A run killed while it joins its pieces leaves some of them beside the whole file, and the same
    lines in both. Records that a resumed run had forgotten may come back with such pieces: it does
    not get further without forgetting them again.
    """
    lines, whole = _whole_lines(path) if path.exists() else ([], not files.is_local(path))
    known, last = set(lines), 0
    for piece in _list_pieces(path):
        last = int(piece.stem)
        lines += [line for line in _whole_lines(piece)[0] if line not in known]
    held = seal.held(lines)
    records = [_record(path, number, line) for number, line in enumerate(held, 1)]
    return records, last, whole and len(held) == len(lines)


def _whole_lines(path: Path) -> tuple[list[bytes], bool]:
    """A file's complete lines, and whether it ends with one; what a kill has torn is left out."""
    *lines, torn = path.read_bytes().split(b"\n")
    return lines, not torn


def _record(path: Path, number: int, line: bytes) -> Record:
    where = f"{path}, line {number}"
    try:
        record = foreign.record(foreign.parse(line, f"{path}", number), where)
        foreign.field(record, "stage", str, where)
        foreign.field(record, "step", int, where, default=0)
    except UserError as e:
        raise UserError(f"{where}: not a record of a run; remove the line") from e
    return record


def _pieces(path: Path) -> Path:
    """The folder of a metrics file's pieces."""
    return path.with_suffix("")


def _list_pieces(path: Path) -> list[Path]:
    inside = _inside(_pieces(path))
    return sorted(f for f in inside if f.suffix == ".jsonl" and f.stem.isdigit())


def _inside(folder: Path) -> list[Path]:
    """What a folder holds; not by a pattern, which would read the brackets of its own name."""
    return list(folder.iterdir()) if folder.is_dir() else []


def _lines(records: Sequence[Record]) -> list[bytes]:
    return [files.dump_json(r).encode() for r in records]


def _bytes(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _at(record: Record) -> tuple[str, Any]:
    """What a record is of: its stage and step."""
    return record["stage"], record.get("step")
