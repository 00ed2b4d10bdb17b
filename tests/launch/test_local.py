"""launch/local.sh: processes of one machine, which start and end together."""

import re
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCAL = [ROOT / "launch/local.sh"]


def test_local_gives_each_process_its_place_and_share(tools, tmp_path):
    tools.does("forget-jax", 'echo "$CUDA_VISIBLE_DEVICES says $2"')
    words = ["--processes", "2", "--logs", tmp_path / "logs", "--", "finetune", "a b"]
    status, out, err = tools.run(*LOCAL, *words, CUDA_VISIBLE_DEVICES="4,5,6,7")
    assert status == 0, err
    assert out == "4,5 says a b\n"
    assert (tmp_path / "logs/process-1.log").read_text() == "6,7 says a b\n"
    calls = sorted(tools.calls("forget-jax"))
    assert all(c[1:3] == ["finetune", "a b"] for c in calls)
    places = [re.fullmatch(r"--distributed=127.0.0.1:(\d+),2,(\d)", c[3]).groups() for c in calls]
    assert places[0][0] == places[1][0] and [i for _, i in places] == ["0", "1"]

    status, _, err = tools.run(*LOCAL, *words, CUDA_VISIBLE_DEVICES="0,1,2")
    assert (status, err) == (2, "local.sh: 3 GPUs cannot be shared out evenly to 2 processes\n")


def test_local_brings_the_others_down(tools, tmp_path):
    """One that fails ends all: those that do not see it by themselves are told, then killed."""
    tools.does(
        "forget-jax",
        'case ${@: -1} in *,0) sleep 60 ;; *,1) echo "it is me"; exit 3 ;; '
        "*,2) trap '' TERM; sleep 60 & wait; sleep 60 ;; esac",
    )
    began = time.monotonic()
    words = ["--processes", "3", "--logs", tmp_path / "logs", "--", "finetune"]
    status, _, err = tools.run(*LOCAL, *words, CUDA_VISIBLE_DEVICES="", GRACE_SECONDS="0.3")
    assert status == 3 and "it is me" in err
    assert time.monotonic() - began < 20


def test_local_passes_signals_on_once(tools, tmp_path):
    tools.does(
        "forget-jax",
        "trap 'echo told; told=1' TERM; echo up; until [[ $told ]]; do sleep 0.1; done; exit 0",
    )
    words = ["--logs", tmp_path / "logs", "--", "finetune"]
    process = tools.start(*LOCAL, *words, CUDA_VISIBLE_DEVICES="")
    other = tmp_path / "logs/process-1.log"
    while not (other.exists() and other.read_text()):
        time.sleep(0.05)
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == "told\n" and other.read_text().count("told") == 1


def test_local_runs_real_processes(tools, tmp_path):
    """Two that join; when the second is killed in a computation, the first says so and ends."""
    worker = ROOT / "tests/cli/distributed_worker.py"
    words = ["--logs", tmp_path / "logs", "--", "finetune", f"--workdir={tmp_path / 'run'}"]
    program = tools.folder / "forget-jax"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {worker} "$MODE" "$@"\n')
    env = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    status, _, err = tools.run(*LOCAL, *words, **env, MODE="agree")
    assert status == 0 and "agreed" in err
    status, _, err = tools.run(*LOCAL, *words, **env, MODE="killed in a collective")
    assert status == 128 + signal.SIGKILL
    assert "forget-jax: process 0 of 2: lost another process" in err
