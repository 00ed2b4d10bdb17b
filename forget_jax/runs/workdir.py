"""A run's directory: config.json, metrics.jsonl, summary.json, and the rules of resuming."""

import json
import re
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from forget_jax import distributed, files, foreign
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.runs import manifest
from forget_jax.runs.metrics import Metrics, parts_beside
from forget_jax.runs.once import is_there


class Workdir:
    """The directory of one run of one command.

    All processes of a run make theirs, and call `done` and `finish`, together: what is on the disk
    is decided by process 0.
    """

    def __init__(
        self,
        path: PathLike,
        command: str,
        fields: Mapping[str, Any],
        free: Collection[str] = (),
    ):
        """Makes the directory, or resumes in it; a run that is refused leaves it as it was.

        Args:
          fields: the resolved config, as JSON's types nested in mappings and sequences.
          free: dotted keys of those that may differ from an earlier start's (see `renew`).

        Raises:
          UserError: the directory holds another command's or another config's run, or cannot be
            written; or another process was started with another config.
        """
        self.path = Path(path)
        self._is_checked = False  # whether results are what they were when the run ended
        self.command = command
        self.began = time.monotonic()
        wanted = {"command": command, **json.loads(files.dump_json(fields))}
        # Parts of one run share its config and its directory, but no file that both write.
        self.part, self.parts = _part(wanted.pop("part", ""))
        own = f"-{self.part}-of-{self.parts}" if self.parts else ""
        kept = self.path / "config.json"
        self._clock = self.path / f"seconds{own}.json"
        there = distributed.agreed(self._there(kept) if distributed.is_writer() else {})
        self._fields = wanted
        if there["config"] is not None:
            _check_same(path, there["config"], wanted, free)
        self.differs = there["config"] not in (None, wanted)
        _check_alike(distributed.agreed(wanted), wanted)
        self._before = float(there["seconds"])
        parts = [] if own else [self.path / name for name in there["parts"]]
        self.metrics = Metrics(self.path / f"metrics{own}.jsonl", parts)
        distributed.barrier("configs are compared and metrics read")
        if there["config"] is None:
            files.write_json(kept, wanted)

    def _there(self, config: Path) -> dict[str, Any]:
        """What lies in the directory, as process 0 finds it."""
        return {
            "config": _config(config) if config.exists() else None,
            "seconds": _seconds(self._clock),
            "parts": parts_beside(self.path / "metrics.jsonl"),
        }

    def renew(self) -> None:
        """Where free fields differ, keeps their new values, and makes the run one to be ended."""
        if self.differs:
            files.remove(self.path / "summary.json")
            files.write_json(self.path / "config.json", self._fields)
            distributed.barrier("the config is kept")
            self.differs = False

    def __truediv__(self, name: str) -> files.Path:
        return self.path / name

    @property
    def done(self) -> dict[str, Any] | None:
        """The summary of a run that has ended, else None; for all processes to ask together.

        Where a result is damaged or gone, the run has not ended any more: it makes it again.
        """
        path = self.path / "summary.json"
        if not self._is_checked and is_there(path):
            self._check_results()
        self._is_checked = True
        held = files.read_json(path) if distributed.is_writer() and path.exists() else None
        found: dict[str, Any] | None = distributed.agreed(held)
        return found

    def _check_results(self) -> None:
        """Removes results that are damaged, and says so: the run has not ended any more."""
        wrong = distributed.agreed(manifest.damaged(self.path) if distributed.is_writer() else [])
        if not wrong:
            return
        print(f"{self.path / wrong[0]} is damaged or gone; it is made again", file=sys.stderr)
        for name in wrong:
            for folder in (self.path, *(self.path / part for part in _above(name))):
                if (folder / manifest.NAME).exists():
                    files.remove(folder / "summary.json")
            files.remove(self.path / name)
        files.remove(self.path / "summary.json")
        distributed.barrier("damaged results are removed")

    def seconds(self) -> float:
        """Time this run has taken, over all its starts."""
        return self._before + time.monotonic() - self.began

    def tick(self) -> None:
        """Keeps the time taken so far, for a run that is stopped and resumed."""
        files.write_json(self._clock, self.seconds())

    def has_part(self, number: int) -> bool:
        """Whether a piece of work is this part's to do; without parts, all of it is."""
        return not self.parts or number % self.parts == self.part

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Writes metrics and, last of all, the summary that marks the run as done.

        Returns once all is on disk, for all processes. The summary comes back with its command.
        """
        self.metrics.join()
        self.tick()
        summary = {"command": self.command, **summary}
        text = files.json_bytes(summary)
        if distributed.is_writer():
            manifest.keep(self.path, text)
        files.write_bytes(self.path / "summary.json", text)
        self._is_checked = True
        distributed.barrier("the summary is there")
        return summary


def _above(name: str) -> Iterator[str]:
    """The folders that a file of a run lies in: `a` and `a/b` of `a/b/c`."""
    parts = name.split("/")
    return ("/".join(parts[:n]) for n in range(1, len(parts)))


def _seconds(clock: Path) -> float:
    """The time that earlier starts have taken; a damaged file's is lost, and said."""
    if not clock.exists():
        return 0.0
    try:
        held = {"seconds": files.read_json(clock)}
        found: float = foreign.field(held, "seconds", float, str(clock), least=0)
    except UserError as e:
        print(f"{e}: the time taken before is not counted", file=sys.stderr)
        return 0.0
    return found


