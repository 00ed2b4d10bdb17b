"""`check`: what fine-tunes lost of named sets, its exit status, and what it says of bad input."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from forget_jax.associations import changes
from forget_jax.commands import check_texts, summaries
from forget_jax.scoring import disk
from tests.conftest import write_jsonl

SETS = "facts={upstream},reverse={task}[:12]"


@pytest.fixture(scope="module")
def adapter(finished, finetune_arguments):
    return finished(finetune_arguments) / "adapter"


@pytest.fixture(scope="module")
def arguments(adapter, tiny_base, data_files):
    sets = SETS.format(upstream=data_files.upstream, task=data_files.tasks[0])
    return [
        *("check", f"--config.model.path={tiny_base}", f"--config.adapters={adapter}"),
        *(f"--config.sets={sets}", "--config.score.buckets=1", "--config.score.chunk=8"),
    ]


@pytest.fixture(scope="module")
def work(arguments, tmp_path_factory):
    from forget_jax import cli

    work = tmp_path_factory.mktemp("check") / "run"
    assert cli.main([*arguments, "--config.limits=99", f"--workdir={work}"]) == 0
    return work


def figures_of(work):
    (of,) = summaries.read(summaries.Check, work / "summary.json").sets.values()
    return of


def test_every_set_has_its_mean_with_interval_and_noise(work, adapter):
    found = figures_of(work)
    assert list(found) == ["facts", "reverse"]
    scored = disk.read(work / "scores.zarr")
    nll = scored.nll_sum / scored.tokens
    z_N = nll.sel(model=str(adapter)).values - nll.sel(model="base").values
    for name, mask in zip(found, (slice(0, 20), slice(20, 32)), strict=True):
        wanted = changes.change(z_N[mask], scored.tokens.values[0, mask], 0.95)
        assert found[name].examples == wanted.examples
        assert found[name].z == pytest.approx(wanted.mean)
        assert (found[name].low, found[name].high) == pytest.approx((wanted.low, wanted.high))
        assert 0 <= found[name].noise < 1e-4 and found[name].noise_example < 1e-3
        assert found[name].flips is None and found[name].over == ()
    assert found["reverse"].z < 0  # what it was trained on
    worst = found["facts"].worst
    assert [w.z for w in worst] == sorted((w.z for w in worst), reverse=True)
    assert worst[0].z == pytest.approx(z_N[:20].max()) and worst[0].text


def test_what_it_writes_for_machines_pull_requests_and_people(work):
    held = json.loads((work / "check.json").read_text())
    assert held["ok"] and held["unit"] == "nats/token"
    assert [c["set"] for c in held["checks"]] == ["facts", "reverse"]
    assert all(c["ok"] and c["limit"] == 99 for c in held["checks"])
    text = (work / "check.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4 and len({row.count("|") for row in rows}) == 1
    page = (work / "report.html").read_text()
    assert "What was lost" in page and "facts" in page and "noise floor" in page


def test_names_and_texts_of_users_are_no_markdown(work):
    """A name may hold anything: it ends no cell, and no line."""
    whole = summaries.read(summaries.Check, work / "summary.json")
    (of,) = whole.sets.values()
    nasty = "a|b\n<script>`*x*` [u](v)"
    worst = dataclasses.replace(of["facts"].worst[0], example=nasty, text=nasty)
    found = dataclasses.replace(of["facts"], worst=(worst,))
    text = check_texts.as_markdown(dataclasses.replace(whole, sets={nasty: {nasty: found}}))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 3 and len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "<script" not in text and "\\*x\\*" in text and "\\[u\\]" in text


def test_a_limit_that_is_passed_is_status_3_each_time(arguments, work, run_cli, tmp_path):
    """Limits may change when the run starts again: nothing is scored anew."""
    shutil.copytree(work, tmp_path / "run")
    before = (tmp_path / "run" / "scores.zarr" / "nll_sum" / "c" / "0" / "0").stat().st_mtime_ns
    facts = figures_of(work)["facts"].z
    assert facts > 1e-3
    argv = [*arguments, f"--workdir={tmp_path / 'run'}"]
    for _ in range(2):
        status, _, err = run_cli(*argv, f"--config.limits=facts={facts / 2},reverse=5")
        assert status == 3 and "forget-jax:" not in err
    held = json.loads((tmp_path / "run" / "check.json").read_text())
    assert not held["ok"] and "on facts: mean z" in held["over"][0] and len(held["over"]) == 1
    assert "**over" in (tmp_path / "run" / "check.md").read_text()
    status, _, err = run_cli(*argv, f"--config.limits=facts={facts * 2}")
    assert status == 0 and "within all limits" in err
    after = (tmp_path / "run" / "scores.zarr" / "nll_sum" / "c" / "0" / "0").stat().st_mtime_ns
    assert after == before


def test_a_change_below_the_noise_is_within_a_limit_of_zero(
    tiny_base, arguments, run_cli, tmp_path
):
    """The base checked against itself: every change is rounding."""
    argv = [a for a in arguments if "adapters" not in a]
    status, _, err = run_cli(
        *argv, f"--config.models={tiny_base}", "--config.limits=0", f"--workdir={tmp_path}"
    )
    assert status == 0, err
    assert all(c.z <= c.noise for c in figures_of(tmp_path).values())


def test_seeds_are_noise_too(arguments, adapter, tmp_path, run_cli, finished, finetune_arguments):
    again = finished([*finetune_arguments, "--config.train.seed=5"]) / "adapter"
    both = [f"--config.adapters={adapter},{again}", "--config.seeds=true"]
    status, _, err = run_cli(*arguments, *both, f"--workdir={tmp_path}")
    assert status == 0, err
    first, second = summaries.read(summaries.Check, tmp_path / "summary.json").sets.values()
    for name in first:
        gap = abs(first[name].z - second[name].z)
        assert first[name].noise == second[name].noise == pytest.approx(gap)


@pytest.fixture(scope="module")
def choices(tmp_path_factory):
    rows = [
        {"prompt": f"Which one? {i}", "completion": right, "options": options}
        for i, (right, options) in enumerate(
            [("a ship", ["a ship", "a clock", "two letters"]), ("the map", ["the map", "a boat"])]
            * 6
        )
    ]
    return write_jsonl(tmp_path_factory.mktemp("choices") / "choices.jsonl", rows)


def test_multiple_choice_is_judged_by_the_likeliest_option(arguments, choices, run_cli, tmp_path):
    argv = [a for a in arguments if "sets" not in a]
    status, _, err = run_cli(
        *argv, f"--config.sets=quiz={choices}", "--config.limits_lost=1", f"--workdir={tmp_path}"
    )
    assert status == 0, err
    found = figures_of(tmp_path)["quiz"]
    scored = disk.read(tmp_path / "scores.zarr")
    assert scored.sizes["example"] == 12 + 6 * 2 + 6 and found.examples == 12
    nll = {n: scored.nll_sum.sel(example=n).values for n in scored.example.values.tolist()}
    right_2xN = np.array(
        [
            np.min([x for n, x in nll.items() if n.startswith(f"choices#{i}|")], 0)
            > nll[f"choices#{i}"]
            for i in range(12)
        ]
    ).T
    assert found.flips.answers == 12 and found.flips.before == right_2xN[0].mean()
    assert found.flips.lost == (right_2xN[0] & ~right_2xN[1]).sum()
    options = np.tile([3.0, 2.0], 6)
    wanted = changes.flips(*right_2xN.astype(float), options).adjusted
    assert found.flips.adjusted.before == pytest.approx(wanted.before)


def test_recited_answers(arguments, run_cli, tmp_path, data_files):
    argv = [a for a in arguments if "sets" not in a]
    status, _, err = run_cli(
        *(*argv, f"--config.sets=reverse={data_files.tasks[0]}[:6]", "--config.answers=true"),
        *("--config.exact_match.max_new_tokens=6", f"--workdir={tmp_path}"),
    )
    assert status == 0, err
    flips = figures_of(tmp_path)["reverse"].flips
    assert flips.answers == 6 and flips.adjusted is None and 0 <= flips.before <= 1


def test_scores_of_ours_give_the_same_figures(
    work, arguments, score_arguments, adapter, data_files, run_cli, tmp_path
):
    """A workdir of `score` in place of models: sets are the sources."""
    argv = [*score_arguments, f"--config.adapters={adapter}"]
    data = f"--config.data.path={data_files.upstream},{data_files.tasks[0]}[:12]"
    status, _, err = run_cli(*argv, data, f"--workdir={tmp_path / 'score'}")
    assert status == 0, err
    before = f"--config.before={tmp_path / 'score'}"
    status, _, err = run_cli("check", before, f"--workdir={tmp_path / 'run'}")
    assert status == 0 and "no limits were given" in err, err
    found, wanted = figures_of(tmp_path / "run"), figures_of(work)
    for ours, theirs in zip(found.values(), wanted.values(), strict=True):
        assert ours.z == pytest.approx(theirs.z, abs=1e-6) and ours.noise is None
        assert [w.example for w in ours.worst] == [w.example for w in theirs.worst]
        assert all(w.text for w in ours.worst)


def refused(run_cli, argv, work):
    status, _, err = run_cli(*argv, f"--workdir={work}")
    (line,) = [x for x in err.splitlines() if x.startswith("forget-jax: ")]
    assert status == 2 and "Traceback" not in err
    assert not work.exists() or not (work / "summary.json").exists()
    return line


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"limits": "fact=0.1"}, "limits: there is no set 'fact' (did you mean facts?)"),
        ({"limits": "facts=-1"}, "limits takes numbers of 0 or more, or SET=NUMBER"),
        ({"limits": "facts=nan"}, "limits takes numbers"),
        ({"limits": "facts=1,facts=2"}, "limits names facts twice"),
        ({"limits_lost": "2"}, "limits_lost takes numbers between 0 and 1"),
        ({"sets": ""}, "give sets (what must not be lost, each NAME=DATASET)"),
        ({"adapters": ""}, "give adapters or models"),
        ({"seeds": "true"}, "seeds=true needs two fine-tunes or more"),
        ({"before": "x.jsonl"}, "adapters has no effect beside before and after"),
        ({"sets": "a={upstream},b={upstream}"}, "is in a and again in b"),
        ({"sets": "a={upstream}", "answers": "true"}, "no set has prompts and completions"),
    ],
)
def test_what_cannot_be_checked_is_one_line(fields, said, arguments, data_files, run_cli, tmp_path):
    given = [f"--config.{k}={v.format(upstream=data_files.upstream)}" for k, v in fields.items()]
    assert said in refused(run_cli, [*arguments, *given], tmp_path / "run")
