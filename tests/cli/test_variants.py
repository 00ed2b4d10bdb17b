"""`--sweep.field=value,value`: a run for each value, in folders of its own, and a table of all."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from forget_jax import cli
from forget_jax.commands import variants


@pytest.fixture(name="matrix", scope="module")
def _matrix(tmp_path_factory):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(9, 2)) @ rng.normal(size=(2, 30)) + rng.normal(size=30)
    path = tmp_path_factory.mktemp("m") / "z.npz"
    np.savez(path, z=z)
    return path


def command(matrix, folder, *more):
    return [
        *("evaluate", f"--config.matrix.path={matrix}", "--config.split.test_tasks=0,1"),
        *("--config.methods=additive", "--config.seeds=2", f"--workdir={folder}", *more),
    ]


def test_every_combination_is_a_run_and_the_table_has_them_all(matrix, run_cli, tmp_path):
    sweep = ["--sweep.observed=5,8", '--sweep.methods="additive,als",knn']
    argv = command(matrix, tmp_path / "w", *sweep)
    status, _, err = run_cli(*argv)
    assert status == 0, err
    assert "run 1 of 4: observed=5, methods=additive,als" in err and "run 4 of 4" in err
    table = pd.read_csv(tmp_path / "w" / "sweep.csv")
    assert table["observed"].tolist() == [5, 5, 8, 8]
    assert table.methods.tolist() == ["additive,als", "knn"] * 2
    for row in table.to_dict("records"):
        folder = (
            tmp_path
            / "w"
            / variants.folder("", {key: str(row[key]) for key in ("observed", "methods")})
        )
        summary = json.loads((folder / "summary.json").read_text())
        assert list(summary["methods"]) == row["methods"].split(",")
        name = row["methods"].split(",")[0]
        assert row[f"methods.{name}.rmse"] == pytest.approx(summary["methods"][name]["rmse"])
    status, _, err = run_cli(*argv)
    assert status == 0 and err.count("has ended already") == 4


def test_a_sweep_that_was_stopped_goes_on(matrix, run_cli, tmp_path, monkeypatch):
    from forget_jax.commands import evaluate

    argv = command(matrix, tmp_path / "w", "--sweep.observed=5,8")
    real = evaluate.run

    def stopped(settings, work):
        if settings.observed == 8:
            raise KeyboardInterrupt
        return real(settings, work)

    monkeypatch.setattr(evaluate, "run", stopped)
    status, _, err = run_cli(*argv)
    assert status == 130 and "same command again to resume" in err
    assert len(pd.read_csv(tmp_path / "w" / "sweep.csv")) == 1
    monkeypatch.setattr(evaluate, "run", real)
    status, _, err = run_cli(*argv)
    assert status == 0 and err.count("has ended already") == 1
    assert len(pd.read_csv(tmp_path / "w" / "sweep.csv")) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sweep.observd=5,8"], r"no config field 'observd' \(did you mean"),
        (["--sweep.observed=5,x"], "takes a whole number, not 'x'"),
        (["--sweep.observed=5,-8"], "observed"),
        (["--sweep.observed=5,5"], "names 5 twice"),
        (["--sweep.observed=5,,8"], "an empty one"),
        (["--sweep.observed="], "names no value"),
        (["--sweep.observed"], "needs a value"),
        (["--sweep.seeds=1,2", "--sweep.seeds=3"], "stands twice"),
        (["--sweep.seeds=" + ",".join(map(str, range(1, 1500)))], "at most 1,000"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_before_anything_runs(flags, said, matrix, run_cli, tmp_path):
    status, _, err = run_cli(*command(matrix, tmp_path / "w", *flags))
    assert status == 2 and not (tmp_path / "w").exists()
    (line,) = err.splitlines()
    assert re.search(said, line), line


def test_the_folder_of_a_run_and_commands_without_one_are_refused(matrix, run_cli, tmp_path):
    assert run_cli(*command(matrix, tmp_path / "w", "--config.observed=5"))[0] == 0
    status, _, err = run_cli(*command(matrix, tmp_path / "w", "--sweep.seeds=2,3"))
    assert status == 2 and "is the folder of a run" in err
    status, _, err = run_cli("report", "--sweep.matrix.path=a,b", f"--workdir={tmp_path}")
    assert status == 2 and "takes no --sweep" in err


def test_configs_and_plans_are_shown_for_each(matrix, capsys):
    argv = command(matrix, "w", "--sweep.observed=5,8")
    assert cli.resolve([*argv, "--print-config"]) == []
    shown = capsys.readouterr().out
    assert shown.count('"observed": 5') == shown.count('"observed": 8') == 1


def test_long_values_have_short_folders():
    name = variants.folder("w", {"tasks": "/".join(["folder"] * 60)})
    assert len(name) < 220 and name.count("/") == 1
