"""A run killed again and again, whenever the clock says, ends with the undisturbed figures."""

import json
import subprocess
import sys

import numpy as np
import pytest

TIMES = {"seconds": 0, "tokens_per_second": 0}


@pytest.mark.slow
def test_killed_at_random_times(associate_arguments, finished, tmp_path):
    undisturbed = finished(associate_arguments)
    work = tmp_path / "run"
    argv = [sys.executable, "-m", "forget_jax", *associate_arguments, f"--workdir={work}"]
    kills = 0
    for patience in np.random.default_rng(0).uniform(2, 9, 12):
        run = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        try:
            _, err = run.communicate(timeout=float(patience))
        except subprocess.TimeoutExpired:
            run.kill()
            run.communicate()
            kills += 1
            continue
        assert run.returncode == 0, err
        break
    else:
        assert subprocess.run(argv).returncode == 0
    assert kills > 0
    ours, theirs = (json.loads((w / "summary.json").read_text()) for w in (work, undisturbed))
    assert ours | TIMES == theirs | TIMES
    for file in undisturbed.rglob("adapter_model.safetensors"):
        assert (work / file.relative_to(undisturbed)).read_bytes() == file.read_bytes()
