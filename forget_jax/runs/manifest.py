"""The digests of what a run left: whether its results are still what they were when it ended.

Most formats have no checksum: a digit that a disk has changed is another figure, and nobody
notices. So a run that ends keeps a digest of each of its files. Tables of scores check themselves,
chunk by chunk, and are not listed.
"""

import os
from collections.abc import Iterator

from forget_jax import files, foreign
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike

NAME = "manifest.json"
# What is written after the end, grows beside a run, or has checks of its own.
LEFT_OUT = ("checkpoints", "scores.zarr", "traces", "tensorboard", "metrics")
UNLISTED = ("config.json", "report.html", NAME)
ONCE = ("metrics.jsonl",)  # what no second start makes again


def _listed(folder: Path) -> Iterator[Path]:
    """The files of a run, those of runs inside it left out."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in LEFT_OUT and not (path / NAME).exists():
                yield from files.walk(path)
        elif path.name not in UNLISTED and not path.name.startswith((".", "seconds", "inputs")):
            yield path


def keep(folder: PathLike, summary: bytes) -> None:
    """Keeps the digests of a run's files.

    Args:
      summary: what `summary.json` will hold, which is written after this file.
    """
    here = Path(folder)
    found = {_name(path, here): files.digest(path) for path in _listed(here)}
    found["summary.json"] = files.digest_of(summary)
    held = {"files": found, "sha256": _own(found)}
    files.write_json(here / NAME, held)


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
    return found + [name for name, digest in held.items() if not _is_same(here / name, digest)]


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
        for name, digest in held.items():
            asked = not inside or name == inside or name.startswith(f"{inside}/")
            if asked and not _is_same(folder / name, digest):
                raise UserError(
                    f"{folder / name} is not what it was when its run ended: damaged, or changed "
                    "by hand; start that run's command again to make it anew"
                )
        return
