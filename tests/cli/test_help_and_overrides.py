"""Every field is explained, typed and overridable."""

import importlib
import json
import pkgutil

import pytest
from ml_collections import ConfigDict

from forget_jax import cli
from forget_jax import configs as all_configs
from forget_jax.commands import config, settings
from forget_jax.errors import UserError
from forget_jax.settings import check, leaves, rule

NAMES = sorted(
    m.name
    for m in pkgutil.iter_modules(all_configs.__path__)
    if hasattr(importlib.import_module(f"forget_jax.configs.{m.name}"), "get_config")
)
OTHERS = {
    "smollm2": "quickstart",
    "olmo": "associate",
}  # configs that are not called as their command is


def table(name):
    """The table of the command that a config is for."""
    command = name.partition(":")[0]
    return settings.TABLES[OTHERS.get(command, command)]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_lists_every_field_with_default_and_meaning(command, run_cli):
    status, out, err = run_cli(command, "--help")
    assert status == 0 and err == ""
    assert cli.COMMANDS[command] in out
    text = " ".join(out.split())
    for key, value in config.flat(config.load(command)).items():
        default = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        shown = f"--config.{key} {rule(table(command), key).meaning} [{default}]"
        assert " ".join(shown.split()) in text


def test_help_shows_overridden_values(run_cli):
    _, out, _ = run_cli("pretrain", "--config.train.steps=77", "--help")
    assert "[77]" in out


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_the_list_of_commands(argv, run_cli):
    status, out, _ = run_cli(*argv)
    assert status == 0
    assert all(f"  {name} " in out and what in out for name, what in cli.COMMANDS.items())


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_field_has_a_meaning_and_every_meaning_a_field(command):
    fields = config.flat(config.load(command))
    rules = {key: field.metadata["rule"] for key, field in leaves(table(command)).items()}
    assert set(fields) == set(rules) and all(x.meaning for x in rules.values())
    numbers = {
        key
        for key, x in fields.items()
        if isinstance(x[0] if isinstance(x, tuple) and x else x, int | float)
        and not isinstance(x, bool)
    }
    limited = {k for k, x in rules.items() if x.least is not None or x.above is not None}
    assert numbers == limited


CASES = ("smollm2:study", "smollm2:gpu", "olmo:associate,7b,lora")
SWEEPS = ("scaling:wide", "scaling:smollm2")


@pytest.mark.parametrize("name", [*NAMES, *CASES, *SWEEPS])
def test_the_defaults_are_within_their_limits(name):
    check(settings.read(table(name), config.load(name)))
    check(table(name)())


def test_a_stage_of_quickstart_has_the_meanings_and_limits_of_its_own_command():
    with pytest.raises(UserError, match=r"pretrain\.train\.steps is 0; it must be 1 or more"):
        c = config.load("quickstart")
        config.override(c, "pretrain.train.steps", "0")
        check(settings.read(settings.Quickstart, c))


def test_the_resolved_config_is_printed_and_nothing_runs(run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run_cli("score", "--config.data.context=77", "--print-config")
    assert (status, err) == (0, "") and not list(tmp_path.iterdir())
    shown = json.loads(out)
    assert shown["data"]["context"] == 77 and shown["score"]["chunk"] > 0
    status, out, err = run_cli("score", "--config.data.context=-1", "--print-config")
    assert (status, out) == (2, "") and "context" in err


def test_the_version(run_cli):
    status, out, _ = run_cli("--version")
    assert status == 0 and out.startswith("forget-jax ") and ", jax " in out


def test_every_command_has_a_module_and_a_config():
    for command in cli.COMMANDS:
        module = importlib.import_module(f"forget_jax.commands.{command}")
        assert callable(module.build if command == "report" else module.run)  # it makes no run
        assert command in NAMES


def sample():
    c = ConfigDict()
    c.names = ()
    c.numbers = (1, 2)
    c.rate = 0.5
    c.flag = False
    c.deep = ConfigDict({"text": "x", "count": 3})
    return c.lock()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("names", "a,b", ("a", "b")),
        ("names", 'a, "b,c" ,d', ("a", "b,c", "d")),
        ("names", "x.jsonl[0:3],y.jsonl", ("x.jsonl[0:3]", "y.jsonl")),
        ("names", "", ()),
        ("names", "('a', \"b,c\")", ("a", "b,c")),
        ("names", '["a"]', ("a",)),
        ("names", '("a")', ("a",)),
        ("names", "[]", ()),
        ("names", "(a, b)", ("(a", "b)")),  # no list of Python's
        ("numbers", "(1, 2e1,)", (1, 20)),
        ("numbers", "3", (3,)),
        ("numbers", "4, 5,6", (4, 5, 6)),
        ("rate", "2", 2.0),
        ("rate", "1e-3", 1e-3),
        ("flag", "TRUE", True),
        ("flag", "no", False),
        ("flag", None, True),
        ("deep.count", "1e2", 100),
        ("deep.text", "007", "007"),
        ("deep.count", "-4", -4),
    ],
)
def test_overrides_take_the_type_of_the_default(key, text, value):
    c = sample()
    config.override(c, key, text)
    found = config.flat(c)[key]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("numbers", "1,x", "config.numbers takes a whole number, not 'x'"),
        ("numbers", "(1, 'x')", "config.numbers takes a whole number, not 'x'"),
        ("numbers", "1.5", "config.numbers takes a whole number, not '1.5'"),
        ("deep.count", "1e400", "config.deep.count takes a whole number, not '1e400'"),
        ("deep.text", None, "--config.deep.text needs a value"),
        ("rate", "", "config.rate takes a number, not ''"),
        ("rate", "nan", "config.rate takes a number, not 'nan'"),
        ("rate", "1,", "config.rate takes a number, not '1,'$"),
        (
            "rate",
            "1e-4,1e-3",
            "a number, not .*; for a run of each value: --sweep.rate=1e-4,1e-3 .* lrs",
        ),
        ("flag", "2", "config.flag takes true or false, not '2'$"),
        ("deep", "x", "no config field 'deep'"),
        ("deep.txt", "x", r"no config field 'deep.txt' \(did you mean deep.text\?\)"),
    ],
)
def test_wrong_overrides_are_said(key, text, said):
    with pytest.raises(UserError, match=said):
        config.override(sample(), key, text)


