"""Scoring killed again and again ends with the undisturbed table, no finished chunk scored twice.

EXAMPLES=50000 KILLS=10 scores and kills more than CI does.
"""

import json
import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from forget_jax.lm import lora
from forget_jax.lm.hf import checkpoint, peft
from forget_jax.lm.model import Adapters
from tests.cli.conftest import MAIN
from tests.conftest import sentences

EXAMPLES = int(os.environ.get("EXAMPLES", "120"))
KILLS = int(os.environ.get("KILLS", "3"))
ADAPTERS = 8
CHUNK = 512 if EXAMPLES > 5000 else 8


@pytest.fixture
def arguments(score_arguments, tiny_base, tmp_path):
    model = checkpoint.load(tiny_base)
    setting = lora.LoRAConfig(rank=2)
    paths = [str(tmp_path / f"a{k}") for k in range(ADAPTERS)]
    for k, path in enumerate(paths):
        fresh = lora.init(setting, model.params, jax.random.key(k))
        one = Adapters(setting, jax.tree.map(lambda x: x + 0.1, fresh))
        peft.save(path, one, model.config, str(tiny_base))
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps({"text": t}) + "\n" for t in sentences(EXAMPLES, 7)))
    fields = {"data.path": file, "adapters": ",".join(paths), "score.chunk": CHUNK}
    return [*score_arguments, *(f"--config.{name}={value}" for name, value in fields.items())]


def chunks(work):
    """The finished chunks, by model and number, and when each was written."""
    folder = work / "scores.zarr" / "tokens" / "c"
    return {f: f.stat().st_mtime_ns for f in folder.glob("*/*") if f.name.isdigit()}


@pytest.mark.slow
def test_killed_at_random_moments(arguments, forked, zarr_bytes, tmp_path):
    """SIGKILL in loading, compiling, scoring and writing: the same bytes."""
    argv = ["-c", MAIN, *arguments]
    whole, work = tmp_path / "whole", tmp_path / "run"
    done = forked.run(*argv, f"--workdir={whole}")
    assert done.returncode == 0, done.stderr
    total = len(chunks(whole))
    assert total == (1 + ADAPTERS) * -(-EXAMPLES // CHUNK)
    draw = np.random.default_rng(1)
    before: dict = {}
    for number in range(KILLS):
        # waits for a share of the chunks, then a moment
        run = forked.start(*argv, f"--workdir={work}")
        while len(chunks(work)) < total * number // KILLS and run.poll() is None:
            time.sleep(0.005)
        time.sleep(float(draw.uniform(0, 0.3)))
        run.kill()
        _, err = run.communicate()
        assert run.returncode < 0, f"it ended before kill {number}: {err[-500:]}"
        found = chunks(work)
        assert {f: found[f] for f in before} == before, "a finished chunk was written again"
        print(f"killed with {len(found)} of {total} chunks done")
        before = found
    last = [sys.executable, *argv, f"--workdir={work}"]
    done = subprocess.run(last, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    found = chunks(work)
    assert {f: found[f] for f in before} == before and len(before) > 0
    assert zarr_bytes(work) == zarr_bytes(whole)
