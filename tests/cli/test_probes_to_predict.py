"""A new task in three commands: probes, score, predict; and `predict` on matrices with gaps."""

import json
import re
import shlex
import tempfile

import numpy as np
import pandas as pd
import pytest

from forget_jax import files
from forget_jax.associations.matrix import Matrix, save
from forget_jax.commands import matrices, training_losses
from forget_jax.commands.probes import score_command
from forget_jax.errors import UserError
from tests.cli.conftest import FEW, SCORE

SKILLS = ["addition", "reversal", "sorting", "uppercase", "counting", "copying", "parity"]


@pytest.fixture(scope="module")
def world(finished, tiny_base):
    """Six tasks' matrix of a tiny model, and a seventh task's adapter."""
    model = f"--config.model.path={tiny_base}"
    skills = [f"builtin:skill/{name}[:12]" for name in SKILLS]
    matrix = finished(
        [
            *("associate", model, f"--config.tasks={','.join(skills[:6])}"),
            "--config.upstream=builtin:language_reference[:30],builtin:skills[:30]",
            *("--config.data.context=48", "--config.repeat_tasks=0", *FEW, *SCORE),
        ]
    )
    tuned = finished(
        ["finetune", model, f"--config.data.path={skills[6]}", "--config.data.context=48", *FEW]
    )
    return matrix, tuned / "adapter"


@pytest.fixture(scope="module")
def probed(finished, world):
    matrix, _ = world
    return finished(
        ["probes", f"--config.matrix.path={matrix}", "--config.observed=16", "--config.seeds=1"]
    )


@pytest.fixture(scope="module")
def scored(world, probed, finished):
    matrix, adapter = world
    arguments = shlex.split(score_command(str(matrix), probed / "probes.jsonl"))[1:]
    arguments = [a.replace("YOUR_ADAPTER", str(adapter)) for a in arguments]
    assert "--config.data.context=48" in arguments
    return finished([*arguments, *SCORE])


def test_three_commands_and_no_script(world, probed, scored, finished, tiny_base):
    matrix, adapter = world
    rows = [json.loads(line) for line in (probed / "probes.jsonl").read_text().splitlines()]
    summary = json.loads((probed / "summary.json").read_text())
    assert [row["name"] for row in rows] == summary["columns"] and len(rows) == 16
    assert {e["observed"] for e in summary["expected_errors"] if "" in e["means"]} >= {5, 16}
    assert (summary["texts"] and {"text", "source"} <= set(rows[0])) or "prompt" in rows[0]
    work = finished(["predict", f"--config.matrix.path={matrix}", f"--config.probes.path={scored}"])
    table = pd.read_parquet(work / "predicted.parquet")
    assert list(table) == ["task", "example", "source", "z", "low", "high", "measured"]
    assert table.measured.sum() == 16 and len(table) == 60 and set(table.task) == {str(adapter)}
    upstream = "--config.data.path=builtin:language_reference[:30],builtin:skills[:30]"
    model = f"--config.model.path={tiny_base}"
    whole = finished(
        ["score", model, upstream, "--config.data.context=48", f"--config.adapters={adapter}"]
    )
    z = matrices.load(str(whole))
    truth = pd.Series(z.z_MxN[0], z.examples)[table.example].to_numpy()
    # the very same tokens: what was measured at the probes is what the whole row holds there
    np.testing.assert_allclose(table.z[table.measured], truth[table.measured], atol=1e-5)
    inside = ((table.low <= truth) & (truth <= table.high))[~table.measured]
    print(f"90 % intervals hold {inside.mean():.0%} of {len(inside)} entries that were not probed")
    assert inside.mean() > 0.6
    assert (table.low < table.high)[~table.measured].all()
    figures = json.loads((work / "summary.json").read_text())
    task = figures["tasks"][str(adapter)]
    assert (
        task["mean"]["robust"]["low"] < task["mean"]["robust"]["z"] < task["mean"]["robust"]["high"]
    )
    assert task["learned_from"] == 6 and task["mean"]["measured"] == 16
    assert task["training_losses"] == (
        "its losses in training" in (work / "report.html").read_text()
    )
    assert sum(s["examples"] for s in task["sources"].values()) == 60
    assert task["mean"]["low"] <= truth.mean() <= task["mean"]["high"]
    page = (work / "report.html").read_text()
    assert task["most_forgotten"][0]["text"] and "What will be forgotten most" in page
    assert all(source in page for source in task["sources"])


