"""Two real processes on loopback share a run's folder, and no read comes before its write."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import free_port

WORKER = Path(__file__).with_name("two_processes_worker.py")


def test_two_processes_in_one_folder(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), address, str(i), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        for i in range(2)
    ]
    said = []
    try:
        for process in processes:
            said.append(process.communicate(timeout=120))
    finally:
        for process in processes:
            process.kill()
    assert all("all agreed" in out for out, _ in said), said
    # The last start differs between them: it is refused before anything is written.
    assert "UserError: train.lr is 0.1 in process 0, 1.1 here" in said[1][0]
    assert not (tmp_path / "new").exists()
