"""Standard error, of which can be held back what a library that fails writes there itself.

Rust prints each panic before Python hears of it, with pages of a backtrace where RUST_BACKTRACE is
set, and only the file descriptor can keep it from that.
"""

import contextlib
import functools
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

_lock = threading.RLock()
_real = 2  # where it goes while descriptor 2 is held


def write(line: str) -> None:
    """Writes a line at once, from any thread, whether or not what others write is held back."""
    with contextlib.suppress(OSError):
        os.write(_real, f"{line}\n".encode())


@contextlib.contextmanager
def held(is_dropped: Callable[[BaseException], bool]) -> Iterator[None]:
    """While entered, holds back what is written to standard error; passes it on at the end.

    Args:
      is_dropped: of an exception that ends it, whether it tells all that was written.
    """
    with _lock:
        files = _hold() if _real == 2 else None  # one within another is held already
        drops = False
        try:
            yield
        except BaseException as e:
            drops = is_dropped(e)
            raise
        finally:
            if files is not None:
                _release(*files, drops)


def _hold() -> tuple[int, int] | None:
    try:
        kept, real = _files()
        os.dup2(2, real, inheritable=False)
    except OSError:  # there is no standard error, or no room
        return None
    _turn(kept, real)
    return kept, real


def _release(kept: int, real: int, drops: bool) -> None:
    _turn(real, 2)
    if not os.lseek(kept, 0, os.SEEK_CUR):
        return
    os.lseek(kept, 0, os.SEEK_SET)
    while not drops and (said := os.read(kept, 2**16)):
        with contextlib.suppress(OSError):
            os.write(2, said)
    os.lseek(kept, 0, os.SEEK_SET)
    os.ftruncate(kept, 0)


@functools.cache
def _files() -> tuple[int, int]:
    """Of this process: where to keep what is held, and a place for the descriptor meanwhile."""
    with tempfile.TemporaryFile() as kept:
        return os.dup(kept.fileno()), os.dup(2)


def _turn(to: int, real: int) -> None:
    """Lets descriptor 2 be another file; what Python has yet to write goes where it did before."""
    global _real
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    os.dup2(to, 2)
    _real = real
