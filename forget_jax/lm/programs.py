"""Programs compiled ahead, in the background, in the order in which they are first used."""

import concurrent.futures
import os
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax

from forget_jax import stopping
from forget_jax.lm import sharding


class Programs:
    """What each maker compiles, by key; use as a context manager.

    Processes of one run compile in one order, one at a time: a program may make them wait for each
    other.
    """

    def __init__(
        self,
        makers: Mapping[Any, Callable[[], Any]],
        told: Callable[[str], None] = lambda what: None,
    ):
        """Starts to compile.

        Args:
          makers: called without arguments, in order, each in the mesh that is entered now.
          told: how far it is, in words, whenever somebody waits; empty when the wait is over.
        """
        self._told = told
        workers = 1 if jax.process_count() > 1 else min(4, os.cpu_count() or 1)
        self._pool = concurrent.futures.ThreadPoolExecutor(workers, "compile")
        mesh = sharding.current()
        self._ready = {key: self._pool.submit(_entered, mesh, make) for key, make in makers.items()}

    def __enter__(self) -> "Programs":
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __getitem__(self, key: Hashable) -> Any:
        """What the key's maker gave; waits for it, and raises what it raised."""
        return self._result(self._ready[key])

    def wait(self) -> None:
        """Waits for all of them."""
        for ready in self._ready.values():
            self._result(ready)

    def _result(self, ready: concurrent.futures.Future[Any]) -> Any:
        """The future's value; a signal that asks the command to stop need not wait for it."""
        while not ready.done():
            done = sum(one.done() for one in self._ready.values())
            self._told(f"compiling, {done} of {len(self._ready)} programs ready")
            concurrent.futures.wait([ready], 0.5)
            stopping.check()
        self._told("")
        return ready.result()


def _entered(mesh: jax.sharding.Mesh | None, make: Callable[[], Any]) -> Any:
    with sharding.entered(mesh):
        return make()