def test_probes_of_other_tokens_or_another_base_are_refused(world, probed, run_cli, tmp_path):
    matrix, _ = world
    base = matrices.base_scores(str(matrix))
    names = json.loads((probed / "summary.json").read_text())["columns"]
    base = base.loc[names]

    def said(tokens, nll):
        sums = {"base": nll, "new": nll + 0.1}
        rows = [
            {"model": m, "example": e, "nll_sum": x * t, "tokens": t}
            for m, values in sums.items()
            for e, x, t in zip(names, values, tokens, strict=True)
        ]
        pd.DataFrame(rows).to_parquet(tmp_path / "scores.parquet", index=False)
        status, _, err = run_cli(
            *("predict", f"--config.matrix.path={matrix}"),
            f"--config.probes.path={tmp_path / 'scores.parquet'}",
            f"--workdir={tempfile.mkdtemp(dir=tmp_path)}",
        )
        assert status in (0, 2), err
        return err.splitlines()[-1]

    assert "other numbers of target tokens" in said(base.tokens + 1, base.nll)
    assert "give score the same model.path" in said(base.tokens, base.nll + 1)
    assert "mean z" in said(base.tokens, base.nll)


def low_rank(rows=12, columns=60, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, 2)) @ rng.normal(size=(2, columns))
    return z + 0.1 * rng.normal(size=z.shape)


def test_rows_with_gaps_are_filled(run_cli, tmp_path):
    z = low_rank()
    truth = z[-1].copy()
    z[-1, 20:] = np.nan
    z[0, 3] = np.nan  # a train row with a gap of its own
    z[:, 7] = np.nan
    pd.DataFrame(z, [f"t{i}" for i in range(12)]).to_csv(tmp_path / "m.csv")
    status, _, err = run_cli(
        "predict", f"--config.matrix.path={tmp_path / 'm.csv'}", f"--workdir={tmp_path / 'w'}"
    )
    assert status == 0 and "1 examples are left out" in err and "from 19 measured of 59" in err
    table = pd.read_parquet(tmp_path / "w" / "predicted.parquet").set_index(["task", "example"])
    assert len(table) == 2 * 59
    row = table.loc["t11"]
    left = ~row.measured
    assert np.sqrt(np.mean((row.z - np.delete(truth, 7))[left] ** 2)) < 0.3
    assert (~table.loc["t0"].measured).sum() == 1


def test_a_matrix_of_exact_match_gives_probabilities(run_cli, tmp_path):
    z = (low_rank(16) + np.random.default_rng(1).normal(size=(16, 60)) > 0.5).astype(float)
    truth = z[-1].copy()
    z[-1, 20:] = np.nan
    tasks, examples = (tuple(f"{x}{i}" for i in range(n)) for x, n in (("t", 16), ("e", 60)))
    save(tmp_path / "m.zarr", Matrix(z, tasks, examples, metric="exact_match"))
    fields = [f"--config.matrix.path={tmp_path / 'm.zarr'}"]
    status, _, err = run_cli("predict", *fields, f"--workdir={tmp_path / 'w'}")
    assert status == 0, err
    table = pd.read_parquet(tmp_path / "w" / "predicted.parquet")
    p, left = table.probability.to_numpy(), ~table.measured.to_numpy()
    assert (p[~left] == truth[:20]).all() and ((p[left] > 0) & (p[left] < 1)).all()
    assert np.mean((p - truth)[left] ** 2) < np.var(truth[left])
    task = json.loads((tmp_path / "w" / "summary.json").read_text())["tasks"]["t15"]
    assert task["probabilities"]["brier"] < task["probabilities"]["brier_base"]
    guessed = [e for e in task["most_forgotten"] if not e["measured"]]
    page = (tmp_path / "w" / "report.html").read_text()
    assert all(0 < e["probability"] < 1 for e in task["most_forgotten"] if not e["measured"])
    assert not guessed or "lost with probability" in page
    assert "Predicted probability and what came of it" in page
    fields += ["--config.split.test_tasks=3,4,5", "--config.split.train_tasks=0,1,2,6,7,8,9,10"]
    fields += ["--config.observed=15", "--config.seeds=2", "--config.methods=additive,column_mean"]
    status, _, err = run_cli("evaluate", *fields, f"--workdir={tmp_path / 'e'}")
    assert status == 0, err
    found = json.loads((tmp_path / "e" / "summary.json").read_text())
    additive = found["methods"]["additive"]
    assert sum(b["entries"] for b in additive["reliability"]) == 2 * 3 * 45
    assert additive["precision_at_k_low"] <= additive["precision_at_k"]
    assert found["k"] == 22 and found["best_at_k"] in found["methods"]
    assert len(found["paired"]) == len(found["paired_at_k"]) == 1
    page = (tmp_path / "e" / "report.html").read_text()
    assert "precision at 22" in page and "Brier score" in page


