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


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """All figures, from one process."""
    out = tmp_path_factory.mktemp("mesh") / "found.npz"
    argv = [sys.executable, str(WORKER), str(out), *MESHES]
    run = subprocess.run(argv, env=with_devices(8), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with np.load(out) as figures:
        return dict(figures)


@pytest.mark.parametrize("how", ["here", "gpu"])
def test_eight_devices_however_laid_out(found, how):
    # Beside adapters that are mapped over, the base itself is computed as none of them.
    nothing = 0 if how == "here" else 1e-6
    base, adapter = found[f"{how} 1 kl"]
    assert adapter.min() > 1e-3 and np.abs(base).max() <= nothing
    for what in ("bucketed", "packed", "kl"):
        whole = found[f"{how} 1 {what}"]
        assert np.isfinite(whole).all()
        for mesh in MESHES[1:]:
            np.testing.assert_allclose(found[f"{how} {mesh} {what}"], whole, atol=2e-5, rtol=1e-6)
