"""The way of the data on files made here, and its survival of kill -9 at bad moments."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from forget_jax.runs import workdir as workdirs


def summary(work):
    return json.loads((work / "summary.json").read_text())


def adapter_files(work):
    return {f.relative_to(work): f.read_bytes() for f in work.rglob("*.safetensors") if f.is_file()}


def test_pretrain_writes_a_checkpoint_and_figures(tiny_run):
    found = summary(tiny_run)
    assert found["command"] == "pretrain" and found["steps"] == 8
    assert {"loss_first", "loss_last", "heldout_loss", "unigram_loss"} <= set(found)
    assert found["loss_last"] < found["loss_first"]
    assert found["loss_first"] == pytest.approx(np.log(320), abs=0.3)  # nothing is known yet
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        f.name for f in (tiny_run / "model").iterdir()
    }


def test_config_and_metrics_are_written(tiny_run):
    config = json.loads((tiny_run / "config.json").read_text())
    assert config["command"] == "pretrain" and config["train"]["steps"] == 8
    lines = [json.loads(x) for x in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in lines] == list(range(1, 9))
    assert all(r["stage"] == "pretrain" and r["tokens"] > 0 for r in lines)


def test_finetune_writes_an_adapter(finished, finetune_arguments):
    work = finished(finetune_arguments)
    found = summary(work)
    assert {"loss_first", "loss_last", "tokens_per_second", "steps"} <= set(found)
    assert found["steps"] == 4 and found["loss_last"] < found["loss_first"]
    assert {f.name for f in (work / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "base_fingerprint.json",
    }


def test_rank_zero_trains_and_writes_the_whole_model(finished, finetune_arguments):
    full = [a for a in finetune_arguments if "lora.rank" not in a] + ["--config.lora.rank=0"]
    work = finished(full)
    assert (work / "model" / "model.safetensors").exists() and not (work / "adapter").exists()
    assert summary(work)["trained_parameters"] == 9040


def test_score_tables_every_model_and_example(
    finished, finetune_arguments, score_arguments, tiny_base, tmp_path
):
    adapter = finished(finetune_arguments) / "adapter"
    work = finished([*score_arguments, f"--config.adapters={adapter}"])
    found = summary(work)
    assert found["examples"] == 20
    table = pd.read_parquet(work / "scores.parquet")
    assert list(table.columns) == ["model", "example", "nll_sum", "tokens"]
    assert len(table) == 40 and set(table["model"]) == {"base", str(adapter)}
    base = table[table["model"] == "base"]
    assert base["tokens"].sum() == found["tokens"] and base["example"].nunique() == 20
    assert base["nll_sum"].sum() / base["tokens"].sum() == pytest.approx(found["nll_mean"])
    tuned = table[table["model"] == str(adapter)]
    assert np.abs(base["nll_sum"].values - tuned["nll_sum"].values).max() > 1e-3
    assert str(adapter) in (work / "report.html").read_text()


@pytest.fixture
def associated(finished, associate_arguments):
    return finished(associate_arguments)


def test_associate_gives_a_matrix(associated):
    found = summary(associated)
    assert found["tasks"] == 3 and found["examples"] == 20 and found["missing"] == 0
    assert {"r2_rank", "r2_additive", "seconds", "test_retest"} <= set(found)
    assert len(found["r2_rank"]) == 3 and found["r2_rank"][-1] == pytest.approx(1)
    with xr.open_zarr(associated / "forgetting.zarr", consolidated=False) as z:
        assert z.forgetting.dims == ("task", "example")
        assert z.task.values.tolist() == ["reverse", "shout", "count"]
        assert z.example.values[0].startswith("upstream#")
        assert np.isfinite(z.forgetting).all() and float(np.abs(z.forgetting).max()) > 1e-3
        assert float(z.forgetting.mean()) == pytest.approx(found["mean_z"])
    with xr.open_zarr(associated / "scores.zarr", consolidated=False) as scores:
        assert scores.sizes == {"model": 5, "example": 20} and (scores.tokens > 0).all()
    assert 0.1 < found["useful_fraction"] <= 1


def test_the_page_names_tasks_and_examples(associated):
    page = (associated / "report.html").read_text()
    for name in ("reverse", "shout", "count", "upstream#3"):
        assert name in page
    assert "http://" not in page.replace("http://www.w3.org", "") and 'src="http' not in page


def test_forgetting_is_after_minus_base(associated, finished, score_arguments):
    """The matrix is what `score` measures with the same adapter."""
    adapter = associated / "adapters" / "shout"
    table = pd.read_parquet(
        finished([*score_arguments, "--config.data.context=64", f"--config.adapters={adapter}"])
        / "scores.parquet"
    )
    nll = {name: part.set_index("example") for name, part in table.groupby("model")}
    z = (nll[str(adapter)].nll_sum - nll["base"].nll_sum) / nll["base"].tokens
    with xr.open_zarr(associated / "forgetting.zarr", consolidated=False) as found:
        row = found.forgetting.sel(task="shout")
        np.testing.assert_allclose(row, z[row.example.values], atol=1e-5)


def test_a_second_start_ends_at_once(associated, associate_arguments, run_cli, monkeypatch):
    from forget_jax.lm.hf import checkpoint

    before = {f: f.read_bytes() for f in associated.rglob("*") if f.is_file()}
    monkeypatch.setattr(checkpoint, "load", None)  # nothing is loaded, so nothing can be trained
    status, _, err = run_cli(*associate_arguments, f"--workdir={associated}")
    assert status == 0 and "has ended already" in err
    assert before == {f: f.read_bytes() for f in associated.rglob("*") if f.is_file()}


def test_report_rebuilds_the_page(associated, run_cli):
    page = associated / "report.html"
    before = page.read_text()
    page.unlink()
    status, _, err = run_cli("report", f"--workdir={associated}")
    assert status == 0 and "report.html" in err
    assert "upstream#3" in page.read_text() and len(page.read_text()) == len(before)


KILL = """
import os, signal, sys
import zarr
from forget_jax import cli, files
from forget_jax.runs import workdir

