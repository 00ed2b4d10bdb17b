"""Asking a run to stop: the first SIGINT or SIGTERM is a request, which leaves a checkpoint."""

import signal
import threading
from typing import Any


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop (SIGINT, SIGTERM) and has saved a checkpoint."""


class StopSignal:
    """While entered, the first SIGINT or SIGTERM becomes a request; a second one acts as usual."""

    def __init__(self) -> None:
        self.came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        self.came = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(self, *exc: object) -> None:
        self._restore()
