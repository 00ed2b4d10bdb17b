"""Exact-match forgetting from the command line, against slow greedy decoding without a cache."""

import json
import signal

import jax
import numpy as np
import pytest
import xarray as xr

from forget_jax.associations import matrix
from forget_jax.lm import decoder, generate, lora
from forget_jax.lm.hf import checkpoint, peft
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.logprob import logits
from forget_jax.lm.model import Batch, Model
from forget_jax.scoring.exact_match import f1, is_correct, squad

NEW = 6


@pytest.fixture(scope="module")
def prompts(data_files):
    rows = [json.loads(x) for x in data_files.tasks[0].read_text().splitlines()]
    return [f"say {row['completion']} {i}" for i, row in enumerate(rows[:18])]


def slow_answers(folder, adapter, prompts):
    """Greedy decoding that computes the whole row again for every token, adapters merged in."""
    model, tokenizer = checkpoint.load(folder), tokenizers.load(folder)
    if adapter is not None:
        one = peft.load(adapter, model)
        model = Model(model.config, lora.merge(one.config, model.params, one.tree))
    ids = [tokenizer(p + "\n")["input_ids"] for p in prompts]  # BOS among them
    rows = np.zeros((len(ids), max(map(len, ids)) + NEW), np.int32)
    for row, own in zip(rows, ids, strict=True):
        row[: len(own)] = own
    end_of = decoder.head(model.params)
    step = jax.jit(lambda x: logits(decoder.hidden(model, None, Batch(x)), end_of))
    new = [[] for _ in ids]
    for t in range(NEW):
        best = np.asarray(step(rows).argmax(-1))
        for r, own in enumerate(ids):
            token = int(best[r, len(own) + t - 1])
            rows[r, len(own) + t] = token
            new[r].append(token)
    said = []
    for tokens in new:
        end = tokens.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in tokens else NEW
        text = tokenizer.decode(tokens[:end], skip_special_tokens=True)
        said.append(text.split("\n\n")[0])
    return said


@pytest.fixture(scope="module")
def base_answers(tiny_base, prompts):
    return slow_answers(tiny_base, None, prompts)


@pytest.fixture(scope="module")
def rows(prompts, base_answers):
    """Two of three rows are what the base says anyway, some of them as an alias only."""
    found = []
    for i, (prompt, said) in enumerate(zip(prompts, base_answers, strict=True)):
        wanted = [f"no{i}", f"the {said}."] if i % 3 == 1 else said if i % 3 else f"no{i}"
        found.append({"prompt": prompt, "completion": wanted})
    return found


@pytest.fixture(scope="module")
def arguments(associate_arguments, rows, tmp_path_factory):
    file = tmp_path_factory.mktemp("recite") / "known.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    given = [a for a in associate_arguments if "config.upstream" not in a]
    return [
        *given,
        f"--config.upstream={file}",
        "--config.data.shuffle=-1",
        "--config.metric=exact_match",
        f"--config.exact_match.max_new_tokens={NEW}",
    ]


@pytest.fixture(scope="module")
def done(arguments, finished):
    return finished(arguments)


def summary(work):
    return json.loads((work / "summary.json").read_text())


def accepted(row):
    return [row["completion"]] if isinstance(row["completion"], str) else row["completion"]


def test_z_is_base_correct_minus_after_correct(done, rows, prompts, base_answers, tiny_base):
    right = [is_correct(t, accepted(r), "squad") for t, r in zip(base_answers, rows, strict=True)]
    assert any(squad(t) for t in base_answers) and 0 < sum(right) < len(rows)
    found = matrix.load(done / "forgetting.zarr")
    assert found.metric == "exact_match"
    assert found.examples == tuple(f"known#{i}" for i, ok in enumerate(right) if ok)
    changed = 0
    for task, z_N in zip(found.tasks, found.z_MxN, strict=True):
        said = slow_answers(tiny_base, done / "adapters" / task, prompts)
        after = [is_correct(t, accepted(r), "squad") for t, r in zip(said, rows, strict=True)]
        wanted = [1.0 - b for a, b in zip(right, after, strict=True) if a]
        assert z_N.tolist() == wanted
        assert summary(done)["em"][task] == pytest.approx(np.mean(after))
        score = [f1(t, accepted(r)) for t, r in zip(said, rows, strict=True)]
        assert summary(done)["f1"][task] == pytest.approx(np.mean(score))
        changed += sum(wanted)
    assert 0 < changed < found.z_MxN.size  # something was forgotten and something was kept


def test_whole_fine_tuned_models_recite_too(arguments, rows, prompts, run_cli, tmp_path):
    fields = ["lora.rank=0", "repeat_tasks=0", "train.lr=0.01"]
    work = tmp_path / "run"
    status, _, err = run_cli(*arguments, *(f"--config.{f}" for f in fields), f"--workdir={work}")
    assert status == 0, err
    for task in ("reverse", "shout", "count"):
        said = slow_answers(work / "adapters" / task, None, prompts)
        after = [is_correct(t, accepted(r), "squad") for t, r in zip(said, rows, strict=True)]
        assert summary(work)["em"][task] == pytest.approx(np.mean(after))
    assert len({summary(work)["em"][name] for name in ("base", "reverse", "shout", "count")}) > 1


