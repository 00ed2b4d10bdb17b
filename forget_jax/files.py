"""All file access, local folders and `gs://` alike: atomic writes, and one append for logs.

A run must survive `kill -9` at any moment, so a file is either absent, old or complete. On a local
disk that takes a temporary file and a rename; an object store's write is atomic by itself. Only a
log on a local disk grows in place, and its reader drops a torn end. In a run of many processes only
process 0 writes and removes.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import socket
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path as LocalPath
from typing import Any

import numpy as np
from etils.epath import Path

from forget_jax import distributed, foreign
from forget_jax.errors import UserError

PathLike = str | os.PathLike[str]

# Stores of files beside the local disk, and what reads them.
STORES = {"gs": "`pip install 'forget-jax[gcs]'`", "s3": "`pip install s3fs`"}


def is_local(path: PathLike) -> bool:
    """Whether the path lies on a file system of this machine rather than in an object store."""
    return "://" not in os.fspath(path)


def cache() -> LocalPath:
    """The program's folder among the user's caches; it may not be there yet."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return LocalPath(base) / "forget_jax"


def check_regular(path: Path) -> None:
    """Refuses what is neither file nor folder, such as a pipe.

    Raises:
      UserError: it is there, on this machine, and something else.
    """
    if is_local(path) and path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is no regular file and may never end; copy what it holds")


def needs(path: PathLike, error: Exception) -> str:
    """Which package a path's store lacks, to be put behind what `error` says; else nothing."""
    scheme = os.fspath(path).partition("://")[0]
    missing = isinstance(error, ImportError) and scheme in STORES
    return f"; {scheme}:// needs {STORES[scheme]}" if missing else ""


def readable(path: PathLike, endings: Collection[str], what: str) -> Path:
    """The path of a file to be read, whether it is there yet or not.

    Args:
      endings: those that have a reader, such as `.csv`.
      what: the file's content for people, such as `a matrix`.

    Raises:
      UserError: another ending, a name that no store of files takes, or no regular file.
    """
    text = os.fspath(path)
    scheme, colon, _ = text.partition("://")
    if colon and scheme not in STORES:
        raise UserError(
            f"{text[:200]}: {scheme[:20]}:// is not read; copy the file here and give its path"
        )
    try:
        place = Path(text)
        if place.suffix.lower() not in endings:
            known = ", ".join(endings)
            raise UserError(f"{text[:200]}: {what} is a {known} file, not {place.suffix[:20]!r}")
        check_regular(place)
    except UserError:
        raise
    except Exception as e:  # NUL, too many characters, and what a store's client raises
        reason = getattr(e, "strerror", None) or e
        raise UserError(f"{text[:200]!r} cannot be read: {reason}{needs(text, e)}") from e
    return place


def write_bytes(path: PathLike, data: bytes) -> None:
    """Writes a whole file atomically; a full or read-only disk is a UserError naming the file."""
    if not distributed.is_writer():
        return
    target = Path(path)
    with _one_line(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not is_local(target):
            target.write_bytes(data)
            return
        # other machines may write the same file, such as parts of one sweep
        temporary = target.parent / f".{target.name}.{socket.gethostname()}.{os.getpid()}.tmp"
        try:
            with open(temporary, "wb") as f:  # noqa: PTH123 - fsync needs the descriptor
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, target)  # noqa: PTH105
        finally:
            if temporary.exists():
                temporary.unlink()


def append_bytes(path: PathLike, data: bytes, sync: bool) -> None:
    """Adds to the end of a file of a local disk; a killed process may leave a part of `data`.

    Args:
      sync: also waits until the disk holds all that was ever added.
    """
    if not distributed.is_writer():
        return
    with _one_line(path), open(path, "ab", buffering=0) as f:  # noqa: PTH123
        while data:
            data = data[f.write(data) :]
        if sync:
            os.fsync(f.fileno())


@contextlib.contextmanager
def _one_line(path: PathLike) -> Iterator[None]:
    """Makes an error of the disk a UserError that names the file."""
    try:
        yield
    except OSError as e:
        raise UserError(
            f"cannot write {path}: {e.strerror or e}; free space or choose another --workdir, then "
            "start the same command again: it resumes"
        ) from e


def remove(path: PathLike) -> None:
    """Removes a file, if it is there."""
    if distributed.is_writer():
        Path(path).unlink(missing_ok=True)


def write_text(path: PathLike, text: str) -> None:
    """Writes a whole UTF-8 text file atomically."""
    write_bytes(path, text.encode("utf-8"))


def _plain(value: Any) -> Any:
    """JSON's own types for what numpy, jax and containers hold; NaN and infinities become null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic) or (hasattr(value, "tolist") and hasattr(value, "shape")):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dump_json(value: Any, indent: int | None = None) -> str:
    """JSON text of plain, numpy and jax values; NaN and infinities become null (RFC 8259)."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def write_json(path: PathLike, value: Any) -> None:
    """Writes one JSON document atomically."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """One JSON document as `write_json` writes it."""
    return (dump_json(value, indent=1) + "\n").encode()


def read_json(path: PathLike) -> Any:
    """Reads one JSON document; a missing or broken one is a UserError naming file and line."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist") from e
    except OSError as e:  # a folder of this name, or no right to read
        raise UserError(f"cannot read {path}: {e.strerror or e}") from e
    return foreign.parse(data, os.fspath(path))


def walk(folder: PathLike) -> Iterator[Path]:
    """All files of a folder and its folders, sorted by name."""
    for path in sorted(Path(folder).iterdir()):
        if path.is_dir():
            yield from walk(path)
        else:
            yield path


def digest_of(data: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest(path: PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def safe_name(name: str) -> str:
    """A file name for any task or example name: unsafe characters become `%XX`, never a path."""
    escaped = re.sub(
        r"[^A-Za-z0-9._-]", lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), name
    )
    escaped = re.sub(r"^\.+", lambda m: "%2E" * len(m[0]), escaped) or "%"
    return escaped if len(escaped) <= 200 else f"{escaped[:180]}~{digest_of(name.encode())[:16]}"
