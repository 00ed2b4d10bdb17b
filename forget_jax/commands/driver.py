"""What every command goes through: its folder, its devices, its summary, its page, its last line.

A command is a module with `run(settings, work) -> Ended`, and where more than the table must be
checked before anything is made, `check(settings)`.
"""

import contextlib
import dataclasses
import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import jax

from forget_jax import distributed, files, stopping
from forget_jax import settings as tables
from forget_jax.commands import inputs, report, summaries
from forget_jax.commands.config import plain
from forget_jax.commands.settings import as_config
from forget_jax.commands.summaries import Summary, to_json
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.lm import sharding
from forget_jax.lm.settings import Mesh
from forget_jax.runs import lock, manifest
from forget_jax.runs.once import is_there
from forget_jax.runs.workdir import Workdir


class Ended(NamedTuple):
    """What a command comes to.

    Attributes:
      summary: its figures; None where another part of the run has still to be done.
      line: the last line it says; where its page lies is added.
    """

    summary: Summary | None
    line: str


PAST_LIMIT = 3  # the exit status of a check whose limit is passed


@dataclasses.dataclass(frozen=True)
class Run:
    """A command under way in its folder."""

    module: ModuleType
    settings: Any
    work: Workdir

    def end(self, ended: Ended) -> None:
        """Writes summary and page, and says the last line."""
        stopping.check()  # of a stopped run nothing says that it has ended
        if ended.summary is None:
            print(ended.line, file=sys.stderr)
            return
        self.work.finish(to_json(ended.summary))
        page = report.build(self.work.path)
        print(f"{ended.line}; page in {page}", file=sys.stderr)


def module_of(command: str) -> ModuleType:
    """The command's module."""
    return importlib.import_module(f"forget_jax.commands.{command}")


def check(command: str, settings: Any) -> None:
    """Everything that can be refused before a folder is made or a model is read.

    Raises:
      UserError: a value that the table or the command does not allow.
    """
    tables.check(settings)
    further = getattr(module_of(command), "check", None)
    if further is not None:
        further(settings)


@contextlib.contextmanager
def opened(command: str, settings: Any, workdir: PathLike) -> Iterator[Run | None]:
    """Opens a command's folder and enters its mesh; gives None where the run has ended before.

    Raises:
      UserError: what `check` refuses, a folder that holds another run or is in use, or an input
        that has changed since the run began.
    """
    check_place(workdir)
    check(command, settings)
    if command == "report":  # makes no run of its own
        if Path(workdir).is_dir() and (wrong := manifest.damaged(workdir)):
            raise UserError(
                f"{os.path.join(workdir, wrong[0])} is damaged or gone; start the run's command "  # noqa: PTH118
                "again to make it anew"
            )
        print(f"wrote {report.build(workdir, settings.matrix.path)}", file=sys.stderr)
        yield None
        return
    free = {key for key, field in tables.leaves(settings).items() if field.metadata["rule"].free}
    if not (Path(workdir) / "config.json").exists():  # else the inputs of a run may be gone since
        inputs.check_there(settings)
    is_new = files.is_local(workdir) and not Path(workdir).exists()
    made: list[PathLike] = []
    with _removed_if_empty(made), lock.held(workdir, getattr(settings, "part", "")):
        if is_new and distributed.count() == 1:  # of many processes others may still write there
            made.append(workdir)
        work = Workdir(workdir, command, plain(as_config(settings)), free)
        inputs.check(settings, work)
        if has_ended(work):
            yield None
            return
        work.renew()
        with mesh(getattr(settings, "mesh", None)):
            yield Run(module_of(command), settings, work)


@contextlib.contextmanager
def _removed_if_empty(folders: list[PathLike]) -> Iterator[None]:
    """Where a mistake ends a run before its first result, removes the folders made for it."""
    try:
        yield
    except UserError:
        for folder in map(Path, folders):
            if folder.exists() and not _has_results(folder):
                shutil.rmtree(folder)
        raise


def _has_results(folder: Path) -> bool:
    """Whether there is more in a run's folder than says what it is made of."""
    return any(
        path.name not in ("config.json", "inputs.json", "seconds.json", lock.NAME)
        for path in files.walk(folder)
    )


def check_place(workdir: PathLike) -> None:
    """Refuses what can be no folder of a run.

    Raises:
      UserError: an empty name, or one that no store of files takes.
    """
    name = os.fspath(workdir)
    if not name.strip():
        raise UserError("--workdir is empty; give a folder, or leave it out for one of its own")
    if not tables.is_text(name):
        raise UserError(f"--workdir={tables.shown(name)} holds characters that no path has")
    if not files.is_local(name) and not name.startswith("gs://"):
        raise UserError(f"--workdir={tables.shown(name)} must be a folder, or a gs:// folder")


def has_ended(work: Workdir) -> bool:
    """Whether the run has ended before, under this very config; then says so.

    Its page is made if that is missing.
    """
    if work.done is None or work.differs:
        return False
    page = work / "report.html"
    if not is_there(page):
        report.build(work.path)
    print(f"{work.path} has ended already; see {page}", file=sys.stderr)
    return True


def status(command: str, work: PathLike) -> int:
    """The exit status of a command that has come to its end; for all processes to ask together."""
    if command != "check":
        return 0
    place = Path(work) / "summary.json"
    over = distributed.is_writer() and bool(summaries.read(summaries.Check, place).over)
    return PAST_LIMIT if distributed.agreed(over) else 0


def drive(command: str, settings: Any, workdir: PathLike) -> None:
    """Runs a command in a folder, or resumes it there."""
    with opened(command, settings, workdir) as run:
        if run is not None:
            stopping.check()
            run.end(run.module.run(run.settings, run.work))


@contextlib.contextmanager
def mesh(shape: Mesh | None) -> Iterator[None]:
    """Enters the mesh of a command that has one, if there is more than one device."""
    made = None
    if shape is not None:
        made = sharding.make(sharding.MeshShape(**dataclasses.asdict(shape)))
    if made is None:
        yield
        return
    sizes = ", ".join(f"{axis} {size}" for axis, size in made.shape.items() if size > 1)
    print(f"mesh of {made.size} devices: {sizes}", file=sys.stderr)
    with jax.set_mesh(made):
        yield
