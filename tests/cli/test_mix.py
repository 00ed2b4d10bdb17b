"""`mix`: what to replay for one task, from as little or as much as is known."""

import json

import numpy as np
import pandas as pd
import pytest

from forget_jax.commands import matrices
from tests.cli.conftest import FEW, SCORE
from tests.cli.conftest import NEW_TASK as TASK
from tests.conftest import write_jsonl

DATA = ["--config.data.context=48"]


@pytest.fixture(scope="module")
def world(skills_world):
    return skills_world


def rows_of(work):
    found = [json.loads(line) for line in (work / "train.jsonl").read_text().splitlines()]
    return [r for r in found if not r["replayed"]], [r for r in found if r["replayed"]]


def summary_of(work):
    return json.loads((work / "summary.json").read_text())


def test_a_matrix_suffices_and_no_model_is_needed(world, finished):
    matrix, _ = world
    work = finished(["mix", f"--config.task={TASK}", f"--config.matrix.path={matrix}"])
    task, replayed = rows_of(work)
    assert len(task) == 40 and len(replayed) == 5  # one in eight
    assert len({r["name"] for r in replayed}) == 5
    assert all("other tasks forget it by" in r["why"] and r["weight"] > 0 for r in replayed)
    summary = summary_of(work)
    assert summary["strategy"] == "column_mean" and summary["candidates"] == 48
    z = matrices.load(str(matrix))
    assert summary["expected_z"] == pytest.approx(np.nanmean(z.z_MxN), abs=1e-6)
    page = (work / "report.html").read_text()
    assert "What to replay" in page and replayed[0]["name"] in page


def test_the_files_are_what_trainers_read(world, finished, run_cli, tiny_base, tmp_path):
    from datasets import load_from_disk

    matrix, _ = world
    work = finished(["mix", f"--config.task={TASK}", f"--config.matrix.path={matrix}"])
    kept = load_from_disk(str(work / "dataset"))
    assert len(kept) == 45 and {"prompt", "completion", "replayed", "why"} <= set(kept.column_names)
    assert all(kept["completion"])
    lines = (work / "uniform.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == kept.to_list()
    said = (work / "use.md").read_text()
    assert all(name in said for name in ("TRL", "axolotl", "LLaMA-Factory", "forget-jax finetune"))
    line = next(x for x in said.splitlines() if x.startswith("forget-jax finetune"))
    assert f"finetune:{tiny_base} " in line  # the matrix's base
    path = line.rpartition("--config.data.path=")[2]
    status, _, err = run_cli(
        *("finetune", f"--config.model.path={tiny_base}", f"--config.data.path={path}"),
        *(*DATA, *FEW, f"--workdir={tmp_path}"),
    )
    assert status == 0, err


def test_the_user_begins_every_conversation(world, finished, tmp_path):
    turns = [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "2"}]
    task = write_jsonl(tmp_path / "turns.jsonl", [{"messages": turns}] * 8)
    matrix, _ = world
    work = finished(["mix", f"--config.task={task}", f"--config.matrix.path={matrix}"])
    kept = [json.loads(line) for line in (work / "uniform.jsonl").read_text().splitlines()]
    roles = [[turn["role"] for turn in row["messages"]] for row in kept]
    assert len(kept) == 9 and all(r == ["user", "assistant"] for r in roles)
    _, replayed = rows_of(work)
    (said,) = (row["messages"] for row in kept if row["replayed"])
    assert said[0]["content"] == "" and said[1]["content"] == replayed[0]["text"]


def test_with_an_adapter_the_row_is_predicted_and_expected_forgetting_said(
    world, finished, tiny_base
):
    matrix, adapter = world
    work = finished(
        [
            *("mix", f"--config.task={TASK}", f"--config.matrix.path={matrix}"),
            *(f"--config.model.path={tiny_base}", f"--config.adapter={adapter}"),
            *("--config.mix.observed=16", "--config.mix.ratio=0.25", *DATA, *SCORE),
        ]
    )
    summary = summary_of(work)
    assert summary["strategy"] == "predicted" and summary["replayed"] == 10
    truth = finished(
        [
            *("score", f"--config.model.path={tiny_base}", f"--config.adapters={adapter}"),
            *(f"--config.data.path={matrix / 'examples.jsonl'}", *DATA, *SCORE),
        ]
    )
    z = matrices.load(str(truth)).z_MxN[0]
    assert summary["expected_z"] == pytest.approx(z.mean(), abs=max(0.2, abs(z.mean())))
    measured = finished(
        [
            *("mix", f"--config.task={TASK}", f"--config.pool={matrix / 'examples.jsonl'}"),
            *(f"--config.model.path={tiny_base}", f"--config.adapter={adapter}", *DATA, *SCORE),
        ]
    )
    summary = summary_of(measured)
    assert summary["strategy"] == "measured"
    assert summary["expected_z"] == pytest.approx(z.mean(), abs=1e-5)


