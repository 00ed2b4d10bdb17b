"""Two real processes on loopback: they agree, one writes, and none outlives another."""

import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forget_jax.errors import UserError
from forget_jax.rollcall import roll_call
from tests.conftest import free_port

WORKER = Path(__file__).parent / "distributed_worker.py"
LOST = r"lost another process.*; start the same command again to resume"


class Pair:
    """Two processes of one run, which find each other by address or as a step of SLURM."""

    def __init__(self, forked, workdir, mode, slurm=False):
        self.began = time.monotonic()
        port = free_port()

        def step(i):
            return {
                "JAX_COORDINATOR_PORT": str(port),
                "SLURM_JOB_ID": "1",
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_NTASKS": "2",
                "SLURM_PROCID": str(i),
                "SLURM_LOCALID": str(i),
            }

        self.processes = [
            forked.start(
                str(WORKER),
                mode,
                "finetune",
                f"--workdir={workdir}",
                f"--distributed={'auto' if slurm else f'127.0.0.1:{port},2,{i}'}",
                env=os.environ | {"JAX_PLATFORMS": "cpu"} | (step(i) if slurm else {}),
            )
            for i in range(2)
        ]

    def end(self, within=60.0):
        """Exit statuses and what was written to stderr and stdout; fails where one hangs."""
        out = []
        try:
            for process in self.processes:
                out.append(process.communicate(timeout=self.began + within - time.monotonic()))
        finally:
            for process in self.processes:
                process.kill()
        return [p.returncode for p in self.processes], [e for _, e in out], [o for o, _ in out]


@pytest.fixture
def pair(forked, tmp_path):
    return lambda mode, **how: Pair(forked, tmp_path / "run", mode, **how)


def said(err):
    """The lines of ours, which come last."""
    lines = [line for line in err.splitlines() if line.startswith("forget-jax: ")]
    assert err.splitlines()[-1:] == lines
    return lines[0].removeprefix("forget-jax: ")


def test_they_agree_and_only_the_first_writes_and_speaks(pair, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "kept").touch()
    (run / "gone").touch()
    status, err, out = pair("agree", slurm=True).end()
    assert status == [0, 0], err
    assert sorted(f.name for f in run.iterdir()) == [".lock", "0.json", "config.json", "kept"]
    assert (run / "0.json").read_text().strip() == "2"
    assert "agreed" in err[0] and "agreed" not in err[1]
    assert f"workdir {run}" in out[0]
    assert all(line.startswith("[Gloo]") for line in out[1].splitlines())


def test_a_mistake_that_all_make_is_told_by_all(pair):
    status, err, _ = pair("all fail").end()
    assert status == [2, 2]
    for i in range(2):
        assert said(err[i]) == f"process {i} of 2: the same mistake"


@pytest.mark.parametrize(
    ("mode", "dead", "its_status", "its_line"),
    [
        ("killed", 1, -signal.SIGKILL, None),
        ("first killed", 0, -signal.SIGKILL, None),
        ("killed in a collective", 1, -signal.SIGKILL, None),
        ("one fails", 1, 2, "process 1 of 2: my own mistake"),
        ("crash", 0, 1, "process 0 of 2: internal error; please report the lines above"),
    ],
)
def test_one_that_dies_brings_the_other_down(pair, mode, dead, its_status, its_line):
    status, err, _ = pair(mode).end()
    assert status[dead] == its_status
    assert status[1 - dead] == 1
    assert re.fullmatch(f"process {1 - dead} of 2: {LOST}", said(err[1 - dead]))
    if its_line is not None:
        assert said(err[dead]) == its_line


def test_sigterm_to_both_ends_both_as_resumable(pair, tmp_path):
    started = pair("terminated")
    while not (tmp_path / "run" / "ready").exists():
        assert all(p.poll() is None for p in started.processes)
        time.sleep(0.05)
    for process in started.processes:
        process.terminate()
    status, err, _ = started.end()
    assert status == [130, 130]
    for i in range(2):
        why = "stopped by SIGTERM; start the same command again to resume"
        assert said(err[i]) == f"process {i} of 2: {why}"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("somewhere", "it must be auto or HOST:PORT,COUNT,INDEX, such as"),
        ("127.0.0.1:1234", "it must be auto or HOST:PORT,COUNT,INDEX"),
        ("127.0.0.1:1234,two,0", "it must be auto or HOST:PORT,COUNT,INDEX"),
        ("127.0.0.1:123456,2,0", "port 123456 is not between 1 and 65535"),
        ("127.0.0.1:1234,2,2", "the INDEX of 2 processes is between 0 and 1, not 2"),
        ("127.0.0.1:1234,0,0", "COUNT is 0; it must be 1 or more"),
        ("auto", "finds no TPU pod, GKE job, SLURM step or Open MPI here; give HOST:PORT"),
    ],
)
def test_a_bad_spec_is_one_line(run_cli, monkeypatch, tmp_path, spec, why):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "KUBERNETES_", "TPU_", "JAX_COORD")):
            monkeypatch.delenv(name)
    status, _, err = run_cli("pretrain", f"--workdir={tmp_path}", f"--distributed={spec}")
    assert status == 2
    assert said(err).startswith(f"--distributed={spec}") and why in err
    assert not list(tmp_path.iterdir())


def call_the_roll(*present, port=None, seconds=1.0):
    """What each of the present processes, given by count and index, hears: an error or None."""
    address = f"127.0.0.1:{port or free_port()}"

    def one(place):
        try:
            roll_call(address, *place, seconds)
        except UserError as e:
            return str(e).removeprefix("--distributed: ").replace(address, "ADDRESS")

    with ThreadPoolExecutor(len(present)) as threads:
        return list(threads.map(one, present))


def test_a_roll_call_ends_when_all_have_come_in_any_order():
    assert call_the_roll((4, 3), (4, 1), (4, 0), (4, 2)) == [None] * 4


def test_strangers_at_the_port_do_not_confuse_a_roll_call():
    port = free_port()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(call_the_roll, (2, 0), port=port, seconds=10)
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\n", b"forget_jax:x of y\n", b""):
            with connected(port) as stranger:
                stranger.sendall(words)
        assert call_the_roll((2, 1), port=port) == [None]
        assert first.result() == [None]


def connected(port):
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("present", "heard"),
    [
        ([(4, 0), (4, 2)], "process 1, 3 of 4 did not come within 1 s"),
        ([(2, 1)], "process 0 did not answer at ADDRESS within 1 s"),
        ([(3, 0), (3, 1), (3, 1)], "two processes were started as process 1"),
        ([(2, 0), (3, 1)], "process 1 was started as one of 3, process 0 as of 2"),
    ],
)
def test_all_present_hear_what_is_wrong(present, heard):
    assert call_the_roll(*present) == [heard] * len(present)


def test_a_port_in_use_is_told():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        (heard,) = call_the_roll((2, 0), port=port)
    assert heard == f"process 0 cannot listen at port {port}: Address already in use"
