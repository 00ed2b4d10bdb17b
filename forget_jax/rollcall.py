"""A roll call before a run of many processes: who is missing is known by number.

jax's own start-up only says, after its timeout, that not all have come. Process 0 listens where the
coordination service will listen a moment later; each other process says its number there.
"""

import contextlib
import os
import socket
import time

from forget_jax import stopping
from forget_jax.errors import UserError

MARK = "forget_jax:"  # begins every line said, so that whatever else is at the port is told apart
ASKING = 0.5  # seconds between two looks whether a signal has come


def roll_call(address: str, count: int, index: int, seconds: float) -> None:
    """Returns once all `count` processes have come.

    Args:
      address: HOST:PORT of process 0.

    Raises:
      UserError: in every process that has come, the numbers of those that have not in time; or two
        processes of one number; or another count.
    """
    host, _, port = address.rpartition(":")
    if count > 1 and index == 0:
        _call(int(port), count, seconds)
    elif count > 1:
        _answer(host.strip("[]"), int(port), count, index, seconds)


def _call(port: int, count: int, seconds: float) -> None:
    """Process 0: waits for the others, then tells all of them how it went."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        server = socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as e:
        raise UserError(
            f"--distributed: process 0 cannot listen at port {port}: {os.strerror(e.errno or 0)}"
        ) from e
    deadline = time.monotonic() + seconds
    present: set[int] = set()
    problem = ""
    with server, contextlib.ExitStack() as stack:
        peers = []
        while len(present) < count - 1 and not problem:
            stopping.check()
            server.settimeout(min(max(deadline - time.monotonic(), 0.01), ASKING))
            try:
                peer = stack.enter_context(server.accept()[0])
                own, theirs = map(int, _read(peer).split(" of "))
                if not 0 < own < theirs:
                    raise ValueError(own)
            except (OSError, ValueError):  # nobody, or something else that knocked at the port
                if time.monotonic() >= deadline:
                    missing = ", ".join(str(i) for i in range(1, count) if i not in present)
                    problem = f"process {missing} of {count} did not come within {seconds:.0f} s"
                continue
            if theirs != count:
                problem = f"process {own} was started as one of {theirs}, process 0 as of {count}"
            elif own in present:
                problem = f"two processes were started as process {own}"
            present.add(own)
            peers.append(peer)
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.settimeout(5)
                peer.sendall(f"{MARK}{problem}\n".encode())
                peer.recv(1)  # it closes first, so that the port is free for jax's service
    if problem:
        raise UserError(f"--distributed: {problem}")


def _answer(host: str, port: int, count: int, index: int, seconds: float) -> None:
    """Every other process: says its number and waits to hear how it went."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as peer:
                peer.sendall(f"{MARK}{index} of {count}\n".encode())
                problem = _read(peer, left + 5)
        except (OSError, ValueError):  # not there yet
            stopping.check()
            time.sleep(0.1)
            continue
        if problem:
            raise UserError(f"--distributed: {problem}")
        return
    raise UserError(
        f"--distributed: process 0 did not answer at {host}:{port} within {seconds:.0f} s"
    )


def _read(peer: socket.socket, seconds: float = 5) -> str:
    """One line, without its mark; ValueError where it is not one of ours."""
    data, deadline = b"", time.monotonic() + seconds
    while not data.endswith(b"\n") and len(data) < 200:
        stopping.check()
        if time.monotonic() > deadline:
            raise TimeoutError
        peer.settimeout(ASKING)
        with contextlib.suppress(TimeoutError):
            got = peer.recv(200)
            if not got:
                break
            data += got
    line = data.decode("ascii", "replace")
    if not (line.startswith(MARK) and line.endswith("\n")):
        raise ValueError(line)
    return line[len(MARK) :].strip()
