"""Asking a training to stop: the first SIGINT or SIGTERM leaves a checkpoint."""

import contextlib
import signal
import threading
from typing import Any

from forget_jax import stopping
from forget_jax.stopping import Interrupted

__all__ = ["Interrupted", "StopSignal"]


class StopSignal:
    """While entered, the first SIGINT or SIGTERM becomes a request; a second one acts as usual.

    In a command `stopping` has the signals already; in a notebook they are taken over here.
    """

    def __init__(self) -> None:
        self._own = False
        self._before: dict[int, Any] = {}
        self._patient = contextlib.ExitStack()

    @property
    def came(self) -> bool:
        """Whether one came."""
        return self._own or stopping.came()

    def __enter__(self) -> "StopSignal":
        self._patient.enter_context(stopping.patient())
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and not stopping.is_watched():
            for number in stopping.SIGNALS:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        self._own = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(self, *exc: object) -> None:
        self._restore()
        self._patient.close()
