"""The digests of what a run left: whether its results are still what they were when it ended.

Most formats have no checksum: a digit that a disk has changed is another figure, and nobody
notices. So a run that ends keeps a digest of each of its files; metrics have a seal of their own.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from forget_jax import files, foreign
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike

NAME = "manifest.json"
# What is written after the end, says how the run went, or has checks of its own.
LEFT_OUT = ("checkpoints", "trace", "tensorboard", "wandb", "metrics", "report")
UNLISTED = ("config.json", "report.html", NAME)
PREFIXES = (".", "seconds", "inputs", "metrics")


def _listed(folder: Path) -> Iterator[Path]:
    """The files of a run, those of runs inside it left out."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in LEFT_OUT and not (path / NAME).exists():
                yield from files.walk(path)
        elif path.name not in UNLISTED and not path.name.startswith(PREFIXES):
            yield path


def keep(folder: PathLike, summary: bytes) -> None:
    """Keeps the digests of a run's files.

    Args:
      summary: what `summary.json` will hold, which is written after this file.
    """
    here = Path(folder)
    found = digests(here, _listed(here))
    found["summary.json"] = files.digest_of(summary)
    held = {"files": found, "sha256": _own(found)}
    files.write_json(here / NAME, held)


def digests(folder: Path, inside: Iterable[Path]) -> dict[str, str]:
    """The digest of each file by its name in the folder; a store's are read side by side."""
    paths = list(inside)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(files.digest, paths))
    return {_name(path, folder): digest for path, digest in zip(paths, found, strict=True)}


def changed(folder: Path, held: dict[str, str]) -> list[str]:
    """Which of a folder's files are not there, or have another digest than the one held."""
    with ThreadPoolExecutor(16) as threads:
        same = list(threads.map(lambda name: _is_same(folder / name, held[name]), held))
    return [name for name, is_same in zip(held, same, strict=True) if not is_same]


def _name(path: Path, folder: Path) -> str:
    return os.fspath(path.relative_to(folder)).replace(os.sep, "/")


def _own(found: dict[str, str]) -> str:
    return files.digest_of(files.dump_json(found).encode())


def damaged(folder: PathLike) -> list[str]:
    """The files of a run, and of the runs inside it, that are missing or not what they were.

    A folder without a manifest has none; a damaged manifest is such a file itself.
    """
    here = Path(folder)
    inner = [path for path in sorted(here.iterdir()) if path.is_dir()]
    found = [f"{p.name}/{name}" for p in inner if (p / NAME).exists() for name in damaged(p)]
    if not (here / NAME).exists():
        return found
    held = _read(here / NAME)
    if held is None:
        return [*found, NAME]
    return found + changed(here, held)


def _read(path: Path) -> dict[str, str] | None:
    try:
        held = foreign.record(files.read_json(path), os.fspath(path))
        found = foreign.field(held, "files", dict, os.fspath(path))
        same = all(isinstance(x, str) for x in found.values()) and held.get("sha256") == _own(found)
    except UserError:
        return None
    return found if same else None


def _is_same(path: Path, digest: str) -> bool:
    return path.exists() and not path.is_dir() and files.digest(path) == digest


def check(path: PathLike) -> None:
    """Refuses a result of a run that is not what it was when the run ended.

    Args:
      path: a file or folder that another run reads; one that is no run's is not checked.

    Raises:
      UserError: naming the file, and the way to make it again.
    """
    here = Path(path)
    for folder in (here, *list(here.parents)[:2]):
        if not (folder / NAME).exists():
            continue
        held = _read(folder / NAME) or {}
        inside = "" if folder == here else _name(here, folder)
        asked = {n: x for n, x in held.items() if not inside or f"{n}/".startswith(f"{inside}/")}
        for name in changed(folder, asked):
            raise UserError(
                f"{folder / name} is not what it was when its run ended: damaged, or changed by "
                "hand; start that run's command again to make it anew"
            )
        return
