"""A byte of a run's file changed, a file cut short, emptied or gone: the same figures, or a line.

Runs that have ended and runs that were cut off in the middle are damaged and started again; a run
that reads another's results meets damaged ones. Nothing may end in a traceback, and no figure may
change without a word.

CI tries few; FLIPS=60 makes 660 of the eleven commands, and SEED=7 others.
"""

import contextlib
import gc
import io
import json
import os
import random
import shutil
import sys
import warnings

import pandas as pd
import pytest
import xarray as xr

from forget_jax import cli, files
from forget_jax.scoring import disk
from forget_jax.training.checkpoints import Checkpoints

pytestmark = pytest.mark.slow

FLIPS = int(os.environ.get("FLIPS", "24"))  # of each command
SEED = int(os.environ.get("SEED", "1"))
DAMAGES = ("flip",) * 7 + ("truncate", "empty", "remove")
TRAIN = {"train.steps": 4, "train.save_every": 2, "train.batch_size": 4, "train.buckets": 1}
SKILLS = [f"builtin:skill/{name}[:12]" for name in ("addition", "reversal", "sorting", "parity")]
TEXTS = "builtin:skills[:24]"


class Cut(BaseException):
    """Ends a command as a kill would, but for what it has begun to write."""


def say(arguments, work):
    """A command in this process: its status, and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        status = cli.main([*arguments, f"--workdir={work}"])
    return status, said.getvalue()


@contextlib.contextmanager
def cut_at(number):
    """Counts what a command writes, and cuts it off before the write of this number."""
    counted, made = [0], []

    def counting(write):
        def count(*args, **kwargs):
            counted[0] += 1
            if counted[0] == number:
                raise Cut
            return write(*args, **kwargs)

        return count

    def save(self, *args):
        kept(self, *args)
        made.append(self)
        self.wait()

    kept = Checkpoints.save
    with pytest.MonkeyPatch.context() as patched:
        for owner, name in ((files, "write_bytes"), (files, "append_bytes"), (disk, "write")):
            patched.setattr(owner, name, counting(getattr(owner, name)))
        patched.setattr(Checkpoints, "save", save)
        yield counted
    for checkpoints in made:
        checkpoints.close()


BASE = {
    "data.path": "builtin:skills[:60]",
    "model.vocab_size": 320,
    "model.width": 16,
    "model.layers": 2,
    "model.heads": 2,
    "model.kv_heads": 1,
    "model.mlp_width": 24,
    "model.context": 64,
}
TUNE = {**TRAIN, "lora.rank": 2, "train.lr": 0.05}
SCORE = {"score.buckets": 1, "score.chunk": 8}
FACTS = {
    "stage_a": "builtin:short_facts[:6]",
    "stage_b": "builtin:short_facts/B[:6]",
    "mix": "builtin:random_words/3[:12]",
    "arms": "naive,mix in A",
    "epochs": 2,
    "max_new_tokens": 16,
}
GRID = {"task": SKILLS[0], "upstream": TEXTS, "ranks": "1,2", "steps": "2,3,4"}
LAWS = {"laws": "constant,linear", "data.context": 64, "score.buckets": 1}
TASKS = {"tasks": ",".join(SKILLS), "upstream": TEXTS, "data.context": 64, "tasks_together": 4}
REPLAY = {
    "tasks": SKILLS[0],
    "replay.ratio": 0.125,
    "replay.observed": 6,
    "replay.method": "additive",
}
PREDICT = {"observed": 6, "seeds": 2, "split.test_tasks": "0", "methods": "additive,column_mean"}

# The fields of each command, and what it reads of another's run.
COMMANDS = {
    "pretrain": {**TRAIN, **BASE},
    "finetune": {**TUNE, "data.path": SKILLS[0], "model.path": "pretrain/model"},
    "score": {
        **SCORE,
        "data.path": TEXTS,
        "model.path": "pretrain/model",
        "adapters": "finetune/adapter",
    },
    "check": {
        **SCORE,
        "sets": TEXTS,
        "limits": 99,
        "model.path": "pretrain/model",
        "adapters": "finetune/adapter",
    },
    "associate": {**TUNE, **SCORE, **TASKS, "repeat_tasks": 1, "model.path": "pretrain/model"},
    "replay": {
        **TUNE,
        **SCORE,
        **TASKS,
        **REPLAY,
        "model.path": "pretrain/model",
        "matrix.path": "associate/forgetting.zarr",
    },
    "scaling": {**TRAIN, "train.steps": None, **GRID, **LAWS, "model.path": "pretrain/model"},
    "factoids": {**TRAIN, "train.steps": None, **FACTS, "model.path": "pretrain/model"},
    "predict": {**PREDICT, "matrix.path": "associate/forgetting.zarr"},
    "probes": {"observed": 6, "seeds": 2, "matrix.path": "associate/forgetting.zarr"},
    "export": {"source": "finetune"},
}
READS = ("model.path", "adapters", "matrix.path", "source")


class World:
    """Runs of every command, made once each, that have ended or were cut off."""

    def __init__(self, folder, figures):
        self.folder, self.figures = folder, figures
        self.ended = {}  # results by command
        self.states = {}  # copies of its folder by command: at cuts, and at its end

    def arguments(self, command):
        given = {k: v for k, v in COMMANDS[command].items() if v is not None}
        for key in READS:
            if key in given:
                given[key] = self.whole(given[key].split("/")[0]) and self.folder / given[key]
        return [command, *(f"--config.{key}={value}" for key, value in given.items())]

    def whole(self, command):
        """Has the command's run in its folder."""
        if command not in self.ended:
            self._make(command, self.arguments(command))
        return True

    def _make(self, command, arguments):
        work = self.folder / command
        with cut_at(0) as counted:
            status, said = say(arguments, work)
        assert status == 0, said
        self.ended[command] = self.results(work)
        self.states[command] = []
        self._keep(command)
        for cut in sorted({max(2, counted[0] * k // 4) for k in (1, 2, 3)}):
            shutil.rmtree(work)
            with cut_at(cut), contextlib.suppress(Cut):
                say(arguments, work)
            self._keep(command)
        self.restore(command, 0)

    def _keep(self, command):
        copy = self.folder / "kept" / command / str(len(self.states[command]))
        shutil.copytree(self.folder / command, copy)
        self.states[command].append(copy)

    def restore(self, command, number):
        shutil.rmtree(self.folder / command, ignore_errors=True)
        shutil.copytree(self.states[command][number], self.folder / command)

    def results(self, work):
        """What a run found, without what clock and machine decide."""
        found = {"summary": self.figures(work)}
        for file in sorted(work.rglob("*")):
            name = str(file.relative_to(work))
            if file.name in ("points.csv", "model.safetensors", "adapter_model.safetensors"):
                found[name] = file.read_bytes()
            elif file.name == "scores.parquet":
                found[name] = pd.read_parquet(file).to_dict("list")
            elif file.name == "forgetting.zarr":
                found[name] = xr.open_zarr(file, consolidated=False).load().to_dict()
            elif file.name == "metrics.jsonl":
                records = map(json.loads, file.read_text().splitlines())
                timed = [{k: v for k, v in r.items() if k != "seconds"} for r in records]
                found[name] = sorted(timed, key=json.dumps)
        found.setdefault("metrics.jsonl", [])  # an empty one that is gone is no loss
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory, figures):
    return World(tmp_path_factory.mktemp("world"), figures)


@pytest.fixture(autouse=True)
def reads_that_fail():
    """Where a read fails, tensorstore calls back into an event loop that is closed by then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown, sys.unraisablehook = sys.unraisablehook, lambda *args: None
        yield
        gc.collect()
        sys.unraisablehook = shown


def damage(folder, draw, inside=lambda name: True):
    """Damages one file of a folder; says what it did."""
    names = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
    name, how = draw.choice([n for n in names if inside(n)]), draw.choice(DAMAGES)
    file = folder / name
    data = bytearray(file.read_bytes())
    if how == "remove":
        file.unlink()
    elif how == "empty" or not data:
        file.write_bytes(b"")
    elif how == "truncate":
        file.write_bytes(data[: draw.randrange(len(data))])
    else:
        at, bit = draw.randrange(len(data)), draw.randrange(8)
        data[at] ^= 1 << bit
        file.write_bytes(data)
        how = f"bit {bit} of byte {at} of"
    return f"{how} {name}"


def wrong(status, said):
    """What is wrong with how a command ended, if anything."""
    if "Traceback" in said or status not in (0, 2):
        return f"status {status}: {said[-600:]}"
    if status == 2 and said.count("forget-jax: ") != 1:
        return f"no single line: {said}"
    return ""


def same(one, other):
    one, other = (json.dumps(x, default=repr, sort_keys=True) for x in (one, other))
    return one == other


@pytest.mark.fault("a byte of a file of a run", "as it should be")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_that_is_started_again(world, command, tried):
    world.whole(command)
    arguments, work = world.arguments(command), world.folder / command
    draw, flaws, right = random.Random(f"{SEED} {command}"), [], 0
    for number in range(FLIPS):
        state = draw.randrange(len(world.states[command]))
        world.restore(command, state)
        what = damage(work, draw)
        at = f"seed {SEED}, {number}: {what} of state {state}"
        status, said = say(arguments, work)
        flaw = wrong(status, said)
        if not flaw and status == 0:
            found = world.results(work)
            flaw = "" if same(found, world.ended[command]) else f"other results: {said[-1500:]}"
            right += not flaw
            if not state:  # it had ended, and read no more than says so
                flaw = flaw or wrong(*say(["report"], work))
        if flaw:
            flaws.append(f"{at}: {flaw}")
    world.restore(command, 0)
    assert not flaws, f"{len(flaws)} of {FLIPS}:\n" + "\n".join(flaws)
    assert right > FLIPS // 2
    tried(right)


@pytest.mark.fault("a byte of a file that another run reads", "one line")
@pytest.mark.parametrize(
    ("command", "part", "reader"),
    [
        ("pretrain", "model", "score"),
        ("finetune", "adapter", "export"),
        ("finetune", "adapter", "score"),
        ("associate", "forgetting.zarr", "predict"),
    ],
)
def test_a_run_that_reads_it(world, command, part, reader, tried, tmp_path):
    world.whole(reader)
    arguments, work = world.arguments(reader), world.folder / command
    draw, flaws, lines = random.Random(f"{SEED} {command} {reader}"), [], 0
    for number in range(FLIPS // 4):
        world.restore(command, 0)
        what = damage(work, draw, lambda name: name.startswith(part))
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        status, said = say(arguments, tmp_path / "run")
        flaw = wrong(status, said)
        if not flaw and status == 0:
            right = same(world.results(tmp_path / "run"), world.ended[reader])
            flaw = "" if right else f"other results: {said[-1500:]}"
        lines += status == 2
        if flaw:
            flaws.append(f"seed {SEED}, {number}: {what}: {flaw}")
    world.restore(command, 0)
    assert not flaws, f"{len(flaws)} of {FLIPS // 4}:\n" + "\n".join(flaws)
    assert lines > FLIPS // 8
    tried(lines)