moment, argv = sys.argv[1], sys.argv[2:]
calls = 0

def die_at(owner, name, when):
    whole = getattr(owner, name)
    def patched(*args, **kwargs):
        if when(*args):
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*args, **kwargs)
    setattr(owner, name, patched)

def fourth_call(*args):
    global calls
    calls += 1
    return calls == 4

if moment == "training":
    die_at(workdir.Metrics, "add", lambda self, stage, record: record["step"] == 4)
elif moment == "adapters":  # the second adapter's tensors are there, its config is not
    die_at(files, "write_text", lambda path, text: str(path).endswith("shout/adapter_config.json"))
elif moment == "scores":  # the second chunk's NLLs are there, its counts are not
    die_at(zarr.Array, "__setitem__", fourth_call)
sys.exit(cli.main(argv))
"""


@pytest.fixture
def killed(forked):
    def run(moment, arguments, work):
        done = forked.run("-c", KILL, moment, *arguments, f"--workdir={work}")
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (work / "summary.json").exists()

    return run


@pytest.fixture
def assert_same(figures):
    def check(work, undisturbed):
        assert figures(work) == figures(undisturbed)
        assert adapter_files(work) == adapter_files(undisturbed)

    return check


def test_pretrain_killed_in_training(
    tiny_run, killed, assert_same, pretrain_arguments, tmp_path, run_cli
):
    work = tmp_path / "run"
    killed("training", pretrain_arguments, work)
    status, _, err = run_cli(*pretrain_arguments, f"--workdir={work}")
    assert status == 0, err
    assert_same(work, tiny_run)


@pytest.mark.parametrize("moment", ["training", "adapters", "scores"])
def test_associate_killed(
    moment, killed, assert_same, associated, associate_arguments, tmp_path, run_cli
):
    work = tmp_path / "run"
    killed(moment, associate_arguments, work)
    status, _, err = run_cli(*associate_arguments, f"--workdir={work}")
    assert status == 0, err
    assert_same(work, associated)
    for name in ("forgetting.zarr", "scores.zarr"):
        ours, theirs = (xr.open_zarr(w / name, consolidated=False) for w in (work, associated))
        xr.testing.assert_identical(ours.load(), theirs.load())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_saves_and_resumes(
    assert_same, number, finished, finetune_arguments, tmp_path, run_cli, monkeypatch
):
    undisturbed = finished(finetune_arguments)
    add = workdirs.Metrics.add

    def interrupt(self, stage, record):
        add(self, stage, record)
        if record["step"] == 1:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(workdirs.Metrics, "add", interrupt)
    work = tmp_path / "run"
    status, _, err = run_cli(*finetune_arguments, f"--workdir={work}")
    assert status == 130 and "start the same command again to resume" in err.splitlines()[-1]
    assert "Traceback" not in err and not (work / "summary.json").exists()
    monkeypatch.undo()
    assert run_cli(*finetune_arguments, f"--workdir={work}")[0] == 0
    assert_same(work, undisturbed)
    assert [json.loads(x)["step"] for x in (work / "metrics.jsonl").read_text().splitlines()] == [
        1, 2, 3, 4,
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_outside_training_resumes_too(
    assert_same, number, associated, associate_arguments, tmp_path, run_cli, monkeypatch
):
    from forget_jax.scoring import disk

    write = disk.write

    def interrupt(*args):
        write(*args)
        monkeypatch.setattr(disk, "write", write)  # a second signal would end this process at once
        os.kill(os.getpid(), number)

    monkeypatch.setattr(disk, "write", interrupt)
    before = signal.getsignal(number)
    if number == signal.SIGTERM:  # the default would end this process: the command must replace it
        signal.signal(number, lambda *args: pytest.fail("SIGTERM was not taken over"))
    work = tmp_path / "run"
    try:
        status, _, err = run_cli(*associate_arguments, f"--workdir={work}")
    finally:
        signal.signal(number, before)
    assert status == 130 and "Traceback" not in err
    monkeypatch.undo()
    assert run_cli(*associate_arguments, f"--workdir={work}")[0] == 0
    assert_same(work, associated)


def test_pretraining_on_conversations_and_a_tokenizer_left_half_written(
    pretrain_arguments, tmp_path, run_cli
):
    talk = [{"role": "user", "content": "a river"}, {"role": "assistant", "content": "zzyzx zzyzx"}]
    rows = tmp_path / "talk.jsonl"
    rows.write_text("".join(json.dumps({"messages": talk}) + "\n" for _ in range(30)))
    work = tmp_path / "run"
    (work / "tokenizer").mkdir(parents=True)
    (work / "tokenizer" / "tokenizer.json").write_text("{}")  # killed before its config was there
    argv = [*pretrain_arguments, f"--config.data.path={rows}", f"--workdir={work}"]
    status, _, err = run_cli(*argv)
    assert status == 0, err
    vocabulary = json.loads((work / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"]
    assert any("zzyzx" in token for token in vocabulary)
    assert not any("None" in token for token in vocabulary)


def test_rates_leave_compilation_out(finished, finetune_arguments):
    work = finished(finetune_arguments)
    records = [json.loads(x) for x in (work / "metrics.jsonl").read_text().splitlines()]
    assert all(r["seconds"] > 0 for r in records)
    slowest = min(r["tokens"] / r["seconds"] for r in records)
    assert summary(work)["tokens_per_second"] > slowest
