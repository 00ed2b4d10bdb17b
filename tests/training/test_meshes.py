"""The same training on any mesh, and on two processes, has the same losses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import free_port

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


def adapters(out: Path) -> list[np.ndarray]:
    with np.load(f"{out}.npz") as kept:
        return list(kept.values())


def difference(ours: Path, theirs: Path) -> float:
    """The relative Frobenius norm of the difference of all adapters."""
    pairs = list(zip(adapters(ours), adapters(theirs), strict=True))
    assert pairs
    return np.sqrt(
        sum(((x - y) ** 2).sum() for x, y in pairs) / sum((y**2).sum() for _, y in pairs)
    )


@pytest.mark.slow
def test_resumed_on_fewer_devices_and_fewer_processes(tmp_path):
    """A run dies after a checkpoint and goes on elsewhere, to the undisturbed run's adapters."""
    whole, where = tmp_path / "whole.json", f"127.0.0.1:{free_port()}"
    ended(whole, start(whole, 12, 8, "2,1,2,2"))
    starts = {
        "8 devices": [("2,1,2,2", 8, ())],
        "2 processes": [("2,1,2,2", 4, (f"--distributed={where},2,{i}",)) for i in range(2)],
    }
    for name, processes in starts.items():
        out, kept = tmp_path / "broken.json", f"--checkpoints={tmp_path / name}"
        broken = [
            start(out, 12, devices, kept, "--die-after=7", *extra, mesh)
            for mesh, devices, extra in processes
        ]
        for run in broken:
            _, err = run.communicate()
            assert run.returncode == 9, err[-3000:]
        resumed = tmp_path / "resumed.json"
        found = ended(resumed, start(resumed, 12, 4, kept, "1,2,2,1"))
        assert len(found["1,2,2,1"]["losses"]) == 5, name
        assert difference(resumed, whole) < 1e-5, name
