"""Summaries as dataclasses: what the files hold, and what is said of one that does not fit."""

import dataclasses
import json
import math
import types
import typing
from typing import Any

import numpy as np
import pytest

from forget_jax import files
from forget_jax.commands import report, summaries
from forget_jax.errors import UserError

TRAINING = (
    *("loss_first", "loss_last", "tokens_per_second", "real_tokens", "flops_per_second"),
    *("mfu", "peak_memory", "steps"),
)
# The keys of each command's summary.json, in order; scripts and notebooks read them.
KEYS = {
    "pretrain": (
        *TRAINING,
        *("parameters", "train_tokens_available", "heldout_loss", "unigram_loss"),
        *("heldout_tokens", "seconds"),
    ),
    "finetune": (
        *TRAINING,
        *("trained_parameters", "updates", "examples", "over_context", "useful_fraction"),
        "seconds",
    ),
    "score": (
        *("examples", "tokens", "nll_mean", "nll_mean_by_model", "mean_z_by_model"),
        "tokens_per_second",
        *("useful_fraction", "not_finite", "not_finite_names", "over_context"),
        *("order_dependence", "seconds"),
    ),
    "check": ("unit", "level", "before", "sets", "behaviour", "over", "seconds"),
    "associate": (
        *("metric", "tasks", "examples", "mean_z", "share_positive", "mean_z_by_task"),
        *("r2_rank", "r2_additive", "r2_row", "r2_column", "f1_rank", "test_retest", "seed_rmse"),
        *(
            "missing",
            "improved",
            "columns_improved",
            "columns_dropped",
            "em",
            "f1",
            "prompts_cut",
            *TRAINING,
            "base_nll_mean",
        ),
        *("useful_fraction", "failed", "over_context", "seconds"),
    ),
    "predict": ("tasks", "method", "coverage", "examples", "predicted", "seconds"),
    "evaluate": (
        *("methods", "best", "paired", "k", "best_at_k", "paired_at_k", "observed", "seeds"),
        *("train_tasks", "test_tasks", "seconds"),
    ),
    "probes": (
        *("columns", "columns_by_aim", "expected_errors", "against_random", "observed", "aim"),
        *("texts", "tasks", "seconds"),
    ),
    "replay": (
        *("replay", "paired_test", "headroom", "base_upstream_nll", "tasks", "seeds", "evaluated"),
        *(*TRAINING, "useful_fraction", "over_context", "candidates", "observed", "seconds"),
    ),
    "mix": (
        *("strategy", "ratio", "task_rows", "replayed", "candidates", "rows", "expected_z"),
        *("expected_z_by_source", "curve", "saved", "trainers", "seconds"),
    ),
    "scaling": (
        *("laws", "not_fitted", "failed", "points", "runs", "seeds", "curves", "checks"),
        "seconds",
    ),
    "plan": (
        *("ask", "P", "rank", "lr", "steps", "steps_low", "steps_high", "forgetting"),
        *("forgetting_low", "forgetting_high", "run_low", "run_high", "l_ft", "budget_left"),
        *("others", "law", "formula", "target", "limit", "baseline", "level", "laws"),
        *("not_fitted", "nulls", "tried", "unseen", "valid", "curve", "warnings", "points"),
        "seconds",
    ),
    "factoids": (
        *("factoids", "by_seed", "after", "paired_test", "headroom", "sequences", "seeds"),
        *("facts_a", "facts_b", "facts", "dropped", "known", "seconds"),
    ),
    "export": ("path", "base", "format", "bytes"),
    "bench": (
        *("what", "rows", "ratio", "notes", "tokens_per_second", "mfu", "peak_bytes"),
        *("matmul_flops", "seconds"),
    ),
    "quickstart": (
        *("parameters", "heldout_loss", "unigram_loss", "tasks", "examples", "mean_z"),
        *("share_positive", "r2_rank", "r2_additive", "test_retest", "useful_fraction"),
        *("methods", "best", "replay", "paired_test", "laws", "points", "runs", "factoids"),
        *("facts_a", "facts_b", "seconds"),
    ),
}
SPARSE = {
    "score": {"order_dependence"},
    "associate": {"f1_rank", "columns_dropped", "em", "f1", "prompts_cut"},
    "bench": {"tokens_per_second", "mfu", "peak_bytes", "matmul_flops"},
}


def example(kind: Any) -> Any:
    """Some value of a field's type, with every group in it filled."""
    inner = typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: example(hints[f.name]) for f in dataclasses.fields(kind)})
    if isinstance(kind, types.UnionType):
        return example(inner[0])
    if typing.get_origin(kind) is dict:
        return {"a name": example(inner[1])}
    if typing.get_origin(kind) is tuple:
        return tuple(example(k) for k in (inner[:1] * 2 if inner[-1] is ... else inner))
    return {int: 3, float: 0.25, str: "a text", bool: True, object: "anything"}[kind]


def held(command: str) -> dict[str, Any]:
    return summaries.to_json(example(summaries.COMMANDS[command]))


def test_every_command_has_its_keys():
    assert set(KEYS) == set(summaries.COMMANDS)


@pytest.mark.parametrize("command", KEYS)
def test_what_is_written_is_read(command, tmp_path):
    made = example(summaries.COMMANDS[command])
    plain = summaries.to_json(made)
    assert tuple(plain) == ("command", *KEYS[command]) and plain["command"] == command
    files.write_json(tmp_path / "summary.json", plain)
    written = (tmp_path / "summary.json").read_text()
    read = summaries.read(type(made), tmp_path / "summary.json")
    assert read == summaries.load(tmp_path / "summary.json") == summaries.load(plain) == made
    files.write_json(tmp_path / "again.json", summaries.to_json(read))
    assert (tmp_path / "again.json").read_text() == written