def _config(path: Path) -> Any:
    """The config that a run was started with."""
    try:
        return files.read_json(path)
    except UserError as e:
        raise UserError(
            f"{e}; it is the run's own config, damaged: remove it, and the run goes on under the "
            "config that is given now"
        ) from e


def _part(text: str) -> tuple[int, int]:
    """`2/8`, the third of eight parts, as numbers; (0, 0) for the whole."""
    if not text:
        return 0, 0
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not int(found[1]) < int(found[2]):
        raise UserError(f"part is {text!r}; it must be I/N with I from 0 to N-1, such as 0/8")
    return int(found[1]), int(found[2])


def _check_same(path: PathLike, found: Any, wanted: dict[str, Any], free: Collection[str]) -> None:
    """Refuses a directory of another run."""
    if not isinstance(found, dict) or "command" not in found:
        raise UserError(f"{path} holds a config.json that is no run's; give another --workdir")
    if found["command"] != wanted["command"]:
        raise UserError(
            f"{path} holds a run of {found['command']}, not of {wanted['command']}; give another "
            "--workdir"
        )
    found, wanted = _without(found, free), _without(wanted, free)
    if found != wanted:
        key, before, now = _difference(found, wanted)
        raise UserError(
            f"{path} holds another run: {key} was {before!r}, now {now!r}; "
            "give another --workdir or the config it was made with"
        )


def _without(fields: dict[str, Any], keys: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Nested fields without those of the dotted keys."""
    return {
        key: _without(value, keys, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in fields.items()
        if prefix + key not in keys
    }


def _check_alike(first: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses to work beside a process 0 of another config."""
    if first != wanted:
        key, theirs, ours = _difference(first, wanted)
        raise UserError(
            f"{key} is {theirs!r} in process 0, {ours!r} here; start all processes of a run with "
            "the same command"
        )


def _difference(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, Any, Any]:
    """The first field in which two configs differ, by its dotted key, and its value in either."""
    keys = sorted(set(one) | set(other))
    key = next(key for key in keys if one.get(key, "absent") != other.get(key, "absent"))
    a, b = one.get(key, "absent"), other.get(key, "absent")
    if isinstance(a, dict) and isinstance(b, dict):
        inner, a, b = _difference(a, b)
        key = f"{key}.{inner}"
    return key, a, b
