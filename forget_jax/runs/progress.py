"""Progress of long work: one line that moves at least every few seconds, even while XLA compiles.

On a terminal and in a notebook the line is rewritten in place; in a log it is printed plainly, less
often.
"""

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from forget_jax import stopping
from forget_jax.errors import one_line as one_line_of


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    s = round(seconds)
    return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}" if s >= 3600 else f"{s // 60}:{s % 60:02}"


def rewrites(stream: TextIO) -> bool:
    """Whether a carriage return lets a line be written again: on a terminal, and in a notebook.

    A notebook's stream is no terminal; it is told by its class, without an import of its kernel.
    """
    in_notebook = "ipykernel" in sys.modules and type(stream).__module__.startswith("ipykernel.")
    return in_notebook or stream.isatty()


@dataclasses.dataclass
class Place:
    """Where lines are rewritten.

    Attributes:
      length: of what stands there now.
      shared: whether further stages of the same job write there too.
    """

    length: int = 0
    shared: bool = False


_jobs: list[Place] = []  # those under way, the innermost last


@contextlib.contextmanager
def one_line(stream: TextIO | None = None) -> Iterator[None]:
    """While entered, each stage's line takes the place of the one before, where it is rewritten."""
    _jobs.append(Place(shared=True))
    try:
        yield
    finally:
        if _jobs.pop().length:
            print(file=stream or sys.stderr, flush=True)


class Progress:
    """A counter for one stage of work, kept moving by a thread of its own.

    Use as a context manager; call `at` whenever something was done.
    """

    def __init__(
        self,
        what: str,
        total: int,
        start: int = 0,
        unit: str = "step",
        stream: TextIO | None = None,
    ):
        self.what, self.total, self.unit = what, total, unit
        self.stream = stream or sys.stderr
        self.rewrites = rewrites(self.stream)
        self.done = self.start = start
        self.note = self.within = ""
        self.began = time.monotonic()
        self._first: float | None = None  # when the first work was done: compilation lies before it
        self._first_done = start
        self._place = _jobs[-1] if _jobs else Place()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._print(last=True)

    def at(self, done: int, note: str = "") -> None:
        """Says how much is done, and a word on how it goes (`loss 3.21 · 9.1k tokens/s`).

        Raises:
          Interrupted: a signal has asked the command to stop.
        """
        if self._first is None:
            self._first, self._first_done = time.monotonic(), done
        self.done, self.note, self.within = done, note, ""
        stopping.check()

    def doing(self, what: str) -> None:
        """Says what goes on before the next `at`, such as `compiling, 1 of 4 programs ready`."""
        self.within = what

    def _beat(self) -> None:
        while not self._stop.wait(0.5 if self.rewrites else 4.0):
            self._print()

    def _line(self, last: bool) -> str:
        now = time.monotonic()
        line = f"{one_line_of(self.what, 200)}: {self.unit} {self.done}/{self.total}"
        line += "".join(f" · {what}" for what in (self.note, self.within) if what)
        if last or self._first is None or self.done == self._first_done:
            return f"{line} · {duration(now - self.began)}"
        left = (self.total - self.done) * (now - self._first) / (self.done - self._first_done)
        return f"{line} · {duration(now - self.began)} · {duration(left)} left"

    def _print(self, last: bool = False) -> None:
        line = self._line(last)
        if self.rewrites:
            ends = last and not self._place.shared
            self.stream.write("\r" + line.ljust(self._place.length) + ("\n" if ends else ""))
            self._place.length = len(line)
        else:
            self.stream.write(line + "\n")
        self.stream.flush()
