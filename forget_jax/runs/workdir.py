"""A run's directory: config.json, metrics.jsonl, summary.json, and the rules of resuming."""

import json
import re
import time
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from forget_jax import files
from forget_jax.commands.config import plain
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike


class Metrics:
    """metrics.jsonl: one record a line, written whole and atomically every few seconds.

    A killed run loses only records that its newest checkpoint will produce again.
    """

    def __init__(self, path: PathLike, parts: Sequence[PathLike] = ()):
        """Reads what an earlier start has written, and the files of other parts of the run."""
        self.path = Path(path)
        self.records: list[dict[str, Any]] = []
        for file in (*parts, self.path):
            if Path(file).exists():
                lines = Path(file).read_text().splitlines()
                self.records += [json.loads(line) for line in lines]
        self._written = time.monotonic()

    def resume(self, stage: str, step: int) -> None:
        """Forgets the records of a stage after `step`: the run does them again."""
        self.records = [r for r in self.records if r["stage"] != stage or r["step"] <= step]

    def add(self, stage: str, record: dict[str, Any]) -> None:
        """Adds one record."""
        self.records.append({"stage": stage, **record})
        if time.monotonic() - self._written > 2:
            self.flush()

    def flush(self) -> None:
        """Writes the file."""
        files.write_text(self.path, "".join(files.dump_json(r) + "\n" for r in self.records))
        self._written = time.monotonic()

    def stage(self, stage: str) -> list[dict[str, Any]]:
        """The records of a stage and its parts (`stage/0`, …), in order."""
        return [r for r in self.records if f"{r['stage']}/".startswith(f"{stage}/")]


class Workdir:
    """The directory of one run of one command."""

    def __init__(self, path: PathLike, command: str, config: ConfigDict):
        """Makes the directory, or resumes in it.

        Raises:
          UserError: the directory holds another command's or another config's run, or cannot be
            written.
        """
        self.path = Path(path)
        self.command = command
        self.began = time.monotonic()
        wanted = {"command": command, **json.loads(files.dump_json(plain(config)))}
        # Parts of one run share its config and its directory, but no file that both write.
        self.part, self.parts = _part(wanted.pop("part", ""))
        own = f"-{self.part}-of-{self.parts}" if self.parts else ""
        kept = self.path / "config.json"
        if kept.exists():
            found = files.read_json(kept)
            if found["command"] != command:
                raise UserError(
                    f"{path} holds a run of {found['command']}, not of {command}; give another "
                    "--workdir"
                )
            if found != wanted:
                raise UserError(
                    f"{path} holds another run: {_difference(found, wanted)}; "
                    "give another --workdir or the config it was made with"
                )
        else:
            files.write_json(kept, wanted)
        others = [] if own else sorted(self.path.glob("metrics-*-of-*.jsonl"))
        self.metrics = Metrics(self.path / f"metrics{own}.jsonl", others)
        self._clock = self.path / f"seconds{own}.json"

    def __truediv__(self, name: str) -> files.Path:
        return self.path / name

    @property
    def done(self) -> dict[str, Any] | None:
        """The summary of a run that has ended, else None."""
        path = self.path / "summary.json"
        return files.read_json(path) if path.exists() else None

    def seconds(self) -> float:
        """Time this run has taken, over all its starts."""
        before = files.read_json(self._clock) if self._clock.exists() else 0.0
        return before + time.monotonic() - self.began

    def tick(self) -> None:
        """Keeps the time taken so far, for a run that is stopped and resumed."""
        seconds = self.seconds()
        self.began = time.monotonic()
        files.write_json(self._clock, seconds)

    def has_part(self, number: int) -> bool:
        """Whether a piece of work is this part's to do; without parts, all of it is."""
        return not self.parts or number % self.parts == self.part

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Writes metrics and, last of all, the summary that marks the run as done."""
        self.metrics.flush()
        self.tick()
        summary = {"command": self.command, **summary}
        files.write_json(self.path / "summary.json", summary)
        return summary


def _part(text: str) -> tuple[int, int]:
    """`2/8`, the third of eight parts, as numbers; (0, 0) for the whole."""
    if not text:
        return 0, 0
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not int(found[1]) < int(found[2]):
        raise UserError(f"part is {text!r}; it must be I/N with I from 0 to N-1, such as 0/8")
    return int(found[1]), int(found[2])


def _difference(found: Any, wanted: Any, prefix: str = "") -> str:
    """The first field in which two configs differ, in words."""
    for key in sorted(set(found) | set(wanted)):
        a, b = found.get(key, "absent"), wanted.get(key, "absent")
        if isinstance(a, dict) and isinstance(b, dict):
            if a != b:
                return _difference(a, b, f"{prefix}{key}.")
        elif a != b:
            return f"{prefix}{key} was {a!r}, now {b!r}"
    return "its config differs"