@pytest.mark.fault("matrices to predict from", "one line")
@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("whole", "no row with gaps to fill"),
        ("few", "has 3 tasks to learn from"),
        ("apart", "knows all or none"),
        ("empty", "no row with gaps to fill"),
    ],
)
def test_nothing_to_fill_or_to_learn_from(case, said, run_cli, tmp_path):
    z, fields = low_rank(), []
    if case == "few":
        z = z[-4:]
        z[-1, 10:] = np.nan
    elif case == "apart":
        z[-1, 20:] = z[:-1, :20] = np.nan
        fields = ["--config.split.train_tasks=0,1,2,3,4"]
        z[:-1, 20:] = 1.0
    elif case == "empty":
        z[-1] = np.nan
    pd.DataFrame(z, [f"t{i}" for i in range(len(z))]).to_csv(tmp_path / "m.csv")
    path = f"--config.matrix.path={tmp_path / 'm.csv'}"
    status, _, err = run_cli("predict", path, *fields, f"--workdir={tmp_path / 'w'}")
    assert status == 2 and said in err.splitlines()[-1], err


def test_test_tasks_still_run_the_protocol(run_cli, tmp_path):
    pd.DataFrame(low_rank(), [f"t{i}" for i in range(12)]).to_csv(tmp_path / "m.csv")
    fields = ["--config.split.test_tasks=1,t2", "--config.observed=8", "--config.seeds=2"]
    fields += ["--config.methods=additive,als", f"--config.matrix.path={tmp_path / 'm.csv'}"]
    status, _, err = run_cli("predict", *fields, f"--workdir={tmp_path / 'old'}")
    assert status == 0 and "is now called evaluate" in err
    assert run_cli("evaluate", *fields, f"--workdir={tmp_path / 'new'}")[0] == 0
    old, new = (json.loads((tmp_path / w / "summary.json").read_text()) for w in ("old", "new"))
    assert old["command"] == new["command"] == "evaluate"
    assert old["methods"]["als"]["rmse"] == new["methods"]["als"]["rmse"]


def test_a_matrix_of_names_lists_them(run_cli, tmp_path):
    names = tuple(f"c4#{j}" for j in range(60))
    save(tmp_path / "m.zarr", Matrix(low_rank(), tuple(f"t{i}" for i in range(12)), names))
    status, _, err = run_cli(
        *("probes", f"--config.matrix.path={tmp_path / 'm.zarr'}", "--config.aim=random"),
        *("--config.observed=5", "--config.seeds=1", f"--workdir={tmp_path / 'w'}"),
    )
    assert status == 0 and "lists the names alone" in err
    rows = [json.loads(x) for x in (tmp_path / "w" / "probes.jsonl").read_text().splitlines()]
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    assert [row["name"] for row in rows] == summary["columns"] and not summary["texts"]
    assert re.fullmatch(r"c4#\d+", rows[0]["name"])


@pytest.mark.fault("tables of scores", "one line")
def test_damaged_tables_are_one_line(tmp_path):
    for name, data in (("a.parquet", b"PAR1 no"), ("folder", None), ("b.parquet", b"")):
        path = tmp_path / name
        path.mkdir() if data is None else files.write_bytes(path, data)
        with pytest.raises(UserError, match=name):
            matrices.load(str(path))


def test_losses_of_trainings_are_read_where_there_are_some(world, tmp_path):
    matrix, adapter = world
    losses = training_losses.of_matrix(str(matrix))
    assert set(losses) == {f"skill/{name}" for name in SKILLS[:6]}
    rows = [json.loads(line) for line in (matrix / "metrics.jsonl").read_text().splitlines()]
    steps = [row["loss"]["skill/addition"] for row in rows if "skill/addition" in row["loss"]]
    first, last, fall = losses["skill/addition"]
    assert first == pytest.approx(np.log(steps[0])) and last == pytest.approx(np.log(steps[-1]))
    assert fall == pytest.approx(steps[0] - steps[-1])
    own = training_losses.of_adapters([str(adapter), str(tmp_path / "another"), "hub/name"])
    assert set(own) == {str(adapter)} and own[str(adapter)].shape == (3,)
    assert training_losses.of_matrix(str(tmp_path)) == {}
    (tmp_path / "metrics.jsonl").write_text('{"stage": "finetune", "loss": 3}\nno json')
    assert training_losses.of_adapters([str(tmp_path / "adapter")]) == {}
