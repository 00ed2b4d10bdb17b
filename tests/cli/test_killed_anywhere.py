"""A run killed again and again, whenever the clock says, ends with the undisturbed adapters.

KILLS=20 kills more often than CI does.
"""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.cli.conftest import MAIN

KILLS = int(os.environ.get("KILLS", "3"))


@pytest.fixture(scope="session")
def long_arguments(associate_arguments):
    """200 steps of four tasks together, one of which ends early, saved every 20 steps."""
    own = (
        "train.steps=200",
        "train.save_every=20",
        "train.by_task=shout.steps=90",
        "train.lr=0.003",
        "tasks_together=4",
    )
    return [*associate_arguments, *[f"--config.{field}" for field in own]]


def saved(work):
    """The newest complete checkpoint."""
    steps = (work / "checkpoints").glob("*/*")
    return max((int(s.name) for s in steps if s.name.isdigit()), default=0)


@pytest.mark.slow
def test_killed_at_random_times(long_arguments, finished, forked, tmp_path, figures):
    """Each kill comes at a random moment of training; most of them after a checkpoint."""
    undisturbed = finished(long_arguments)
    draw = np.random.default_rng(0)
    work = tmp_path / "run"
    argv = ["-c", MAIN, *long_arguments, f"--workdir={work}"]
    before = []
    for number in range(KILLS):
        # waits for a step drawn over the whole run (or a checkpoint beyond it), then a moment
        target = (number + 0.5) * 200 / KILLS
        run = forked.start(*argv)
        while saved(work) < target - 20 and run.poll() is None:
            time.sleep(0.02)
        time.sleep(float(draw.uniform(0, 1.5)))
        run.kill()
        _, err = run.communicate()
        assert run.returncode < 0, f"it ended before kill {number}: {err[-500:]}"
        before.append(saved(work))
    done = subprocess.run([sys.executable, *argv], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    print(f"{KILLS} kills; newest checkpoint at each: {before}")
    assert sum(step > 0 for step in before) >= KILLS // 2
    assert figures(work) == figures(undisturbed)
    files = list(undisturbed.rglob("adapter_model.safetensors"))
    assert len(files) == 4
    for file in files:
        assert (work / file.relative_to(undisturbed)).read_bytes() == file.read_bytes()
