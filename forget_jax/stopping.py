"""Signals that end a command: the first is a request that the work asks for, a second ends it.

A handler that raises can strike inside a garbage collector's callback or a destructor, where Python
prints the exception and goes on as if no signal had come. So nothing is raised where a signal
arrives: a thread reads its number off a pipe, even while the main thread compiles, says what
happens now, and notes it. Work calls `check` wherever it can stop.
"""

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from forget_jax import stderr

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STATUS = 130
GRACE = 30.0  # seconds without a `check` after a signal: what runs then cannot be asked


class Interrupted(KeyboardInterrupt):
    """A signal has asked the run to stop; the same command resumes it."""


class _Watch:
    """What came, and when the work last asked; one for a command."""

    def __init__(self, who: Callable[[], str]) -> None:
        self.who = who
        self.number = 0
        self.asked = 0.0
        self.patient = False

    def said(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"

    def run(self, pipe: int) -> None:
        """Reads signals off the pipe until a zero; ends the process where nothing else would."""
        while True:
            late = self.number and not self.patient and time.monotonic() - self.asked > GRACE
            if late:
                self._leave()
            if not select.select([pipe], [], [], 0.5 if self.number else None)[0]:
                continue
            for number in os.read(pipe, 64):
                if number == 0:
                    return
                if number not in SIGNALS:
                    continue
                if self.number:
                    self._leave()
                self.number, self.asked = number, time.monotonic()
                name = signal.Signals(number).name
                what = "stopping after this step; again to abort"
                stderr.write(f"{name}: {what}")

    def _leave(self) -> None:
        why = f"{self.who()}{self.said()}"
        stderr.write(f"forget-jax: {why}; start the same command again to resume")
        os._exit(STATUS)


_watch: _Watch | None = None


@contextlib.contextmanager
def watched(who: Callable[[], str] = str) -> Iterator[None]:
    """While entered, in the main thread, signals are requests that `check` and `came` see.

    Args:
      who: names this process among several, in front of its last line.
    """
    global _watch
    if _watch is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {number: signal.signal(number, lambda *args: None) for number in SIGNALS}
    fd_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _watch = _Watch(who)
    thread = threading.Thread(target=_watch.run, args=(reading,), daemon=True, name="signals")
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(writing, b"\0")
        thread.join()
        os.close(reading)
        os.close(writing)
        _watch = None


def over(status: int) -> None:
    """The command is over and its last line said: signals change no more than when it ends.

    One that was stopped waits for no thread, such as one that compiles. A signal ends the process
    with the status that it has; while the interpreter takes itself down, it does nothing.
    """
    at_work = [t for t in threading.enumerate() if not t.daemon]  # this one is of them
    if status == STATUS and len(at_work) > 1:
        sys.stdout.flush()
        os._exit(status)
    for number in SIGNALS:
        signal.signal(number, lambda *args: os._exit(status))
        atexit.register(signal.signal, number, signal.SIG_IGN)


def is_watched() -> bool:
    """Whether signals are requests now: in commands, not in a notebook."""
    return _watch is not None


def came() -> bool:
    """Whether a signal has asked the run to stop."""
    if _watch is None or not _watch.number:
        return False
    _watch.asked = time.monotonic()
    return True


def check() -> None:
    """To be called wherever work can stop.

    Raises:
      Interrupted: a signal came, in a command's main thread.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if came() and in_main and _watch is not None and not _watch.patient:
        raise Interrupted(_watch.said())


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """While entered, the work asks `came` itself and ends in its own time: `check` lets it."""
    if _watch is None:
        yield
        return
    before, _watch.patient = _watch.patient, True
    try:
        yield
    finally:
        if _watch is not None:
            _watch.patient = before
            _watch.asked = time.monotonic()
