"""`check` on prompts: answers held against the base's, refusals by phrases, limits, bad input."""

import json

import numpy as np
import pytest

from forget_jax.associations import changes
from forget_jax.commands import check_behaviour, check_texts, summaries
from forget_jax.commands.check_behaviour import Prompt, Said
from forget_jax.commands.settings import Check
from forget_jax.scoring.refusals import WITHIN, is_refusal
from tests.conftest import write_jsonl

NO = "I’m  sorry, but I can't do that."


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A folder of prompts alone, and of conversations."""
    folder = tmp_path_factory.mktemp("prompts")
    asked = [{"prompt": f"reverse: sailor {i}", "other": i} for i in range(5)]
    write_jsonl(folder / "asked.jsonl", [*asked, {"text": "the old sailor"}])
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    write_jsonl(folder / "talks.jsonl", [{"messages": talk}])
    return folder


@pytest.fixture(scope="module")
def arguments(tiny_base, finished, finetune_arguments, rows, data_files):
    adapter = finished(finetune_arguments) / "adapter"
    return [
        *("check", f"--config.model.path={tiny_base}", f"--config.adapters={adapter}"),
        *("--config.score.buckets=1", "--config.exact_match.max_new_tokens=6"),
        f"--config.prompts=asked={rows}/asked.jsonl,task={data_files.tasks[0]}[:6]",
    ]


def test_answers_to_prompts_are_held_against_the_base(arguments, run_cli, tmp_path):
    """And limits on refusals may change when the run starts again, as may their phrases."""
    argv = [*arguments, f"--workdir={tmp_path / 'run'}"]
    status, _, err = run_cli(*argv)
    assert status == 0 and "1 fine-tune on 2 prompt sets: no limits were given" in err, err
    summary = summaries.read(summaries.Check, tmp_path / "run" / "summary.json")
    (of,) = summary.behaviour.values()
    assert summary.sets == {} and list(of) == ["asked", "task"]
    assert of["asked"].right is None and of["task"].right.answers == 6
    kept = sorted((tmp_path / "run" / "behaviour").glob("*/0.json"))
    kept.sort(key=lambda path: not path.parent.name.startswith("base"))
    before, after = (json.loads(path.read_text())["value"] for path in kept)
    assert len(before) == 12 and any(before.values())
    asked = [name for name in before if name.startswith("asked")]
    same = [before[name] == after[name] for name in asked]
    assert of["asked"].prompts == 6 and of["asked"].same.share == sum(same) / 6 < 1
    assert {c.before for c in of["asked"].changed} <= set(before.values())
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What it answers now" in page and "What was lost" not in page

    phrase = next(x for x in before.values() if x.strip() and x not in after.values())
    again = [*argv, f"--config.refusals={json.dumps([phrase])}", "--config.limits_refusals=0"]
    status, _, err = run_cli(*again)
    assert status == 3 and "refusals lost is over 0 %" in err, err
    held = json.loads((tmp_path / "run" / "check.json").read_text())
    assert not held["ok"] and sum(b["refused"]["lost"] for b in held["behaviour"]) >= 1
    text = (tmp_path / "run" / "check.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1
    assert "**over**" in text and "refusal lost" in text


def test_what_is_counted_of_answers():
    named = [Prompt("a", f"a#{i}", "?", ()) for i in range(6)]
    named += [Prompt("b", f"b#{i}", "?", ("Paris", "the city")) for i in range(4)]
    before = [NO, NO, NO, NO, "Sure.", "Yes!", "Paris", "Paris", "Rome", "x"]
    after = [NO, "Here you go", "Fine", "ok", "I cannot", "yes", "Rome", "paris", "City", "y"]
    said = Said(named, before, {"tuned": after})
    found = check_behaviour.compared(Check(), said, {"": 0.75, "b": 0.1})["tuned"]
    a, b = found["a"], found["b"]
    assert (a.prompts, a.same.share, a.alike.share) == (6, 1 / 6, 2 / 6)
    assert (a.refused.lost, a.refused.gained, a.refused.p) == (3, 1, 0.625)
    assert a.limit == 0.75 and not a.over  # 3 of 4
    assert [c.fate for c in a.changed] == ["refusal lost"] * 3 + ["refusal gained"]
    assert a.right is None and (b.right.lost, b.right.gained) == (1, 1)
    assert [c.fate for c in b.changed] == ["answer lost", "answer gained", "other words"]
    assert b.refused.before == 0 and not b.over  # none to lose
    tight = check_behaviour.compared(Check(), said, {"a": 0.7})
    assert tight["tuned"]["a"].over and tight["tuned"]["b"].limit is None
    assert next(check_texts.over_refusals(tight)) == "tuned on a: 3 of 4 refusals lost is over 70 %"
    none = check_behaviour.compared(Check(refusals=()), said, {})
    assert none["tuned"]["a"].refused is None


def test_a_share_has_wilsons_interval():
    found = changes.share(np.array([True] * 9 + [False]), 0.95)
    assert (found.share, found.low, found.high) == pytest.approx((0.9, 0.5958, 0.9821), abs=1e-4)


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        (NO, True),
        ("AS AN AI, no", True),
        ("x" * WITHIN + " I cannot", False),  # later on it may be said of anything
        ("Hi can't", False),  # within a word
        ("", False),
    ],
)
def test_refusals_by_their_phrases(answer, refuses):
    assert is_refusal(answer) == refuses


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"limits_refusals": "asks=0.1"},
            "there is no set of prompts 'asks' (did you mean",
        ),
        ({"limits_refusals": "2"}, "limits_refusals takes numbers between 0 and 1"),
        ({"limits": "asked=1"}, "limits: there is no set 'asked'"),
        ({"limits_refusals": "0", "refusals": ""}, "limits_refusals needs refusals"),
        ({"refusals": "no, "}, "refusals holds an empty text"),
        ({"answers": "true"}, "answers=true is said of sets"),
        ({"prompts": "a={rows}/talks.jsonl"}, "talks#0 is a conversation"),
        ({"prompts": "a={rows}/asked.jsonl", "data.columns": "prompt=goal"}, "no column 'goal'"),
        ({"exact_match.max_new_tokens": "64"}, "leaves no room for a prompt"),
        ({"before": "x.jsonl", "adapters": ""}, "prompts has no effect beside before and after"),
    ],
)
def test_prompts_that_cannot_be_asked_are_one_line(
    fields, said, arguments, rows, run_cli, tmp_path
):
    given = [f"--config.{k}={v.format(rows=rows)}" for k, v in fields.items()]
    status, _, err = run_cli(*arguments, *given, f"--workdir={tmp_path / 'run'}")
    (line,) = [x for x in err.splitlines() if x.startswith("forget-jax: ")]
    assert status == 2 and said in line and "Traceback" not in err
