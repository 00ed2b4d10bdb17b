"""The same training on any mesh, and on two processes, has the same losses."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("mesh_worker.py")
MESHES = ("1,8,1,1", "1,1,8,1", "1,1,1,8", "4,2,1,1", "2,1,2,2")


def start(out: Path, steps: int, devices: int, *arguments: str) -> subprocess.Popen[str]:
    flags = f"--xla_force_host_platform_device_count={devices} {os.environ['XLA_FLAGS']}"
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(out), str(steps), *arguments],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": root},
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(out: Path, *runs: subprocess.Popen[str]) -> dict:
    for run in runs:
        _, err = run.communicate()
        assert run.returncode == 0, err[-3000:]
    return json.loads(out.read_text())


def worst(found: dict, wanted: dict) -> float:
    """The largest relative difference of a loss of any task at any step."""
    assert found["losses"] and len(found["losses"]) == len(wanted["losses"])
    pairs = zip(found["losses"], wanted["losses"], strict=True)
    return max(abs(ours[t] - theirs[t]) / theirs[t] for ours, theirs in pairs for t in theirs)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_a_mesh_of_three_axes(tmp_path):
    out = tmp_path / "out.json"
    found = ended(out, start(out, 5, 8, "1", "2,1,2,2"))
    assert worst(found["2,1,2,2"], found["1"]) < 1e-5
    moved = found["1"]["losses"]
    assert abs(moved[-1]["t0"] - moved[0]["t0"]) > 0.05  # it trains, so a fault would be seen


@pytest.mark.slow
def test_fifty_steps_on_every_mesh_and_on_two_processes(tmp_path):
    out = tmp_path / "out.json"
    found = ended(out, start(out, 50, 8, "1", *MESHES))
    for mesh in MESHES:
        assert worst(found[mesh], found["1"]) < 1e-5, mesh
    two, where = tmp_path / "two.json", f"127.0.0.1:{free_port()}"
    runs = [start(two, 50, 4, f"--distributed={where},2,{i}", "2,1,2,2") for i in range(2)]
    assert worst(ended(two, *runs)["2,1,2,2"], found["1"]) < 1e-5