def test_a_config_of_ones_own_with_an_argument(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from forget_jax.configs import score\n"
        "def get_config(arg='a'):\n"
        "    c = score.get_config(arg)\n"
        "    c.score.rows = 2\n"
        "    return c\n"
    )
    assert config.load(f"{path}:b").model.path == "b"
    assert config.load(str(path)).score.rows == 2
    with pytest.raises((KeyError, AttributeError)):
        config.load(str(path)).score.raws = 3  # locked


def test_overrides_of_one_load_do_not_reach_the_next():
    first = config.load("score")
    config.override(first, "adapters", "a,b")
    assert config.load("score").adapters == ()


def test_the_name_of_a_field_alone_sets_it(run_cli, tmp_path):
    for argv in (["--config.quick", "--print-config"], ["--print-config", "--config.quick"]):
        status, out, _ = run_cli("bench", *argv)
        assert status == 0 and json.loads(out)["quick"] is True
    _, out, _ = run_cli("bench", "--config.quick", "false", "--print-config")
    assert json.loads(out)["quick"] is False


MINE = """\
# what differs
data: {path: [a.jsonl, "b,c.jsonl"], context: 1e2}
train:
  lr: 1e-3  # text to YAML 1.1
  steps: 30
model:
  path: base
"""


@pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
def test_a_file_says_what_differs_from_the_defaults(suffix, tmp_path, run_cli):
    file = tmp_path / f"mine.{suffix}"
    file.write_text(MINE if suffix != "json" else json.dumps({"train": {"steps": 30}}))
    c = config.load(str(file), "finetune")
    assert c.train.steps == 30 and c.train.batch_size == config.load("finetune").train.batch_size
    if suffix != "json":
        assert (c.train.lr, c.data.context) == (1e-3, 100)
        assert c.data.path == ("a.jsonl", "b,c.jsonl") and c.model.path == "base"
    argv = (f"--config={file}", "--config.train.steps=7", "--print-config")
    status, out, err = run_cli("finetune", *argv)
    assert (status, err) == (0, "") and json.loads(out)["train"]["steps"] == 7
    kept = tmp_path / "config.json"  # as a workdir has it
    kept.write_text(json.dumps({"command": "finetune", **json.loads(out)}))
    assert run_cli("finetune", f"--config={kept}", "--print-config")[1] == out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {step: 3}", "no config field 'train.step' (did you mean train.steps?)"),
        ("train: 3", "no config field 'train'"),
        ("train: {steps: [3]}", "config.train.steps takes one value, not a list"),
        ("train: {steps: x}", "config.train.steps takes a whole number, not 'x'"),
        ("train: {steps: null}", "train.steps is null"),
        ("command: score", "is of the command 'score', not of finetune"),
        ("- a", "holds a list"),
        ("a: [", "no YAML"),
        ("&x {a: *x}", "sections nested too deep"),
        ("data: {path: [[a]]}", "data.path is a list"),
        ("!!python/object/apply:os.getcwd []", "no YAML"),
    ],
)
def test_files_that_are_no_config(text, said, tmp_path, run_cli):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    status, out, err = run_cli("finetune", f"--config={file}")
    assert (status, out) == (2, "") and said in err and len(err.splitlines()) == 1
    status, _, err = run_cli("finetune", f"--config={tmp_path / 'none.yaml'}")
    assert status == 2 and "does not exist" in err