def test_the_summary_says_what_was_measured(done, rows):
    found = summary(done)
    assert found["metric"] == "exact_match" and found["prompts_cut"] == 0
    assert found["examples"] + found["columns_dropped"] == len(rows)
    assert found["em"]["base"] == pytest.approx(found["examples"] / len(rows))
    assert set(found["em"]) == set(found["f1"]) == {
        "base", "reverse", "shout", "count", "reverse, seed 1",
    }  # fmt: skip
    assert len(found["f1_rank"]) == len(found["r2_rank"]) == 3
    with xr.open_zarr(done / "scores.zarr", consolidated=False) as scores:
        assert scores.sizes["example"] == len(rows)  # log-likelihoods of all, base-correct or not


def test_the_page_says_what_was_measured(done):
    page = (done / "report.html").read_text()
    assert "By exact match" in page and "answered correctly (exact match)" in page
    assert "z in answers" in page and "z in nats" not in page
    assert "F1 of logistic factors" in page


def test_answers_are_kept_by_model_and_chunk(done, rows):
    folders = sorted(f.name for f in (done / "answers").iterdir())
    assert folders == ["base", "count", "reverse", "reverse%2C%20seed%201", "shout"]
    chunks = sorted((done / "answers" / "base").iterdir())
    kept = [json.loads(f.read_text())["value"] for f in chunks]
    assert [len(chunk) for chunk in kept] == [8, 8, 2]
    assert [name for chunk in kept for name in chunk] == [f"known#{i}" for i in range(len(rows))]


def test_parts_of_a_sweep_recite_their_own_tasks(arguments, done, tmp_path, run_cli):
    work = tmp_path / "run"
    there = {
        "0/2": {"base", "reverse", "shout"},
        "1/2": {"base", "reverse", "shout", "count", "reverse%2C%20seed%201"},
    }
    for part, wanted in there.items():
        status, _, err = run_cli(*arguments, f"--config.part={part}", f"--workdir={work}")
        assert status == 0, err
        assert {f.name for f in (work / "answers").iterdir()} == wanted
        assert not (work / "summary.json").exists()
    before = {f: f.stat().st_mtime_ns for f in (work / "answers").rglob("*.json")}
    assert run_cli(*arguments, f"--workdir={work}")[0] == 0
    assert {f: f.stat().st_mtime_ns for f in (work / "answers").rglob("*.json")} == before
    assert summary(work)["em"] == summary(done)["em"]


KILL = """
import os, signal, sys
from forget_jax import cli, files

write = files.write_bytes
def dying(path, data):
    if str(path).endswith("answers/reverse/1.json"):
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, data)
files.write_bytes = dying
sys.exit(cli.main(sys.argv[1:]))
"""


def test_killed_while_reciting(arguments, done, forked, tmp_path, run_cli, monkeypatch, figures):
    work = tmp_path / "run"
    dead = forked.run("-c", KILL, *arguments, f"--workdir={work}")
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    before = {f: f.stat().st_mtime_ns for f in (work / "answers").rglob("*.json")}
    assert len(before) == 3 + 1  # the base's three chunks and the first task's first
    recited = []
    answers = generate.answers

    def counted(model, adapters, prompts, *args, **kwargs):
        recited.append(len(prompts))
        return answers(model, adapters, prompts, *args, **kwargs)

    monkeypatch.setattr(generate, "answers", counted)
    status, _, err = run_cli(*arguments, f"--workdir={work}")
    assert status == 0, err
    assert recited == [8, 2, *[8, 8, 2] * 3]
    assert all(f.stat().st_mtime_ns == at for f, at in before.items())
    assert figures(work) == figures(done)
    xr.testing.assert_identical(
        *(xr.open_zarr(w / "forgetting.zarr", consolidated=False).load() for w in (work, done))
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["metric=em"], "metric is 'em'; it must be one of nll, exact_match"),
        (["exact_match.cut=blankline"], "cut is 'blankline' (did you mean blank_line?)"),
        (["exact_match.normaliser=sqad"], "normaliser is 'sqad' (did you mean squad?)"),
        (["exact_match.max_new_tokens=64"], "leaves no room for a prompt in the model's context"),
        (["exact_match.max_new_tokens=0"], "max_new_tokens is 0; it must be 1 or more"),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(arguments, fields, said, run_cli, tmp_path):
    given = [f"--config.{field}" for field in fields]
    status, _, err = run_cli(*arguments, *given, f"--workdir={tmp_path / 'run'}")
    assert status == 2 and said in err.splitlines()[-1] and "Traceback" not in err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_upstream_texts_are_refused(arguments, data_files, run_cli, tmp_path):
    upstream = (
        next(a for a in arguments if a.startswith("--config.upstream=")) + f",{data_files.upstream}"
    )
    status, _, err = run_cli(*arguments, upstream, f"--workdir={tmp_path / 'run'}")
    line = err.splitlines()[-1]
    assert status == 2 and "20 of 38 have none, upstream#0 first" in line
    assert "prompt and completion" in line and not (tmp_path / "run" / "checkpoints").exists()


def test_a_base_that_knows_nothing(arguments, prompts, run_cli, tmp_path):
    file = tmp_path / "unknown.jsonl"
    rows = [{"prompt": p, "completion": "never said"} for p in prompts[:4]]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    status, _, err = run_cli(
        *arguments, f"--config.upstream={file}", f"--workdir={tmp_path / 'run'}"
    )
    assert (
        status == 2 and "answers none of the 4 upstream examples correctly" in err.splitlines()[-1]
    )
