"""Scores are the same on every mesh of devices."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).parent / "scoring_mesh_worker.py"
MESHES = ("1", "1,8,1,1", "1,1,8,1", "1,1,1,8", "2,2,1,2")


def with_devices(count):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    return os.environ | {"XLA_FLAGS": flags}


@pytest.mark.parametrize("how", ["here", "gpu"])
def test_eight_devices_however_laid_out(tmp_path, how):
    out = tmp_path / "found.npz"
    argv = [sys.executable, str(WORKER), str(out), how, *MESHES]
    run = subprocess.run(argv, env=with_devices(8), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with np.load(out) as found:
        # Beside adapters that are mapped over, the base itself is computed as none of them.
        nothing = 0 if how == "here" else 1e-6
        assert found["1 kl"][1].min() > 1e-3 and np.abs(found["1 kl"][0]).max() <= nothing
        for what in ("bucketed", "packed", "kl"):
            whole = found[f"1 {what}"]
            assert np.isfinite(whole).all()
            for mesh in MESHES[1:]:
                np.testing.assert_allclose(found[f"{mesh} {what}"], whole, atol=2e-5, rtol=1e-6)
