"""One system in a process of its own, asked for one piece of work at a time.

Requests and answers are lines of JSON over the process's standard streams; the process computes
between the two and at no other time, so two sides never share the machine.
"""

import importlib.util
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def missing(*modules: str) -> list[str]:
    """Which of these are not installed."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


class Side:
    """Starts when it is first asked, or asked again after it was closed.

    Args:
      module: what runs there: `ours` or `peer`.
      loading: the request that comes before all others.
    """

    def __init__(self, module: str, loading: Mapping[str, Any]):
        self.module, self.loading = module, loading
        self._process: subprocess.Popen[str] | None = None
        self._log: Any = None

    def ask(self, do: str, **given: Any) -> dict[str, Any]:
        """The answer to one request.

        Raises:
          RuntimeError: the work failed there; the message ends with what the process wrote.
        """
        if self._process is None:
            self._start()
            self._send({"do": "load", **self.loading})
        return self._send({"do": do, **given})

    def _start(self) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open until `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"forget_jax.benchmarks.{self.module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # Ctrl-C asks the benchmark, which ends this one
            env={
                **os.environ,
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # two systems, one accelerator
                "TRANSFORMERS_VERBOSITY": "error",
                "HF_HUB_OFFLINE": "1",
            },
        )

    def _send(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {}
        if "failed" in answer or not line:
            self._log.seek(0)
            written = answer.get("failed") or self._log.read()[-2000:]
            if not line:
                written += f"\nit ended with status {self._process.wait()}"
            self.close()
            raise RuntimeError(
                f"forget_jax.benchmarks.{self.module} failed at {request['do']}:\n{written}"
            )
        found: dict[str, Any] = answer
        return found

    def measured(self, do: str, **given: Any) -> dict[str, Any]:
        """The answer to one request, with the peak memory of this work alone."""
        self.forget_peak()
        found = self.ask(do, **given)
        found["peak_bytes"] = found["peak_bytes"] or self.peak()
        return found

    def forget_peak(self) -> None:
        """The process's peak memory begins anew, where the system can do that."""
        if self._process is not None:
            try:
                Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")
            except OSError:
                return

    def peak(self) -> int:
        """The process's peak memory in bytes, seen from outside; 0 where it cannot be read."""
        status = Path(f"/proc/{self._process.pid}/status") if self._process else None
        lines = status.read_text().splitlines() if status and status.exists() else []
        return next((int(s.split()[1]) * 1024 for s in lines if s.startswith("VmHWM:")), 0)

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            assert self._process.stdin and self._process.stdout
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
            self._log.close()
            self._process = None

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _listen(requests: "queue.SimpleQueue[str]") -> None:
    """Passes requests on; ends the process with its input, whatever it computes: nobody waits."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def serve(system: Any) -> None:
    """Answers requests with the methods of `system` that bear their names, until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    requests = queue.SimpleQueue[str]()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    while True:
        request = json.loads(requests.get())
        work: Callable[..., dict[str, Any]] = getattr(system, request.pop("do"))
        try:
            answer = work(**request)
        except Exception:
            answer = {"failed": traceback.format_exc()[-2000:]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