@pytest.mark.parametrize("command", SPARSE)
def test_what_was_not_measured_is_left_out(command):
    without = dict.fromkeys(SPARSE[command])
    made = dataclasses.replace(example(summaries.COMMANDS[command]), **without)
    plain = summaries.to_json(made)
    assert set(plain) == {"command", *KEYS[command]} - SPARSE[command]
    assert summaries.load(plain) == made


def test_what_has_no_value_stays_as_null():
    made = dataclasses.replace(example(summaries.Associate), test_retest=None, mean_z=math.nan)
    plain = summaries.to_json(made)
    assert plain["test_retest"] is None and plain["mean_z"] is None
    read = summaries.read(summaries.Associate, plain)
    assert read.test_retest is None and math.isnan(read.mean_z)
    assert summaries.to_json(read) == plain


def test_whole_numbers_are_not_made_fractions():
    surface = summaries.Surface(P=(7296, 9), steps=(5.0,), l_f=((1.0,), (2.0,)))
    made = dataclasses.replace(example(summaries.Scaling), curves={"linear": surface})
    assert json.dumps(summaries.to_json(made)["curves"]["linear"]["P"]) == "[7296, 9]"
    assert json.dumps(summaries.to_json(summaries.load(summaries.to_json(made)))) == json.dumps(
        summaries.to_json(made)
    )


def test_numpy_values_are_written_plainly():
    made = dataclasses.replace(
        example(summaries.Score), nll_mean=np.float32(0.5), tokens=np.int64(7)
    )
    plain = summaries.to_json(made)
    assert type(plain["nll_mean"]) is float and type(plain["tokens"]) is int
    assert summaries.load(plain) == made


def refused(plain: dict[str, Any], command: str = "associate") -> str:
    with pytest.raises(UserError) as e:
        summaries.read(summaries.COMMANDS[command], plain)
    assert "\n" not in str(e.value) and str(e.value).startswith("summary.json")
    return str(e.value)


@pytest.mark.parametrize("name", ["r2_row", "loss_first", "seconds"])
def test_a_missing_field(name):
    plain = held("associate")
    del plain[name]
    line = refused(plain)
    assert f"{name} is missing" in line and "another version" in line
    assert "forget-jax associate" in line and "forget-jax report" in line


def test_an_unknown_field():
    line = refused({**held("associate"), "r2_new": 1.0})
    assert "r2_new is unknown" in line and "forget-jax report" in line


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("tasks", 1.5, "tasks must be a whole number, not 1.5"),
        ("tasks", True, "tasks must be a whole number, not True"),
        ("tasks", None, "tasks must be a whole number, not None"),
        ("mean_z", "0.5", "mean_z must be a number, not '0.5'"),
        ("metric", 3, "metric must be a text, not 3"),
        ("r2_rank", 0.5, "r2_rank must be a list, not 0.5"),
        ("r2_rank", [0.5, "x"], "r2_rank[1] must be a number, not 'x'"),
        ("steps", "4", "steps must be a whole number"),
        ("mean_z_by_task", [1], "mean_z_by_task must be a group of figures, not [1]"),
        ("failed", {"t": 1}, "failed.t must be a group of figures, not 1"),
        ("failed", {"t": {"step": 1}}, "failed.t.loss is missing"),
        ("metric", ["x" * 500], "metric must be a text, not ['xxx"),
    ],
)
def test_a_field_of_another_type(name, value, words):
    line = refused({**held("associate"), name: value})
    assert words in line and "forget-jax report" in line and len(line) < 400


def test_groups_are_checked_inside():
    law = held("scaling")["laws"]["a name"]
    for change, words in (
        ({"ci": {"s": [1.0]}}, "laws.linear.ci.s holds 1 values, not 2"),
        ({"converged": 1}, "laws.linear.converged must be true or false, not 1"),
        ({"aicc": 1.0}, "laws.linear.aicc is unknown"),
    ):
        plain = {**held("scaling"), "laws": {"linear": {**law, **change}}}
        assert words in refused(plain, "scaling")


def test_another_commands_summary():
    assert "the summary of probes, not of associate" in refused(held("probes"))
    with pytest.raises(UserError, match=r"asociate is no command \(did you mean associate\?\)"):
        summaries.load({"command": "asociate"})
    with pytest.raises(UserError, match="None is no command"):
        summaries.load({})
    with pytest.raises(UserError, match="is no command"):
        summaries.load({"command": ["associate"]})


def test_a_page_of_another_version_is_refused_by_file_and_field(tmp_path):
    plain = held("evaluate")
    plain["methods"]["a name"]["rmsd"] = plain["methods"]["a name"].pop("rmse")
    files.write_json(tmp_path / "summary.json", plain)
    with pytest.raises(UserError) as e:
        report.build(tmp_path)
    assert str(e.value).startswith(f"{tmp_path / 'summary.json'}: methods.a name.rmse is missing")
    (tmp_path / "summary.json").write_text("[1]")
    with pytest.raises(UserError, match="holds no summary"):
        report.build(tmp_path)


@pytest.mark.parametrize(
    "command", ["evaluate", "predict", "probes", "replay", "factoids", "bench", "export"]
)
def test_a_page_needs_only_folder_and_summary(command, tmp_path):
    made = example(summaries.COMMANDS[command])
    if command == "bench":
        made = dataclasses.replace(made, rows=({"system": "jax", "setting": "cpu", "mfu": 0.5},))
    page = report.html(files.Path(tmp_path), made)
    assert f"forget_jax: {command}" in page and not list(tmp_path.iterdir())
