"""quickstart, made tiny: the keys of the contract, the same figures after kills in all stages."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from forget_jax.commands.quickstart import STAGES

pytestmark = pytest.mark.slow

TINY = """
from forget_jax.configs import quickstart

def get_config():
    c = quickstart.get_config()
    c.pretrain.data.path = ("builtin:language_reference[:60]", "builtin:skills[:200]")
    c.pretrain.model.update(vocab_size=400, width=32, layers=2, heads=2, kv_heads=2, mlp_width=64)
    c.pretrain.train.steps = 12
    c.pretrain.train.save_every = 4
    c.associate.tasks = c.associate.tasks[4:8]
    c.associate.upstream = ("builtin:language_reference[:30]", "builtin:skills[:30]")
    c.associate.train.steps = 6
    c.associate.train.save_every = 2
    c.associate.score.chunk = 16
    c.associate.repeat_tasks = 1
    c.predict.split.test_tasks = ("3",)
    c.predict.observed = 8
    c.predict.seeds = 2
    c.predict.methods = ("additive", "column_mean")
    c.replay.tasks = c.associate.tasks[:2]
    c.replay.upstream = c.associate.upstream
    c.replay.train.steps = 6
    c.replay.train.save_every = 2
    c.replay.replay.observed = 8
    c.replay.replay.method = "additive"
    c.scaling.ranks = (1, 2)
    c.scaling.steps = (2, 4, 6)
    c.scaling.train.save_every = 1
    c.scaling.laws = ("linear", "constant")
    c.scaling.upstream = ("builtin:skills[:16]",)
    c.factoids.stage_a = "builtin:short_facts[:8]"
    c.factoids.stage_b = "builtin:short_facts/B[:8]"
    c.factoids.mix = "builtin:random_words/3[:8]"
    c.factoids.epochs = 4
    c.factoids.train.save_every = 1
    return c
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    config = tmp_path_factory.mktemp("config") / "tiny.py"
    config.write_text(TINY)
    return [sys.executable, "-m", "forget_jax", "quickstart", f"--config={config}"]


def test_a_kill_in_every_stage_changes_no_figure(command, tmp_path, figures):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = subprocess.run([*command, f"--workdir={whole}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads((whole / "summary.json").read_text())
    for key in ("r2_rank", "methods", "replay", "laws", "factoids", "seconds"):
        assert summary[key], key
    assert set(STAGES) <= set(summary["seconds"])

    killed = []
    for stage in STAGES:
        process = subprocess.Popen(
            [*command, f"--workdir={broken}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not (broken / stage / "config.json").exists():
            time.sleep(0.02)
        time.sleep(1.5)  # into the stage: reading, compiling or training
        if process.poll() is None and not (broken / stage / "summary.json").exists():
            os.kill(process.pid, signal.SIGKILL)
            killed.append(stage)
        else:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert len(killed) >= 4, f"only {killed} were still at work when killed"
    done = subprocess.run([*command, f"--workdir={broken}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert figures(broken) == figures(whole)
    for stage in STAGES:
        ours, theirs = (figures(w / stage) for w in (broken, whole))
        for one in (ours, theirs):
            one.pop("curves", None)
        assert ours == theirs, stage
    assert all(name in (broken / "report.html").read_text() for name in ("skill/", "seed"))


def test_a_base_that_is_given_is_not_trained(command, tiny_base, tmp_path):
    work = tmp_path / "run"
    base = [f"--config.base={tiny_base}", "--config.scaling.data.context=64"]
    base += [f"--config.{stage}.data.context=64" for stage in ("associate", "replay")]
    done = subprocess.run(
        [*command, *base, f"--workdir={work}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 5: associate" in done.stderr and not (work / "pretrain").exists()
    summary = json.loads((work / "summary.json").read_text())
    assert summary["heldout_loss"] is None and summary["parameters"] > 0
    assert "pretrain" not in summary["seconds"]
    assert json.loads((work / "associate/config.json").read_text())
