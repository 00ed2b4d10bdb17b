"""Long examples, targets and foreign adapters from the command line: what `score` makes of them."""

import json

import numpy as np
import pandas as pd
import pytest

from forget_jax.associations import matrix

CONTEXT = 16


def score(run_cli, arguments, work, *fields):
    status, _, err = run_cli(*arguments, *(f"--config.{f}" for f in fields), f"--workdir={work}")
    assert status == 0, err
    return pd.read_parquet(work / "scores.parquet"), json.loads((work / "summary.json").read_text())


@pytest.fixture(scope="module")
def texts_arguments(score_arguments, data_files, tmp_path_factory):
    """Texts on both sides of the context here, all within the model's own."""
    rows = [json.loads(x) for x in data_files.upstream.read_text().splitlines()]
    file = tmp_path_factory.mktemp("long") / "texts.jsonl"
    file.write_text(
        "".join(
            json.dumps({"text": (r["text"] * 3)[: 12 + 2 * i]}) + "\n" for i, r in enumerate(rows)
        )
    )
    return [*(a for a in score_arguments if "data.path" not in a), f"--config.data.path={file}"]


@pytest.fixture(scope="module")
def whole(finished, texts_arguments):
    """Every example in one piece."""
    work = finished(texts_arguments)
    assert json.loads((work / "summary.json").read_text())["over_context"]["truncated"] == 0
    return pd.read_parquet(work / "scores.parquet")


def test_windows_score_every_target_once(run_cli, texts_arguments, tmp_path, whole):
    fields = (f"data.context={CONTEXT}", "data.too_long=windows", "data.stride=6")
    table, summary = score(run_cli, texts_arguments, tmp_path / "run", *fields)
    counts = summary["over_context"]
    long = whole.tokens >= CONTEXT  # the BOS token is no target
    assert counts["windowed"] == long.sum() > 0
    assert counts["windows"] == sum(1 + -(-(t + 1 - CONTEXT) // 6) for t in whole.tokens[long])
    assert counts["truncated"] == counts["tokens_cut"] == counts["dropped"] == 0
    assert table.example.tolist() == whole.example.tolist()
    assert table.tokens.tolist() == whole.tokens.tolist()
    off = np.abs(table.nll_sum - whole.nll_sum) / whole.tokens
    assert off[~long].max() < 1e-5 < off[long].max() < 0.05  # less context, nothing else


@pytest.mark.parametrize("too_long", ["truncate", "left"])
def test_cut_examples_are_counted(run_cli, texts_arguments, tmp_path, whole, too_long):
    fields = (f"data.context={CONTEXT}", f"data.too_long={too_long}")
    table, summary = score(run_cli, texts_arguments, tmp_path / "run", *fields)
    long = whole.tokens >= CONTEXT
    counts = summary["over_context"]
    assert counts["truncated"] == long.sum() and counts["windowed"] == counts["windows"] == 0
    lost = (whole.tokens - table.tokens).sum()
    assert counts["tokens_cut"] == lost and (table.tokens[long] == CONTEXT - 1).all()


def test_targets_and_uncounted_eos(run_cli, score_arguments, data_files, tmp_path):
    pairs = [a for a in score_arguments if "data.path" not in a]
    pairs.append(f"--config.data.path={data_files.tasks[0]}")
    found = {
        name: score(run_cli, pairs, tmp_path / name, *fields)[0]
        for name, fields in {
            "answers": (),
            "no_eos": ("data.eos_scored=false",),
            "all": ("data.targets=all",),
        }.items()
    }
    answers, no_eos, everything = (found[n] for n in ("answers", "no_eos", "all"))
    assert (answers.tokens - no_eos.tokens == 1).all()
    assert (answers.nll_sum > no_eos.nll_sum).all()
    assert (everything.tokens > answers.tokens).all()
    assert (everything.nll_sum > answers.nll_sum).all()


def test_tasks_in_windows_train_and_their_matrix_has_a_column_an_example(
    associate_arguments, run_cli, tmp_path
):
    fields = ["data.context=12", "data.too_long=windows", "repeat_tasks=0", "train.steps=2"]
    work = tmp_path / "run"
    given = [f"--config.{f}" for f in fields]
    status, _, err = run_cli(*associate_arguments, *given, f"--workdir={work}")
    assert status == 0, err
    found = matrix.load(work / "forgetting.zarr")
    assert found.metric == "nll" and found.z_MxN.shape == (3, 20)
    counts = json.loads((work / "summary.json").read_text())["over_context"]
    assert counts["upstream"]["windowed"] == 20 and counts["reverse"]["windows"] > 0
