"""metrics.jsonl: one record a line, for every step of a run's stages.

On a local disk lines are added to the end of the file. An object store can neither append nor
rename, so there each write is a piece of its own, `metrics/000001.jsonl` and so on, and the pieces
are joined into metrics.jsonl when the run ends. Either way the bytes written are linear in the
number of records. A killed run loses only records that its newest checkpoint will produce again.
"""

import json
import math
import time
from collections.abc import Sequence
from typing import Any

from forget_jax import distributed, files
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike

SECONDS = 2  # between two writes, unless somebody waits for one

Record = dict[str, Any]


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
          UserError: a line other than the last is not valid JSON.
        """
        self.path = Path(path)
        own, self._last_piece, self._whole = _read(self.path)
        done = {_at(r) for r in own}
        others = [r for part in parts for r in _read(Path(part))[0] if _at(r) not in done]
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
        """Returns once all records are on disk."""
        self._write(sync=True)

    def join(self) -> None:
        """Leaves one file of all records, those of the other parts among them: the run ends."""
        self.flush()
        if not self._whole or not self._joined or self._last_piece:
            self._rewrite()

    def stage(self, stage: str) -> list[Record]:
        """The records of a stage and its parts (`stage/0`, …), in order."""
        return [r for r in self.records if f"{r['stage']}/".startswith(f"{stage}/")]

    def _write(self, sync: bool) -> None:
        """Writes the new records: to the end of the file, or as the next piece."""
        if not distributed.is_writer():
            pass
        elif not files.is_local(self.path):
            if self._new:
                piece = _pieces(self.path) / f"{self._last_piece + 1:06}.jsonl"
                files.write_bytes(piece, _lines(self._new))
                self._last_piece += 1
        elif not self._whole or self._last_piece:
            self._rewrite()
        elif self._new or (sync and not self._synced):
            self._whole = False  # should this end half-way, the next write mends the file
            files.append_bytes(self.path, _lines(self._new), sync)
            self._whole, self._synced = True, sync
        self._new = []
        self._written = time.monotonic()

    def _rewrite(self) -> None:
        """Writes all records as one file, atomically, and removes the pieces."""
        if distributed.is_writer():
            files.write_bytes(self.path, _lines(self.records))
            for piece in _list_pieces(self.path):
                files.remove(piece)
        self._new, self._last_piece = [], 0
        self._whole = self._joined = self._synced = True
        self._written = time.monotonic()


def parts_beside(path: PathLike) -> list[str]:
    """The names of the metrics files of a run's parts, written in full or in pieces."""
    found = {f.name.removesuffix(".jsonl") for f in Path(path).parent.glob("metrics-*-of-*")}
    return [f"{name}.jsonl" for name in sorted(found)]


def _read(path: Path) -> tuple[list[Record], int, bool]:
    """The records of a file and its pieces, the last piece's number, and whether the file is whole.

    A run killed while it joins its pieces leaves some of them beside the whole file, and the same
    lines in both. Records that a resumed run had forgotten may come back with such pieces: it does
    not get further without forgetting them again.
    """
    lines, whole = _whole_lines(path) if path.exists() else ([], False)
    records = [_record(path, number, line) for number, line in enumerate(lines, 1)]
    known, last = set(lines), 0
    for piece in _list_pieces(path):
        last = int(piece.stem)
        found = _whole_lines(piece)[0]
        records += [_record(piece, n, x) for n, x in enumerate(found, 1) if x not in known]
    return records, last, whole


def _whole_lines(path: Path) -> tuple[list[bytes], bool]:
    """A file's complete lines, and whether it ends with one; what a kill has torn is left out."""
    *lines, torn = path.read_bytes().split(b"\n")
    return lines, not torn


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        record: Record = json.loads(line)
    except ValueError as e:
        raise UserError(f"{path}, line {number}: not valid JSON; remove the line") from e
    return record


def _pieces(path: Path) -> Path:
    """The folder of a metrics file's pieces."""
    return path.with_suffix("")


def _list_pieces(path: Path) -> list[Path]:
    return sorted(f for f in _pieces(path).glob("*.jsonl") if f.stem.isdigit())


def _lines(records: Sequence[Record]) -> bytes:
    return "".join(files.dump_json(r) + "\n" for r in records).encode()


def _at(record: Record) -> tuple[str, Any]:
    """What a record is of: its stage and step."""
    return record["stage"], record.get("step")
