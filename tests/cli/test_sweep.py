"""The sweep of `scaling`: its axes, its units, methods that train a part, and runs that fail."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from forget_jax.commands import points
from forget_jax.scoring.divergence import MEASURES


@pytest.fixture(scope="module")
def fields(tiny_base, data_files):
    return {
        "model.path": tiny_base,
        "tasks": ",".join(map(str, data_files.tasks[:2])),
        "upstream": f"{data_files.upstream}[:12]",
        "ranks": "1,3",
        "steps": "2,4",
        "methods": "lora,attention,top:1,full,frozen:1",
        "lrs": "0.01,0.05",
        "seeds": "1",
        "laws": "constant",
        "data.context": "64",
        "train.batch_size": "4",
        "train.buckets": "1",
        "score.buckets": "1",
    }


def line(fields):
    return ["scaling", *(f"--config.{k}={v}" for k, v in fields.items())]


@pytest.fixture(scope="module")
def swept(fields, finished):
    return finished(line(fields))


def test_every_axis_is_a_column_and_the_units_travel(swept):
    table = pd.read_parquet(swept / "points.parquet")
    assert len(table) == 2 * 2 * 2 * (3 * 2 + 2)
    for name, values in {
        "task": {"reverse", "shout"},
        "method": {"lora", "attention", "top:1", "full", "frozen:1"},
        "rank": {0, 1, 3},
        "steps": {2, 4},
    }.items():
        assert set(table[name]) == values
    whole = table[table["rank"] == 0]
    assert set(whole["method"]) == {"full", "frozen:1"}
    assert sorted(set(whole["lr"])) == pytest.approx([0.001, 0.005])
    assert table.groupby("run")["steps"].apply(list).map(lambda x: x == [2, 4]).all()
    units = table.attrs["units"]
    assert units["kl"] == units["l_ft"] == "nats a token" and units["agree_ft"] == "share of tokens"
    assert set(MEASURES) | {f"{m}_ft" for m in MEASURES if m != "nll"} <= set(table) & set(units)
    csv = pd.read_csv(swept / "points.csv")
    pd.testing.assert_frame_equal(csv, table, check_dtype=False, rtol=1e-12)


def test_parts_have_fewer_parameters_and_forget_less(swept):
    table = pd.read_parquet(swept / "points.parquet")
    P = table[table["rank"] == 3].groupby("method")["P"].first()
    assert P["top:1"] * 2 == P["lora"] > P["attention"]  # two layers
    whole = table[table["rank"] == 0].groupby("method")["P"].first()
    assert whole["full"] > whole["frozen:1"] > whole["full"] // 2  # the last norm is never frozen
    assert (table["kl"] > 0).all() and (table["kl_ft"] > 0).all()
    # soft cross-entropy less KL is the base's own entropy, whatever was trained
    entropy = table["soft"] - table["kl"]
    np.testing.assert_allclose(entropy, entropy.iloc[0], rtol=1e-5)


def test_a_run_is_the_same_alone_and_among_others(fields, swept, finished):
    """Groups, methods beside it and the highest rank change nothing but the first draw of `a`."""
    alone = finished(
        line(
            fields
            | {"methods": "attention,frozen:1", "lrs": "0.05", "ranks": "3", "runs_together": "1"}
        )
    )
    some, all_ = (pd.read_parquet(w / "points.parquet") for w in (alone, swept))
    both = some.merge(all_, on=["run", "steps"], suffixes=("", "_all"))
    assert len(both) == len(some) == 8
    for name in ("l_ft", "kl", "kl_ft"):
        np.testing.assert_allclose(both[name], both[f"{name}_all"], rtol=2e-4, atol=2e-6)


def test_a_run_that_fails_is_left_out_and_named(fields, run_cli, tmp_path):
    given = fields | {"methods": "lora", "lrs": "0.01,1e30", "ranks": "1"}
    status, _, err = run_cli(*line(given), f"--workdir={tmp_path / 'w'}")
    assert status == 0, err
    found = json.loads((tmp_path / "w" / "summary.json").read_text())
    assert found["failed"] and all("lr 1e+30" in name for name in found["failed"])
    table = pd.read_parquet(tmp_path / "w" / "points.parquet")
    assert (table[table["steps"] == 4]["lr"] == 0.01).all() and len(table)


def test_laws_of_the_sweep_by_task(swept, run_cli, tmp_path):
    status, _, err = run_cli(
        "scaling",
        f"--config.points.path={swept}",
        "--config.target=kl",
        "--config.laws=constant,kl_origin",
        "--config.formulas=K*P^x*N^y*lr^z",
        "--config.by=task",
        f"--workdir={tmp_path / 'w'}",
    )
    assert status == 0, err
    found = json.loads((tmp_path / "w" / "summary.json").read_text())
    assert not found["not_fitted"] and found["failed"] == {}
    law = found["laws"]["K*P^x*N^y*lr^z"]
    assert law["r2"] > found["laws"]["kl_origin"]["r2"] and law["r2"] > 0.5
    tried = found["checks"]["tried"]
    assert "lr" in tried and "task" not in tried  # whose coefficients no other task tells
    again = pd.read_parquet(tmp_path / "w" / "points.parquet")
    assert again.attrs["units"]["kl"] == "nats a token"


REFUSED = {
    "an unknown method": ({"methods": "lorra"}, "config.methods has 'lorra' (did you mean lora?)"),
    "no number": ({"methods": "top:0"}, "config.methods has 'top:0'"),
    "no method": ({"methods": ""}, "ranks, steps, methods and lrs name at least one value each"),
    "too many layers": ({"methods": "top:9"}, "top:9 is too many of this model's 2 layers"),
    "nothing left": ({"methods": "frozen:2"}, "frozen:2 is too many of this model's 2 layers"),
    "nothing trained": (
        {"methods": "mlp", "lora.targets": r"layers/attn/\w+"},
        "mlp trains nothing of lora.targets",
    ),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
def test_mistakes_are_one_line(change, said, fields, run_cli, tmp_path):
    status, _, err = run_cli(*line(fields | change), f"--workdir={tmp_path / 'w'}")
    assert status == 2 and said in err.splitlines()[-1] and "Traceback" not in err


@pytest.fixture(scope="module")
def two_sizes(fields, tiny_base, finished, tmp_path_factory):
    """The folder of a sweep over two bases: one, and what is left of it without a layer."""
    small = tmp_path_factory.mktemp("small") / "small, one layer"
    shutil.copytree(tiny_base, small)
    config = json.loads((small / "config.json").read_text())
    config["num_hidden_layers"] = 1
    (small / "config.json").write_text(json.dumps(config))
    kept = {k: v for k, v in load_file(small / "model.safetensors").items() if "layers.1." not in k}
    save_file(kept, small / "model.safetensors")
    own = {k: v for k, v in fields.items() if k != "model.path"}
    own |= {"methods": "lora", "lrs": "0.05", "tasks": fields["tasks"].split(",")[0]}
    work = finished([*line(own), f'--sweep.model.path={tiny_base},"{small}"'])
    return work, {str(tiny_base), str(small)}


def test_sweeps_over_models_are_one_table_with_their_sizes(two_sizes, run_cli, tmp_path):
    folder, models = two_sizes
    fitted = ["--config.laws=constant", "--config.formulas=K*P^x*P_base^y"]
    argv = ["scaling", f"--config.points.path={folder}", *fitted, f"--workdir={tmp_path / 'w'}"]
    status, _, err = run_cli(*argv)
    assert status == 0, err
    table = pd.read_parquet(tmp_path / "w" / "points.parquet")
    assert set(table["model"]) == models and table["run"].nunique() == 4
    sizes = table.groupby("model")[["P", "P_base"]].agg(lambda x: sorted(set(x)))
    (small,), (large,) = (
        sizes.loc[m, "P_base"] for m in sorted(models, key=lambda m: "one" not in m)
    )
    assert small < large < 2 * small  # layers and the last norm, without embeddings
    assert table.attrs["units"]["P_base"].startswith("parameters of the base")
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    assert set(summary["laws"]["K*P^x*P_base^y"]["params"]) == {"K", "x", "y"}
    assert "model" in summary["checks"]["tried"]


def test_the_planner_asks_which_model_of_a_sweep(two_sizes, run_cli, tmp_path):
    folder, models = two_sizes
    argv = ["plan", f"--config.points.path={folder}", "--config.ask=forgetting", "--config.rank=2"]
    argv += ["--config.steps=3", f"--workdir={tmp_path / 'w'}"]
    status, _, err = run_cli(*argv)
    assert status == 2 and "several values of model" in err
    status, _, err = run_cli(*argv, f"--config.where=['model={min(models)}']")
    assert status == 0 and "rank 2, learning rate 0.05, 3 steps: kl" in err


def test_a_swept_number_is_a_number(tmp_path):
    (tmp_path / "sweep.csv").write_text("train.batch_size\n")
    for size in (4, 8):
        folder = tmp_path / f"train.batch_size={size}"
        folder.mkdir()
        pd.DataFrame({"steps": [1, 2], "l_f": [0.1, size / 9]}).to_csv(folder / "points.csv")
    table = points.read(str(tmp_path))
    assert table["batch_size"].tolist() == [4, 4, 8, 8] and table["run"].nunique() == 4


def test_a_sweep_without_points_yet_is_said(two_sizes, run_cli, tmp_path):
    (tmp_path / "sweep.csv").write_text("model.path\n")
    status, _, err = run_cli(
        "plan", f"--config.points.path={tmp_path}", "--config.ask=settings", "--config.limit=1"
    )
    assert status == 2 and "no run of this sweep has points yet" in err
