"""Scores and fine-tunes of a notebook: those of the commands, from whatever is at hand."""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest

import forget_jax
from forget_jax.associations import matrix
from forget_jax.data.examples import Example
from forget_jax.lm.model import Adapters
from tests.conftest import sentences

TRAIN = {"steps": 3, "batch_size": 4, "buckets": 1, "warmup": 1, "lr": 0.05, "rank": 2}


@pytest.fixture(scope="module")
def tuned(base, data_files):
    return forget_jax.finetune(base, data_files.tasks[:2], **TRAIN)


@pytest.fixture(scope="module")
def table(base, data_files, tuned):
    return forget_jax.score(base, data_files.upstream, tuned.adapters, buckets=1)


def test_the_matrix_is_that_of_the_command(base, tuned, table, data_files, run_cli, tmp_path):
    arguments = [f"--config.train.{k}={v}" for k, v in TRAIN.items() if k != "rank"]
    status, _, err = run_cli(
        "associate",
        f"--workdir={tmp_path / 'run'}",
        f"--config.model.path={base.path}",
        f"--config.tasks={','.join(map(str, data_files.tasks[:2]))}",
        f"--config.upstream={data_files.upstream}",
        "--config.data.context=64",
        "--config.repeat_tasks=0",
        "--config.lora.rank=2",
        "--config.score.buckets=1",
        *arguments,
    )
    assert status == 0, err
    held = matrix.load(tmp_path / "run" / "forgetting.zarr")
    z = forget_jax.forgetting(table)
    assert held.tasks == tuple(tuned.adapters) == tuple(z.task.values)
    assert held.examples == tuple(z.example.values)
    np.testing.assert_array_equal(held.z_MxN, z.values)
    kept = forget_jax.forgetting(tmp_path / "run" / "scores.zarr")
    assert kept.equals(z)
    adapters = tmp_path / "run" / "adapters"
    folders = {name: adapters / name for name in tuned.adapters}
    again = forget_jax.score(base, data_files.upstream, folders, buckets=1)
    assert forget_jax.forgetting(again).equals(z)


def test_the_same_examples_in_every_form(base, tmp_path):
    pairs = [("2 + 2 =", "4"), ("3 + 3 =", "6"), ("the sailor", "paints two letters")]
    rows = [{"prompt": p, "completion": c} for p, c in pairs]
    examples = [Example(f"e{i}", "s", prompt=p, completion=c) for i, (p, c) in enumerate(pairs)]
    file = tmp_path / "pairs.jsonl"
    pd.DataFrame(rows).to_json(file, orient="records", lines=True)
    how = {"shuffle": -1}
    scores = [forget_jax.score(base, d, reading=how) for d in (pairs, rows, examples, file)]
    for other in scores[1:]:
        np.testing.assert_array_equal(other.nll_sum, scores[0].nll_sum)
        np.testing.assert_array_equal(other.tokens, scores[0].tokens)
    assert list(scores[0].example.values) == ["example#0", "example#1", "example#2"]
    assert list(scores[2].example.values) == ["e0", "e1", "e2"]
    assert list(scores[3].source.values) == ["pairs"] * 3
    without = forget_jax.score(base, pairs, reading={"eos_scored": False})
    np.testing.assert_array_equal(without.tokens, scores[0].tokens - 1)


def test_adapters_of_other_ranks_stand_in_one_table(base, tuned, tmp_path):
    full = tuned.adapters["shout"]
    cut = jax.tree.map_with_path(
        lambda path, x: x[..., :1] if path[-1].key == "a" else x[:, :1], full.tree
    )
    half = Adapters(dataclasses.replace(full.config, rank=1), cut)
    forget_jax.save_adapter(tmp_path / "half", half, base)
    texts = sentences(5, 7)
    both = forget_jax.score(base, texts, {**tuned.adapters, "half": tmp_path / "half"})
    assert list(both.model.values) == ["base", *tuned.adapters, "half"]
    alone = forget_jax.score(base, texts, tmp_path / "half")
    assert list(alone.model.values) == ["base", str(tmp_path / "half")]
    np.testing.assert_array_equal(alone.nll_sum[1], both.sel(model="half").nll_sum)
    assert (both.sel(model="half").nll_sum != both.sel(model="shout").nll_sum).all()


def test_what_the_settings_of_a_table_add(base, tuned):
    found = forget_jax.score(
        base, sentences(4, 8), tuned.adapters, measures=True, per_token=True, packing="false"
    )
    kl, logp = found.kl_sum, found.logp
    assert (kl.sel(model="base") == 0).all() and (kl.isel(model=slice(1, None)) > 0).all()
    np.testing.assert_allclose(-logp.sum("target"), found.nll_sum, rtol=1e-5)


