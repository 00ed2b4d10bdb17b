"""`--dry-run`: plans of memory, FLOPs, hours and files; nothing runs, and no weights are needed."""

import json
import re

import pandas as pd
import pytest

from forget_jax import cli
from forget_jax.commands import workload
from forget_jax.lm.cost.accelerators import UTILISATION
from tests.cli.conftest import FEW, SCORE


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(run_cli, *arguments, device=""):
    flag = f"--dry-run={device}" if device else "--dry-run"
    status, out, err = run_cli(*arguments, flag)
    assert status == 0, err
    return out


def flops(out, what):
    """Of the line of a part."""
    line = next(line for line in out.splitlines() if re.match(rf"\s+{what}", line))
    return float(re.search(r"([\d.e+]+) FLOPs", line)[1])


@pytest.mark.parametrize(
    ("command", "model", "method"),
    [
        *(("associate", "1b", ""), ("associate", "7b", ",lora"), ("associate", "7b-instruct", "")),
        *(("replay", "1b", ",lora"), ("replay", "7b", ""), ("replay", "7b-instruct", ",lora")),
    ],
)
def test_the_papers_settings_are_planned_without_weights_or_data(
    command, model, method, run_cli, elsewhere
):
    out = plan(run_cli, command, f"--config=olmo:{command},{model}{method}", device="h100:8")
    assert not list(elsewhere.iterdir())
    count = {"1b": 1_176_764_416, "7b": 6_888_095_744, "7b-instruct": 6_888_095_744}[model]
    assert f"model: {count:,} parameters" in out and "memory per device" in out
    assert "adapters/ (" in out and "in all" in out
    rate = UTILISATION * 8 * 989e12
    last = next(line for line in out.splitlines() if line.startswith("  in all"))
    hours = float(re.search(r"([\d.]+) h$", last)[1]) if last.endswith(" h") else None
    if hours is not None:
        assert hours == pytest.approx(flops(out, "in all") / rate / 3600, rel=0.05, abs=0.05)


def test_steps_of_a_model_cost_six_flops_a_parameter_and_token(run_cli):
    out = plan(run_cli, "associate", "--config=olmo:associate,1b")
    rows = 89 * 1000 * 8
    linear = 6 * (1_176_764_416 - 50304 * 2048) * rows * 1024
    found = flops(out, "train 89 fine-tunes")
    assert linear < found < 1.3 * linear  # and attention and the head
    assert f"{rows * 1024:,} tokens" in out and "time: name a device" in out


def test_a_shape_is_read_from_config_json_alone(run_cli, tiny_base, elsewhere):
    bare = elsewhere / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((tiny_base / "config.json").read_bytes())
    arguments = ["finetune", "--config.data.path=builtin:skill/addition[:12]", *FEW]
    short, long = (
        plan(run_cli, *arguments, f"--config.model.path={path}") for path in (tiny_base, bare)
    )
    assert "no tokenizer" in long and "no tokenizer" not in short
    assert flops(short, "train") < flops(long, "train")
    assert list(elsewhere.iterdir()) == [bare]


def test_what_is_planned_is_what_a_run_does(run_cli, finished, tiny_base):
    """Tokens of training, within what a sample can miss: rows differ in length."""
    arguments = [
        *("associate", f"--config.model.path={tiny_base}", "--config.data.context=48"),
        "--config.tasks=builtin:skill/addition[:12],builtin:skill/sorting[:12]",
        *("--config.upstream=builtin:language_reference[:24]", "--config.repeat_tasks=1"),
        *(*FEW, *SCORE),
    ]
    out = plan(run_cli, *arguments, device="1e9")
    work = finished(arguments)
    records = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    done = pd.DataFrame([r for r in records if "flops" in r])
    assert flops(out, "train 3 fine-tunes") == pytest.approx(done.flops.sum(), rel=0.1)
    assert "score 24 rows under 4 models" in out and "on 1e+09 FLOP/s" in out
    assert {f.name for f in work.iterdir()} >= {"scores.zarr", "forgetting.zarr", "examples.jsonl"}


@pytest.mark.parametrize("command", sorted(workload.WORKLOADS))
def test_every_command_that_trains_or_scores_has_a_plan(command, run_cli, tiny_base, elsewhere):
    model, task = f"--config.model.path={tiny_base}", "builtin:skill/addition[:12]"
    context = "--config.data.context=48"
    more = {
        "quickstart": [],
        "pretrain": [],
        "finetune": [model, f"--config.data.path={task}"],
        "score": [model, f"--config.data.path={task}"],
        "associate": [model, context],
        "replay": [
            *(model, context, "--config.matrix.path=m.zarr", "--config.replay.cost=nll,kl"),
            "--config.replay.strategies=none,random,generated,influence,surprise",
        ],
        "mix": [model, f"--config.task={task}"],
        "scaling": [model, context],
        "factoids": [model, context],
    }[command]
    out = plan(run_cli, command, *more, device="h100")
    assert " FLOPs" in out and "writes config.json" in out
    assert not list(elsewhere.iterdir())


def test_sets_of_facts_are_counted_by_the_columns_of_their_name(run_cli, tiny_base, tmp_path):
    rows = [{"question": f"where is {i}?", "answers": ["here"], "relation": "P1"} for i in range(9)]
    (tmp_path / "eq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {
        "stage_a": "builtin:short_facts[:9]",
        "stage_b": f"entityquestions={tmp_path}/eq.jsonl",
    }
    fields = [f"--config.{field}={value}" for field, value in given.items()]
    out = plan(run_cli, "factoids", f"--config.model.path={tiny_base}", *fields, device="h100")
    assert " FLOPs" in out


@pytest.mark.parametrize("command", sorted(set(cli.COMMANDS) - set(workload.WORKLOADS)))
def test_a_command_that_neither_trains_nor_scores_has_none(command, run_cli):
    status, out, err = run_cli(command, "--dry-run")
    assert (status, out) == (2, "") and len(err.splitlines()) == 1


@pytest.mark.fault("plans of runs that cannot be", "one line")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config=olmo:associate,7b", "--dry-run=h1000"], "did you mean"),
        (["--config=olmo:associate,7b", "--dry-run=h100:0"], "it takes a device"),
        (["--config=olmo:associate,7b", "--dry-run=h100:4"], "but there are 4"),
        (["--config=olmo:associate,7b", "--config.mesh.fsdp=1", "--dry-run=h100"], "what helps"),
        (["--config=olmo:associate,7b", "--config.model.path=a/b", "--dry-run"], "downloads"),
        (
            ["--config=olmo:associate,7b", "--config.tasks=x.jsonl", "--dry-run"],
            "cannot be counted",
        ),
    ],
)
def test_what_cannot_be_planned_is_said_in_one_line(arguments, said, run_cli):
    status, out, err = run_cli("associate", *arguments)
    assert (status, out) == (2, "") and said in err and len(err.splitlines()) == 1, err


def test_the_papers_data_come_from_a_folder(elsewhere, run_cli):
    for name in ("tasks/a.jsonl", "tasks/b.jsonl", "upstream/u.jsonl"):
        (elsewhere / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / "here" / name).write_text('{"text": "one"}\n{"text": "two"}\n')
    out = plan(run_cli, "associate", "--config=olmo:associate,1b,lora,here")
    assert "train 4 fine-tunes" in out and "score 2 rows under 5 models" in out
    for wrong in (
        "olmo:associate,2b",
        "olmo:finetune,1b",
        "olmo:associate",
        "olmo:associate,1b,no",
    ):
        status, _, err = run_cli("associate", f"--config={wrong}", "--dry-run")
        assert status == 2 and "does not take the argument" in err
