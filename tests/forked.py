"""Python processes forked from one that has imported what takes long: a start costs a fifth.

Only libraries are imported ahead, nothing of forget_jax and no device: a process here imports,
patches and starts as any other would. Where processes must have hash seeds of their own, or join
through a script, use subprocess.

    python tests/forked.py FD      serves requests that come through the socket FD
"""

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

AHEAD = (
    "jax",
    "jax.experimental.multihost_utils",
    "flax.linen",
    "optax",
    "orbax.checkpoint",
    "xarray",
    "zarr",
    "pandas",
    "ml_collections",
    "tokenizers",
    "safetensors.numpy",
    "matplotlib.figure",
)
LONGEST = 2**18  # bytes of a request


class Server:
    """The process that forks; it starts when it is first asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *argv: str, env: dict[str, str] | None = None) -> "Process":
        """What `python ARGV` starts, with `env` in place of this process's environment."""
        if self._process is None:
            self._control, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
            theirs.close()
        request = {"argv": argv, "env": dict(env or os.environ), "folder": str(Path.cwd())}
        return Process(self._control, json.dumps(request).encode())

    def run(self, *argv: str, env: dict[str, str] | None = None) -> "Process":
        """As `start`, ended."""
        process = self.start(*argv, env=env)
        process.communicate()
        return process

    def close(self) -> None:
        """Returns when all processes have ended."""
        if self._process is not None:
            self._control.close()
            self._process.wait()


class Process:
    """What is used here of a `subprocess.Popen` with pipes and text."""

    def __init__(self, control: socket.socket, request: bytes):
        self.returncode: int | None = None
        self.stdout = self.stderr = ""
        self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        self._said, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(control, [request], [f.fileno() for f in (theirs, *self._files)])
        self.pid = int(self._said.makefile(buffering=0, mode="rb").readline())

    def poll(self) -> int | None:
        """The exit status as of `subprocess`, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._wait(0.001)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote, when it has ended."""
        self._wait(timeout)
        return self.stdout, self.stderr

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _wait(self, timeout: float | None) -> None:
        if self.returncode is not None:
            return
        self._said.settimeout(max(timeout, 0.001) if timeout is not None else None)
        try:
            status = self._said.recv(64)
        except TimeoutError as e:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0) from e
        self._said.close()
        self.returncode = int(status)
        found = []
        for file in self._files:
            file.seek(0)
            found.append(file.read())
            file.close()
        self.stdout, self.stderr = found


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Forks a process for every request; gives the request in that process, None at the end.

    Each has a parent of its own, which says how it ended.
    """
    while True:
        request, fds, _, _ = socket.recv_fds(control, LONGEST, 3)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0 if not request else os.WNOHANG)[0]:
                pass
        if not request:
            return None
        if not os.fork():
            control.close()
            pid = os.fork()
            if not pid:
                os.close(fds[0])
                for fd, standard in zip(fds[1:], (1, 2), strict=True):
                    os.dup2(fd, standard)
                    os.close(fd)
                return json.loads(request)
            os.write(fds[0], f"{pid}\n".encode())
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.write(fds[0], str(status).encode())
            os._exit(0)
        for fd in fds:
            os.close(fd)


def become(request: dict[str, Any]) -> None:
    """Does what `python ARGV` would do here."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["folder"])
    program, *rest = request["argv"]
    if program == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path[0] = ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [program, *rest]
        sys.path[0] = os.path.dirname(program)  # noqa: PTH120
        runpy.run_path(program, run_name="__main__")


def main(fd: int) -> None:
    for name in AHEAD:
        __import__(name)
    with contextlib.suppress(ImportError):
        from transformers import PreTrainedTokenizerFast  # noqa: F401
    request = serve(socket.socket(fileno=fd))
    if request is not None:
        become(request)


if __name__ == "__main__":
    main(int(sys.argv[1]))
