"""quickstart, made tiny: the keys of the contract, the same figures after kills in all stages."""

import json
import time

import pytest

from forget_jax.commands.quickstart import STAGES
from tests.cli.conftest import MAIN

pytestmark = pytest.mark.slow

TINY = """
from forget_jax.configs import quickstart

def get_config():
    c = quickstart.get_config()
    c.pretrain.data.path = ("builtin:language_reference[:60]", "builtin:skills[:200]")
    c.pretrain.model.update(vocab_size=320, width=16, layers=2, heads=2, kv_heads=1, mlp_width=24)
    c.pretrain.model.context = 64
    for stage in (c.associate, c.replay, c.scaling):
        stage.data.context = 64
        stage.train.buckets = stage.score.buckets = 1
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
    c.factoids.mix = "builtin:random_words/3[:16]"
    c.factoids.epochs = 4
    c.factoids.arms = ("naive", "mix in A")
    c.factoids.max_new_tokens = 16
    c.factoids.train.save_every = 1
    return c
"""


@pytest.fixture(scope="module")
def start(forked, tmp_path_factory):
    """A function that starts it in a process of its own."""
    config = tmp_path_factory.mktemp("config") / "tiny.py"
    config.write_text(TINY)
    command = ("-c", MAIN, "quickstart", f"--config={config}")
    return lambda work, *more: forked.start(*command, f"--workdir={work}", *more)


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The workdir of one that nothing disturbed."""
    work = tmp_path_factory.mktemp("whole") / "run"
    ended(start(work))
    return work


def ended(process):
    """What it said, if its end was good."""
    _, err = process.communicate()
    assert process.returncode == 0, err
    return err


def test_a_kill_in_every_stage_changes_no_figure(start, whole, tmp_path, figures):
    broken = tmp_path / "broken"
    summary = json.loads((whole / "summary.json").read_text())
    for key in ("r2_rank", "methods", "replay", "laws", "factoids", "seconds"):
        assert summary[key], key
    assert set(STAGES) <= set(summary["seconds"])

    killed = []
    for stage in STAGES:
        process = start(broken)
        while process.poll() is None and not (broken / stage / "config.json").exists():
            time.sleep(0.02)
        time.sleep(0.8)  # into the stage: reading, compiling or training
        if process.poll() is None and not (broken / stage / "summary.json").exists():
            killed.append(stage)
        process.kill()
        process.communicate()
    assert len(killed) >= 4, f"only {killed} were still at work when killed"
    ended(start(broken))
    assert figures(broken) == figures(whole)
    for stage in STAGES:
        ours, theirs = (figures(w / stage) for w in (broken, whole))
        for one in (ours, theirs):
            one.pop("curves", None)
        assert ours == theirs, stage
    assert all(name in (broken / "report.html").read_text() for name in ("skill/", "seed"))


def test_a_base_that_is_given_is_not_trained(start, whole, tmp_path):
    """Of the shapes that were compiled already."""
    work = tmp_path / "run"
    said = ended(start(work, f"--config.base={whole / 'pretrain' / 'model'}"))
    assert "1 of 5: associate" in said and not (work / "pretrain").exists()
    summary = json.loads((work / "summary.json").read_text())
    assert summary["heldout_loss"] is None and summary["parameters"] > 0
    assert "pretrain" not in summary["seconds"]
    assert json.loads((work / "associate/config.json").read_text())
