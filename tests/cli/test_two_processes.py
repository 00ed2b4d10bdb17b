"""Every command on two processes gives the figures of one; none reads what is not there yet."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

SHAPE = {"vocab_size": 320, "width": 16, "layers": 2, "heads": 2, "kv_heads": 1, "mlp_width": 24}
FIELDS = {
    **{f"pretrain.model.{name}": size for name, size in SHAPE.items()},
    "pretrain.model.context": 64,
    "pretrain.data.path": "builtin:skills[:200]",
    "pretrain.train.steps": 12,
    "pretrain.train.batch_size": 4,
    "associate.tasks": ",".join(f"builtin:skill/{s}[:12]" for s in ("addition", "reversal")),
    "associate.upstream": "builtin:skills[:24]",
    "associate.repeat_tasks": 1,
    "predict.split.test_tasks": 1,
    "predict.observed": 8,
    "predict.seeds": 2,
    "predict.methods": "column_mean,additive",
    "replay.tasks": "builtin:skill/addition[:12]",
    "replay.upstream": "builtin:skills[:24]",
    "replay.replay.observed": 6,
    **{
        f"{stage}.{field}": value
        for stage in ("associate", "replay")
        for field, value in {
            "data.context": 64,
            "train.steps": 4,
            "train.batch_size": 4,
            "train.lr": 0.01,
        }.items()
    },
    "scaling.task": "builtin:skill/addition[:12]",
    "scaling.upstream": "builtin:skills[:12]",
    "scaling.ranks": "1,2",
    "scaling.steps": "2,4,6",
    "scaling.data.context": 64,
    "scaling.train.batch_size": 4,
    "scaling.train.lr": 0.1,
    "scaling.laws": "constant,linear",
    "factoids.stage_a": "builtin:short_facts[:6]",
    "factoids.stage_b": "builtin:short_facts/B[:6]",
    "factoids.mix": "builtin:random_words/3[:12]",
    "factoids.epochs": 3,
    "factoids.max_new_tokens": 8,
    "factoids.arms": "naive,mix in A",
    "factoids.train.batch_size": 4,
}
ARGUMENTS = ["quickstart", *(f"--config.{key}={value}" for key, value in FIELDS.items())]


@pytest.fixture(scope="module")
def whole(finished):
    """All stages on one process."""
    return finished(ARGUMENTS)


@pytest.fixture(scope="module")
def shared(on_two_processes, tmp_path_factory):
    """All stages on two processes."""
    work = tmp_path_factory.mktemp("two") / "run"
    on_two_processes([*ARGUMENTS, f"--workdir={work}"])
    return work


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def summary(work):
    return json.loads((work / "summary.json").read_text())


@pytest.mark.slow
def test_the_matrix(shared, whole):
    found, wanted = (
        xr.open_zarr(work / "associate" / "forgetting.zarr", consolidated=False).load()
        for work in (shared, whole)
    )
    assert found.task.values.tolist() == wanted.task.values.tolist()
    assert np.abs(wanted.forgetting.values).max() > 0.01
    close(found.forgetting.values, wanted.forgetting.values)


@pytest.mark.slow
def test_the_points_of_scaling(shared, whole):
    found, wanted = (pd.read_csv(work / "scaling" / "points.csv") for work in (shared, whole))
    assert found[["P", "steps", "run"]].equals(wanted[["P", "steps", "run"]])
    close(found[["l_ft", "l_f", "kl"]], wanted[["l_ft", "l_f", "kl"]])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "predict", "replay", "factoids"])
def test_figures_of_a_stage(shared, whole, stage):
    found, wanted = summary(shared / stage), summary(whole / stage)
    if stage == "pretrain":
        close(found["heldout_loss"], wanted["heldout_loss"])
    elif stage == "predict":
        for method, figures in wanted["methods"].items():
            close(found["methods"][method]["rmse"], figures["rmse"])
    elif stage == "replay":
        for strategy, figures in wanted["replay"].items():
            close(found["replay"][strategy]["z"], figures["z"])
    else:
        for arm, figures in wanted["by_seed"].items():
            for name, values in figures.items():
                close(found["by_seed"][arm][name], values)


@pytest.mark.slow
def test_commands_that_are_no_stage(shared, whole, on_two_processes, finished, tmp_path):
    model = f"--config.model.path={whole / 'pretrain' / 'model'}"
    data = "--config.data.path=builtin:skill/addition[:12]"
    fields = ["--config.train.steps=3", "--config.train.batch_size=4"]
    tuned = finished(["finetune", model, data, *fields])
    matrix = tmp_path / "matrix.csv"
    z_MxN = np.random.default_rng(0).normal(size=(6, 24))
    pd.DataFrame(z_MxN, [f"t{m}" for m in range(6)]).to_csv(matrix)
    commands = {
        "finetune": [model, data, *fields],
        "score": [model, data, f"--config.adapters={tuned / 'adapter'}"],
        "probes": [
            f"--config.matrix.path={matrix}",
            "--config.observed=4",
            "--config.seeds=2",
        ],
        "export": [f"--config.source={tuned}"],
        "bench": ["--config.what=matmul", "--config.quick=true"],
    }
    for command, arguments in commands.items():
        work = tmp_path / command
        on_two_processes([command, *arguments, f"--workdir={work}"])
        assert (work / "report.html").exists()
    (tmp_path / "probes" / "report.html").unlink()
    on_two_processes(["report", f"--workdir={tmp_path / 'probes'}"])
    assert (tmp_path / "probes" / "report.html").exists()
    wanted = finished(["score", *commands["score"]])
    for name, nll in summary(wanted)["nll_mean_by_model"].items():
        close(summary(tmp_path / "score")["nll_mean_by_model"][name], nll)
    close(summary(tmp_path / "finetune")["loss_last"], summary(tuned)["loss_last"])
