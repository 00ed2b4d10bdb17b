"""Traces and TensorBoard events of a training."""

import pytest


def test_a_trace_of_some_steps(finetune_arguments, run_cli, tmp_path):
    work = tmp_path / "run"
    trace = ["--config.train.trace=2", "--config.train.trace_steps=2"]
    status, _, err = run_cli(*finetune_arguments, *trace, f"--workdir={work}")
    assert status == 0, err
    assert [f for f in (work / "trace").rglob("*.xplane.pb") if f.stat().st_size > 1000]


def test_tensorboard_events(finetune_arguments, run_cli, tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    work = tmp_path / "run"
    status, _, err = run_cli(
        *finetune_arguments, "--config.train.tensorboard=true", f"--workdir={work}"
    )
    assert status == 0, err
    events = b"".join(f.read_bytes() for f in (work / "tensorboard" / "finetune").iterdir())
    assert events.count(b"loss/reverse") == 4 and b"tokens_per_second" in events


def test_tensorboard_without_its_package(finetune_arguments, run_cli, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    status, _, err = run_cli(
        *finetune_arguments, "--config.train.tensorboard=true", f"--workdir={tmp_path}"
    )
    assert status == 2 and "pip install '.[tensorboard]'" in err
