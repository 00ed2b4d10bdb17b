"""Many processes, one run: how they find each other, agree, and end when one of them dies.

All processes run the same program. Process 0 alone writes files that one process should write, and
what depends on the disk is decided by process 0 and told to the others (`agreed`). Messages between
processes go through the key-value store of jax's coordination service, which needs no device and
does not wait for queued computations. In a single process everything here is a no-op.
"""

import contextlib
import ctypes
import io
import itertools
import json
import os
import re
import signal
import sys
import time
from typing import Any, TypeVar

from forget_jax import stderr
from forget_jax.errors import UserError
from forget_jax.rollcall import roll_call

T = TypeVar("T")

START_SECONDS = 300  # for all processes to appear
HEARTBEAT_SECONDS = 30  # without a sign of life from a process before the others stop
LEAVE_SECONDS = 5  # for others that fail of the same cause, when process 0 ends
FOREVER_MS = 7 * 24 * 3600 * 1000  # waiting ends earlier: by an answer, or by a missed heartbeat

_calls = itertools.count()
_keep: list[Any] = []


def _state() -> Any:
    from jax._src import distributed  # the public API tells the index only by starting the backend

    return distributed.global_state


def index() -> int:
    """The number of this process, from 0. Unlike `jax.process_index` it starts no backend."""
    return _state().process_id if "jax" in sys.modules else 0


def count() -> int:
    """How many processes share this run."""
    return _state().num_processes if "jax" in sys.modules else 1


def is_writer() -> bool:
    """Whether this process is the one that writes what only one should write."""
    return index() == 0


def who() -> str:
    """`process 1 of 2: ` before an error in a run of many processes, else nothing."""
    return f"process {index()} of {count()}: " if count() > 1 else ""


def initialise(spec: str) -> None:
    """Joins the processes of a run. To be called before anything that starts jax's backend.

    Args:
      spec: `auto`, which detects TPU pods, GKE, SLURM and Open MPI; or `HOST:PORT,COUNT,INDEX` with
        the address of process 0, the number of processes, and this one's number from 0.

    Raises:
      UserError: a malformed spec, nothing detected, or processes that did not come in time.
    """
    import jax

    address, processes, own, devices = _detected() if spec == "auto" else _parse(spec)
    state = _state()
    state.process_id, state.num_processes = own, processes  # so that errors say who speaks
    # The service would take SIGTERM from the training loop, which saves a checkpoint upon it.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    _at_abort(f"not all of {processes} processes joined {address}")
    roll_call(address, processes, own, START_SECONDS)
    jax.distributed.initialize(
        address,
        processes,
        own,
        devices,
        cluster_detection_method="deactivate",
        initialization_timeout=START_SECONDS,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=3600,  # process 0 may write for long at the end
    )
    _at_abort(
        "lost another process, or was aborted (see above); start the same command again to resume"
    )


def _parse(spec: str) -> tuple[str, int, int, None]:
    found = re.fullmatch(r"([^\s,]+):(\d+),(\d+),(\d+)", spec)
    if not found:
        raise UserError(
            f"--distributed={spec}: it must be auto or HOST:PORT,COUNT,INDEX, such as "
            "10.0.0.1:8476,4,0 for the first of four processes"
        )
    host, port, processes, own = found[1], *map(int, found.groups()[1:])
    if not 0 < port < 65536:
        raise UserError(f"--distributed={spec}: port {port} is not between 1 and 65535")
    if not processes:
        raise UserError(f"--distributed={spec}: COUNT is 0; it must be 1 or more")
    if not own < processes:
        raise UserError(
            f"--distributed={spec}: the INDEX of {processes} processes is between 0 and "
            f"{processes - 1}, not {own}"
        )
    return f"{host}:{port}", processes, own, None


def _detected() -> tuple[str, int, int, Any]:
    from jax._src.clusters import ClusterEnv

    try:
        address, processes, own, devices = ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, START_SECONDS
        )
    except Exception as e:  # each environment has errors of its own
        raise UserError(f"--distributed=auto: {e}; or give HOST:PORT,COUNT,INDEX") from e
    if address is None or processes is None or own is None:
        raise UserError(
            "--distributed=auto finds no TPU pod, GKE job, SLURM step or Open MPI here; give "
            "HOST:PORT,COUNT,INDEX, or leave --distributed out to run in one process"
        )
    return address, processes, own, devices


def agreed(value: T) -> T:
    """What process 0 holds, given to all of them: JSON's types and small numpy arrays.

    To be called by all processes, in the same order, from the main thread.
    """
    if count() == 1:
        return value
    client, key = _state().client, f"forget_jax/agreed/{next(_calls)}"
    if is_writer():
        client.key_value_set_bytes(key, _pack(value))
        return value
    return _unpack(client.blocking_key_value_get_bytes(key, FOREVER_MS))


def barrier(name: str) -> None:
    """Waits until all processes are here. The name appears in errors only."""
    if count() > 1:
        _state().client.wait_at_barrier(f"forget_jax/{next(_calls)}/{name}", FOREVER_MS)


def _pack(value: Any) -> bytes:
    import numpy as np  # not before a signal can be a request

    if not isinstance(value, np.ndarray | np.generic):
        return json.dumps(value).encode()
    out = io.BytesIO()
    np.save(out, value, allow_pickle=False)
    return out.getvalue()


def _unpack(data: bytes) -> Any:
    import numpy as np

    if not data.startswith(b"\x93NUMPY"):
        return json.loads(data)
    value = np.load(io.BytesIO(data), allow_pickle=False)
    return value if value.ndim else value[()]


LOST = re.compile(
    r"gloo|nccl|coordination ?service|heartbeat|unhealthy|(closed|reset) by peer|socket closed"
    r"|shut ?down barrier|barrier (failed|timed out|has been cancelled)",
    re.IGNORECASE,
)


def lost_peer(error: BaseException) -> bool:
    """Whether an error, or what it comes from, says that another process is gone."""
    chain: BaseException | None = error
    while chain is not None:
        if not isinstance(chain, UserError) and LOST.search(str(chain)):
            return count() > 1
        chain = chain.__cause__ or chain.__context__
    return False


def leave(status: int) -> None:
    """Ends this process at once, past jax's barrier at exit, so that the others end too.

    Process 0 holds the service whose end ends them all: it gives those that fail of the same cause
    some seconds to say so themselves.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    client = _state().client
    if client is not None:
        # The cause has been told: should the runtime abort this process now, it adds nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        _at_abort("", status)
        with contextlib.suppress(Exception):
            if is_writer():
                deadline = time.monotonic() + LEAVE_SECONDS
                for other in range(1, count()):
                    left = max(int(1000 * (deadline - time.monotonic())), 1)
                    client.blocking_key_value_get(f"forget_jax/left/{other}", left)
            else:
                client.key_value_set(f"forget_jax/left/{index()}", str(status))
    os._exit(status)


def _at_abort(why: str, status: int = 1) -> None:
    """Makes a clear line the last that is printed where jax's runtime aborts the process.

    It does so, from a thread of its own, when the coordination service tells that a process missed
    its heartbeats or when that service is gone; no Python exception can be had from it.
    """
    line = f"forget-jax: {who()}{why}" if why else ""

    def handler(number: int) -> None:
        if line:
            stderr.write(line)
        os._exit(status)

    kept = ctypes.CFUNCTYPE(None, ctypes.c_int)(handler)
    _keep.append(kept)
    ctypes.CDLL(None).signal(int(signal.SIGABRT), kept)