def test_without_a_pool_the_base_writes_one(finished, tiny_base):
    arguments = [
        *("mix", f"--config.task={TASK}", f"--config.model.path={tiny_base}", *DATA),
        *("--config.mix.generated=12", "--config.mix.generated_tokens=8"),
    ]
    _, replayed = rows_of(finished(arguments))
    assert len(replayed) == 5 and {r["source"] for r in replayed} == {"generated"}
    assert len({r["text"] for r in replayed}) > 1
    own, replayed = rows_of(finished([*arguments, "--config.mix.generated_from=prompts"]))
    answer = {r["prompt"]: r["completion"] for r in own}
    assert len(replayed) == 5 and {r["source"] for r in replayed} == {"answered"}
    assert all(r["completion"] != answer[r["prompt"]] for r in replayed)


def test_a_measured_curve_recommends_the_ratio(world, finished, tmp_path):
    matrix, _ = world
    rng = np.random.default_rng(0)
    rows = [
        {"task": f"t{m}", "strategy": "random" if ratio else "none", "ratio": ratio, "cost": "nll"}
        | {"seed": 0, "z": z + 0.01 * rng.normal(), "loss": 1 + ratio}
        for m in range(5)
        for ratio, z in ((0.0, 1.0), (1 / 64, 0.8), (1 / 16, 0.22), (1 / 4, 0.1))
    ]
    (tmp_path / "curve").mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / "curve" / "cells.csv", index=False)
    arguments = ["mix", f"--config.task={TASK}", f"--config.matrix.path={matrix}"]
    work = finished([*arguments, f"--config.curve.path={tmp_path / 'curve'}"])
    summary = summary_of(work)
    assert summary["ratio"] == 1 / 16 and summary["saved"] == pytest.approx(0.78, abs=0.02)
    assert [p["ratio"] for p in summary["curve"]] == [0, 1 / 64, 1 / 16, 1 / 4]
    assert summary["curve"][1]["z_half"] > 0


def test_mistakes_are_one_line(world, run_cli, tiny_base, tmp_path):
    matrix, adapter = world
    task, model = f"--config.task={TASK}", f"--config.model.path={tiny_base}"
    there = f"--config.matrix.path={matrix}"

    def refused(*arguments):
        work = tmp_path / str(len(list(tmp_path.iterdir())))
        status, _, err = run_cli("mix", *arguments, f"--workdir={work}")
        assert status == 2 and "Traceback" not in err, err
        return err.splitlines()[-1]

    assert "give task" in refused(there)
    assert "give pool" in refused(task)
    assert "needs matrix.path" in refused(task, model, "--config.mix.strategy=column_mean")
    assert "needs adapter" in refused(task, model, there, "--config.mix.strategy=predicted")
    assert "gives no row" in refused(task, there, "--config.mix.ratio=0.001")
    pool = "--config.pool=builtin:skill/lookup[:4]"
    assert "but there are 4 candidates" in refused(task, pool)
    other = "--config.pool=builtin:docstrings[:20]"
    assert "no columns of the matrix" in refused(task, there, other)
    own = f"--config.pool={TASK}"
    assert "all candidates are rows of the task" in refused(task, own)
    assert "cells.csv" in refused(task, there, f"--config.curve.path={tmp_path}")
    (tmp_path / "cells.csv").write_text("task,z\na,1\n")
    assert "has no column" in refused(task, there, f"--config.curve.path={tmp_path}")
    assert adapter.exists()


def test_a_matrix_of_another_base_or_of_other_tokens_is_refused(
    world, run_cli, tiny_base, tmp_path, monkeypatch
):
    matrix, adapter = world
    arguments = [
        *("mix", f"--config.task={TASK}", f"--config.matrix.path={matrix}"),
        *(f"--config.model.path={tiny_base}", f"--config.adapter={adapter}", *SCORE),
    ]
    status, _, err = run_cli(*arguments, "--config.data.context=16", f"--workdir={tmp_path / 'a'}")
    assert status == 2 and "other numbers of target tokens" in err, err
    kept = matrices.base_scores(str(matrix))
    monkeypatch.setattr(matrices, "base_scores", lambda path: kept.assign(nll=kept.nll + 0.2))
    status, _, err = run_cli(*arguments, *DATA, f"--workdir={tmp_path / 'b'}")
    assert status == 2 and "of another base: NLLs of the same examples differ by 0.200" in err, err
