"""Traces and TensorBoard events of a training."""

import importlib.util
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from forget_jax import distributed
from forget_jax.errors import UserError
from forget_jax.runs.tracing import Watch

QUIET = {"trace": 0, "trace_steps": 1, "tensorboard": False}


@pytest.fixture
def train(tiny_base, data_files, run_cli, tmp_path):
    """A function that fine-tunes for four steps, with more fields, in the test's folder."""

    def run(*fields):
        few = ("steps=4", "save_every=2", "batch_size=24", "buckets=1", "lr=0.05", "warmup=1")
        return run_cli(
            "finetune",
            f"--config.model.path={tiny_base}",
            f"--config.data.path={data_files.tasks[0]}",
            "--config.lora.rank=2",
            *[f"--config.train.{field}" for field in (*few, *fields)],
            f"--workdir={tmp_path}",
        )

    return run


def test_the_fields_of_a_training(train, tmp_path):
    events = importlib.util.find_spec("tensorboardX") is not None
    status, _, err = train("trace=2", "trace_steps=2", f"tensorboard={events}")
    assert status == 0, err
    assert [f for f in (tmp_path / "trace").rglob("*.xplane.pb") if f.stat().st_size > 1000]
    if not events:
        pytest.skip("the extra `tensorboard` is not installed")
    found = b"".join(f.read_bytes() for f in (tmp_path / "tensorboard" / "finetune").iterdir())
    assert found.count(b"loss/reverse") == 4 and b"tokens_per_second" in found


@pytest.fixture
def traced(monkeypatch):
    """The steps at which a trace was started and stopped."""
    found = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: found.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: found.append("stop"))
    return found


@pytest.mark.parametrize(
    ("trace", "trace_steps", "wanted"),
    [
        (3, 2, [1, "start", 2, 3, "stop", 4, 5, 6]),
        (1, 2, ["start", 1, "stop", 2, 3, 4, 5, 6]),
        (1, 1, ["start", 1, "stop", 2, 3, 4, 5, 6]),
        (0, 5, [1, 2, 3, 4, 5, 6]),
        (5, 9, [1, 2, 3, "start", 4, 5, 6, "stop"]),
        (9, 1, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_which_steps_are_traced(traced, tmp_path, trace, trace_steps, wanted):
    """Step A is under way when the record of step A-1 comes."""
    watch = Watch(tmp_path, "s", trace=trace, trace_steps=trace_steps, tensorboard=False)
    with watch:
        for step in range(1, 7):
            watch({"step": step})
            traced.append(step)
    assert traced == wanted


@pytest.mark.parametrize(("steps", "said"), [(6, "traced nothing"), (9, ""), (0, "")])
def test_a_trace_that_never_began_is_said(traced, tmp_path, capsys, steps, said):
    with Watch(tmp_path, "s", trace=9, trace_steps=2, tensorboard=False) as watch:
        for step in range(1, steps + 1):
            watch({"step": step})
    err = capsys.readouterr().err
    assert said in err and bool(said) == bool(err)


def test_a_failed_training_leaves_no_trace_running(tmp_path):
    watch = Watch(tmp_path, "s", trace=2, trace_steps=9, tensorboard=False)
    with pytest.raises(RuntimeError, match="inside"), watch:
        watch({"step": 1})
        jnp.ones(3).block_until_ready()
        raise RuntimeError("inside")
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    jax.profiler.start_trace(tmp_path / "another")
    jax.profiler.stop_trace()


def test_tensorboard_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install '\.\[tensorboard\]'"):
        Watch(tmp_path, "s", trace=0, trace_steps=1, tensorboard=True)
    monkeypatch.setattr(distributed, "index", lambda: 1)  # which writes no events
    Watch(tmp_path, "s", trace=0, trace_steps=1, tensorboard=True)


class Service:
    """What wandb.init gives."""

    def __init__(self, **said):
        self.said, self.logged, self.ended = said, [], None

    def log(self, scalars, step):
        self.logged.append((step, scalars))

    def finish(self, exit_code):
        self.ended = exit_code


RECORD = {"tokens": 6, "seconds": 2.0, "loss": {"a": 1.5}, "grad_norm": {"a": 0.5}}


def test_runs_of_wandb(tmp_path, monkeypatch):
    begun = []
    service = types.SimpleNamespace(init=lambda **said: begun.append(Service(**said)) or begun[-1])
    monkeypatch.setitem(sys.modules, "wandb", service)
    for steps in ((1, 2), (3,)):  # a second start goes on with the same run
        with Watch(tmp_path, "s/0", **QUIET, wandb="mine") as watch:
            for step in steps:
                watch({"step": step, **RECORD})
    first, second = begun
    assert first.said == second.said and first.said["project"] == "mine"
    assert first.said["group"] == tmp_path.name and first.said["resume"] == "allow"
    wanted = {"tokens_per_second": 3.0, "loss/a": 1.5, "grad_norm/a": 0.5}
    assert first.logged == [(1, wanted), (2, wanted)] and second.logged == [(3, wanted)]
    assert first.ended == 0
    with pytest.raises(RuntimeError), Watch(tmp_path, "s", **QUIET, wandb="mine"):
        raise RuntimeError
    assert begun[-1].ended == 1 and begun[-1].said["id"] != first.said["id"]
    with Watch(tmp_path, "s", **QUIET):  # nothing is sent unless asked
        pass
    assert len(begun) == 3


def test_wandb_that_cannot_be(tmp_path, monkeypatch):
    def refuses(**said):
        raise OSError("no\nnetwork")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=refuses))
    with pytest.raises(UserError, match="W&B takes no run of mine: no network"):
        Watch(tmp_path, "s", **QUIET, wandb="mine")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        Watch(tmp_path, "s", **QUIET, wandb="mine")
    monkeypatch.setattr(distributed, "index", lambda: 1)
    Watch(tmp_path, "s", **QUIET, wandb="mine")