def test_what_fine_tuning_gives(base, tuned, data_files):
    assert list(tuned.adapters) == ["reverse", "shout"]
    one = tuned.adapters["shout"]
    assert one.config.rank == 2 and one.on_host
    assert {x.ndim for x in jax.tree.leaves(one.tree)} == {3}  # no task axis
    assert tuned.losses.shape == (3, 2)
    assert len(repr(tuned)) < 1000  # no weights in a notebook's output
    own = {"by_task": ["shout.steps=2"], "heldout": 4, "eval_every": 2}
    found = forget_jax.finetune(base, data_files.tasks[:2], **TRAIN | own)
    assert found.losses.shout.notna().tolist() == [True, True, False]
    assert list(found.heldout.columns) == ["reverse", "shout"] and found.heldout.index[0] == 2


def test_a_task_that_fails_leaves_the_others(base, data_files, capsys):
    tasks = {"good": data_files.tasks[0], "bad": data_files.tasks[1]}
    settings = TRAIN | {"by_task": ["bad.lr=1e30"], "clip": 0.0}
    found = forget_jax.finetune(base, tasks, **settings)
    assert list(found.adapters) == ["good"] and list(found.failed) == ["bad"]
    assert "of bad is" in capsys.readouterr().err
    with pytest.raises(forget_jax.UserError, match=r"no task is left: the .* of bad"):
        forget_jax.finetune(base, {"bad": data_files.tasks[1]}, **settings)


def test_one_job_one_line(base, tuned, monkeypatch, capsys):
    monkeypatch.setattr("forget_jax.runs.progress.rewrites", lambda stream: True)
    forget_jax.score(base, ["The sailor paints.", "A poet.", "Two letters."], tuned.adapters)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "score base" in err and "score shout: example 3/3" in err


MISTAKES = {
    "finetune has no setting 'lrr' \\(did you mean lr\\?\\)": {"lrr": 1e-3},
    "finetune has no setting 'trace'": {"trace": 3},
    "finetune: steps takes a whole number, not '10'": {"steps": "10"},
    "finetune: steps takes a whole number, not True": {"steps": True},
    "finetune: lr takes a number, not nan": {"lr": float("nan")},
    "finetune: rslora takes True or False, not 1": {"rslora": 1},
    "finetune: by_task takes a list of texts": {"by_task": "a.steps=3"},
    "finetune.dropout is 1.0; it must be": {"dropout": 1},
    "finetune.schedule is 'cosin'.*cosine": {"schedule": "cosin"},
    "rank must be above 0": {"rank": 0},
    "reading has no setting 'templat' \\(did you mean template": {"reading": {"templat": "x"}},
    "train.by_task names task 'b'": {"by_task": ["b.steps=3"]},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_in_settings(base, message):
    with pytest.raises(forget_jax.UserError, match=message):
        forget_jax.finetune(base, {"a": ["one two three"]}, **MISTAKES[message])


def test_numbers_of_numpy_are_numbers(base):
    scores = [forget_jax.score(base, ["one two three"], rows=rows) for rows in (4, np.int64(4))]
    assert scores[0].identical(scores[1])


def test_mistakes_in_data(base, data_files, tmp_path):
    cases = {
        "is 'builtin:facts', a data set: give it by itself": ["builtin:facts"],
        "a data set: give it by itself": ["a text", str(data_files.upstream)],
        "item 1 of the list is blank": ["a text", "  "],
        "item 0 of the list is 3; it must be a text, a pair": [3],
        "the list of examples is empty": [],
        "two examples are called x": [{"text": "a b", "name": "x"}, {"text": "c d", "name": "x"}],
        "item 0 of the list: completion is missing": [{"prompt": "a"}],
        "does not exist": str(tmp_path / "none.jsonl"),
    }
    for message, data in cases.items():
        with pytest.raises(forget_jax.UserError, match=message):
            forget_jax.score(base, data)
    upstream = data_files.upstream
    with pytest.raises(forget_jax.UserError, match="an adapter is called base"):
        forget_jax.score(base, upstream, {"base": tmp_path})
    with pytest.raises(forget_jax.UserError, match="two tasks are called upstream"):
        forget_jax.finetune(base, [upstream, f"{upstream}[:4]"], **TRAIN)
    with pytest.raises(forget_jax.UserError, match="examples of a task come with its name"):
        forget_jax.finetune(base, [("a", "b")], **TRAIN)
    with pytest.raises(forget_jax.UserError, match="a task is called base"):
        forget_jax.finetune(base, {"base": upstream}, **TRAIN)
    for nothing in ({}, []):
        with pytest.raises(forget_jax.UserError, match="no task is given"):
            forget_jax.finetune(base, nothing, **TRAIN)


def test_mistakes_in_loading(tiny_base, tmp_path):
    with pytest.raises(forget_jax.UserError, match=r"load\.dtype is 'fp16'"):
        forget_jax.load(tiny_base, "fp16")
    with pytest.raises(forget_jax.UserError, match="is not a folder"):
        forget_jax.load(tmp_path / "none")
