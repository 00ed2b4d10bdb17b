"""From the name of a file to its bytes: which paths are read, and what every other one lacks."""

import gzip
import io
import os
import zlib
from collections.abc import Collection

from forget_jax.errors import UserError, nearest
from forget_jax.files import STORES, Path, check_regular, is_local, needs

LONGEST_PATH = 4096


def path_of(text: str) -> Path:
    """A path that some store of files takes."""
    scheme, colon, _ = text.partition("://")
    if colon and scheme not in STORES:
        known = ", ".join(f"{name}://" for name in STORES)
        raise UserError(
            f"{text[:200]}: {scheme[:20]}:// is not read; copy the file here and give its path, or "
            f"give {known}, hf:NAME or tfds:NAME"
        )
    if "\0" in text or len(text) > LONGEST_PATH or not _encodes(text):
        raise UserError(f"{text[:60]!a}…: no path is of this kind")
    if not text.strip():
        raise UserError("a data set without a name: give the path of a file")
    try:
        return Path(text).expanduser()
    except (ValueError, RuntimeError, ImportError) as e:
        raise _unreadable(text, e) from e


def check_there(path: Path) -> None:
    """Refuses a file of this machine that is not there.

    Raises:
      UserError: naming one of a similar name.
    """
    if is_local(path) and not path.exists():
        raise UserError(f"{path} does not exist{_nearest_file(path)}")


def read_bytes(path: Path) -> bytes:
    """What a file holds, of this machine or of an object store.

    Raises:
      UserError: missing, a folder, no regular file, or a store without its package.
    """
    try:
        if path.is_dir():
            raise UserError(
                f"{path} is a folder; give one file in it, or hf:{path} for a saved data set"
            )
        check_regular(path)
        return path.read_bytes()
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist{_nearest_file(path)}") from e
    except UserError:
        raise
    except Exception as e:  # a store's client raises what it likes
        raise _unreadable(os.fspath(path), e) from e


def unpacked(data: bytes, path: Path) -> bytes:
    """What a .gz file holds, if this machine's memory could."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as f:
            whole = f.read(most + 1)
    except (OSError, EOFError, zlib.error) as e:
        raise UserError(f"{path}: not a readable .gz file ({e})") from e
    if len(whole) > most:
        raise UserError(f"{path}: over {most >> 30} GiB unpacked; unpack and split it")
    return whole


def ending(name: str) -> tuple[str, str]:
    """A file's name without its last ending, and that ending in small letters: `a.b`, `.csv`."""
    base, dot, end = name.rpartition(".")
    return (base, f".{end.lower()}") if dot and base else (name, "")


def stem(name: str, known: Collection[str]) -> str:
    """A file's name without endings of data files: `train.v1` of `train.v1.jsonl.gz`."""
    base, end = ending(name)
    if end == ".gz":
        base, end = ending(base)
    return base if end in known else name


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8
        return False
    return True


def _unreadable(path: str, error: Exception) -> UserError:
    """A path that raised: why, and which package its store may lack."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    said = " ".join(str(reason).split())[:200]
    return UserError(f"cannot read {path[:200]}: {said}{needs(path, error)}")


def _nearest_file(path: Path) -> str:
    if not is_local(path):
        return ""
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    return nearest(path.name, (p.name for p in path.parent.iterdir()))
