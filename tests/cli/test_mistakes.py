"""A user's mistake is one clear line and exit status 2, never a traceback."""

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from forget_jax import cli, files
from forget_jax.commands import config as configs


@pytest.fixture
def mistake(run_cli, tmp_path):
    """Runs a command that must fail, in a fresh workdir; returns its one line."""

    def run(*argv, workdir=tmp_path / "run", begins=False):
        remains = workdir.exists() or begins
        status, out, err = run_cli(*argv, f"--workdir={workdir}")
        assert status == 2, err
        assert out == "" and "Traceback" not in err
        lines = err.splitlines()
        said = [line for line in lines if line.startswith("forget-jax: ")]
        assert len(said) == 1 and lines[-1] == said[0]
        assert not (workdir / "summary.json").exists()
        assert workdir.exists() == remains  # a start that fails leaves no folder
        return said[0].removeprefix("forget-jax: ")

    return run


def jsonl(folder, text):
    path = folder / "rows.jsonl"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["assoziate"], r"unknown command 'assoziate' \(did you mean associate\?\)"),
        (["score", "--confg=x"], "unknown argument '--confg=x'"),
        (["score", "model"], "unknown argument 'model'"),
        (["score", "--config=nowhere.py"], "config nowhere.py does not exist"),
        (["score", "--config=scor"], r"no config named 'scor' \(did you mean score\?\)"),
        (["associate", "--config=associate:real"], "does not take the argument 'real'"),
        (
            ["pretrain", "--config.train.step=3"],
            r"no config field 'train.step' \(did you mean train.steps\?\)",
        ),
        (["pretrain", "--config.train.steps=3.5"], "train.steps takes a whole number, not '3.5'"),
        (["pretrain", "--config.train.lr=fast"], "train.lr takes a number, not 'fast'"),
        (["pretrain", "--config.data.eos=maybe"], "data.eos takes true or false, not 'maybe'"),
        (["pretrain", "--config.model.heads=5"], "model.heads=5 must divide model.width=96"),
        (["pretrain", "--config.model.heads=0"], "model.heads"),
        (["pretrain", "--config.model.layers=0"], "config.model.layers is 0; it must be 1 or more"),
        (["pretrain", "--config.model.width=0"], "model.width"),
        (["score"], "model.path is not given"),
        (["score", "--config.model.path=./nowhere"], "./nowhere is not a folder"),
    ],
)
def test_in_the_arguments(argv, said, mistake):
    import re

    assert re.search(said, mistake(*argv))


SIZES = [
    ("finetune", "train.batch_size=1000000000", "1048576 or less"),
    ("finetune", "train.batch_size=5000", "reverse has 24 rows; 1024 or less fit"),
    ("finetune", "train.steps=2147483648", "1000000000 or less"),
    ("finetune", f"train.seed={2**64}", "takes a whole number of at most 63 bits"),
    ("finetune", "lora.rank=1000000000", "65536 or less"),
    ("finetune", "mesh.fsdp=1000000000", "devices, but there are"),
    ("score", "score.rows=1000000000", "what helps: score.rows of "),
    ("pretrain", "model.width=1000000000", "65536 or less"),
    ("pretrain", "model.layers=1000000000", "1024 or less"),
    ("pretrain", "model.width=65536", "what helps: "),
    ("pretrain", "model.context=4000000", "what helps: a context of "),
]


@pytest.mark.fault("sizes that no machine holds", "one line")
@pytest.mark.parametrize(("command", "field", "said"), SIZES)
def test_a_size_that_does_not_fit(
    command, field, said, mistake, finetune_arguments, score_arguments, pretrain_arguments
):
    argv = {
        "finetune": finetune_arguments,
        "score": score_arguments,
        "pretrain": [*pretrain_arguments, "--config.model.layers=1024"],
    }[command]
    assert said in mistake(*argv, f"--config.{field}")


@pytest.mark.fault("sizes that no machine holds", "one line")
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["factoids", "--config.train.batch_size=1000000000"], "1048576 or less"),
        (["factoids", "--config.seeds=1000000000"], "100 or less"),
        (["replay", "--config.train.steps=1000000000"], "this machine's memory holds"),
    ],
)
def test_a_size_that_does_not_fit_a_comparison(argv, said, mistake):
    assert said in mistake(*argv, *(["--config.matrix.path=m.csv"] if argv[0] == "replay" else []))


@pytest.mark.fault("found before training", "one line")
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["associate", "--config.tasks=base.jsonl"], "a task is called base"),
        (
            ["associate", '--config.tasks=a.jsonl,"a, seed 1.jsonl"'],
            "two tasks are called a, seed 1",
        ),
        (["associate", "--config.train.by_task=x.steps=3"], "train.by_task names task 'x'"),
        (["scaling", "--config.laws=foo"], "config.laws names 'foo'"),
        (["scaling", "--config.target=lf"], "config.target is 'lf' (did you mean l_f?)"),
        (["scaling", "--config=scaling:empty"], "give task and upstream"),
        (["replay"], "give matrix.path"),
        (["replay", "--config.matrix.path=m", "--config.train.heldout=3"], "no effect in replay"),
        (["quickstart", "--config.predict.split.test_tasks=none"], "none"),
        (["quickstart", "--config.scaling.target=lf"], "config.target is 'lf'"),
    ],
)
def test_what_can_be_said_before_a_model_is_read(argv, said, mistake):
    assert said in mistake(*argv)


@pytest.mark.fault("paths of a workdir", "one line")
@pytest.mark.parametrize(
    ("workdir", "said"),
    [
        ("", "--workdir is empty"),
        ("a\0b", "holds characters that no path has"),
        ("a\udcff", "holds characters that no path has"),
        ("http://x/y", "must be a folder, or a gs:// folder"),
        ("file:///x", "must be a folder, or a gs:// folder"),
        ("long" * 100, "File name too long"),
    ],
)
def test_a_workdir_that_is_none(workdir, said, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run_cli("pretrain", f"--workdir={workdir}")
    assert status == 2 and said in err.splitlines()[-1] and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_too_small_for_bytes(mistake, data_files):
    data = f"--config.data.path={data_files.corpus}"
    assert "vocab_size >= 259" in mistake("pretrain", data, "--config.model.vocab_size=100")


def test_a_flag_without_its_value(run_cli):
    status, _, err = run_cli("score", "--config.model.path")
    assert status == 2 and "--config.model.path needs a value" in err


def test_a_config_that_does_not_run(mistake, tmp_path):
    broken = tmp_path / "mine.py"
    broken.write_text("import nothing_of_this_name\n")
    assert "mine.py: ModuleNotFoundError" in mistake("score", f"--config={broken}")
    broken.write_text("x = 1\n")
    assert "mine.py has no get_config()" in mistake("score", f"--config={broken}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"text": "a b c"}\n{"text": \n', "rows.jsonl, line 2: not valid JSON"),
        ('{"prompt": "a", "completion": "b"}\n{"prompt": "c"}\n', "line 2: completion is missing"),
        ("", "rows.jsonl is empty"),
        ('{"text": "  "}\n', "is empty: all of its 1 rows are blank"),
        ('{"prompt": "a"}\n', "line 1: completion is missing"),
        ('["a"]\n', "line 1: holds a list"),
        ('{"text": 7}\n', "line 1: text is a number"),
        ('{"body": "a b"}\n', "the columns are body"),
    ],
)
@pytest.mark.parametrize("command", ["finetune", "associate"])
def test_in_the_data(command, text, said, mistake, tmp_path, tiny_base, data_files):
    rows = jsonl(tmp_path, text)
    fields = {
        "finetune": [f"--config.data.path={rows}"],
        "associate": [f"--config.tasks={rows}", f"--config.upstream={data_files.upstream}"],
    }[command]
    given = [f"--config.model.path={tiny_base}", "--config.data.context=64"]
    assert said in mistake(command, *given, *fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["data.path=absent.jsonl"], "absent.jsonl does not exist"),
        (["data.path="], "no data set is named"),
        (["data.context=65"], "data.context=65 is over the model's own context of 64"),
        (["data.context=-1"], "data.context is -1"),
        (["data.template=Q: {question} {completion}"], "holds {question}; it takes {prompt} and"),
        (["data.template={prompt.__class__}{completion}"], "holds {prompt.__class__}; it takes"),
        (["data.template={prompt[0]}{completion}"], "holds {prompt[0]}; it takes"),
        (["data.template={prompt!r}{completion:>9}"], "holds {prompt!r}; it takes"),
        (["data.template={completion} {prompt}"], "must hold {prompt} once and {completion} once"),
        (["data.template={prompt} {completion"], "a brace that is text is written twice"),
        (["data.template=tulip"], r"data.template is 'tulip' (did you mean tulu?)"),
        (["data.too_long=cut"], "too_long is 'cut'; it must be one of truncate"),
        (["data.columns=prompt"], "data.columns takes pairs such as prompt=question"),
        (["data.columns=promt=question"], "'promt' is not a field"),
        (["data.path=builtin:skill/additon"], "additon"),
        (["train.steps=0"], "train.steps is 0; it must be 1 or more"),
        (["train.schedule=triangle"], "train.schedule is 'triangle'; it must be one of constant"),
        (["train.seed=-1"], "train.seed is -1"),
        (["train.clip=-1"], "train.clip is -1"),
        (["train.warmup=-2"], "train.warmup is -2"),
        (["lora.rank=-1"], "lora.rank is -1"),
    ],
)
def test_in_the_fields(fields, said, mistake, tiny_base, data_files):
    argv = [f"--config.{field}" for field in fields]
    given = [f"--config.model.path={tiny_base}", f"--config.data.path={data_files.tasks[0]}"]
    assert said in mistake("finetune", *given, *argv)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("tasks_together=-1", "config.tasks_together is -1; it must be 0 or more"),
        ("repeat_tasks=-1", "config.repeat_tasks is -1; it must be 0 or more"),
        ("r2_ranks=0", "r2_ranks is 0"),
        ("tasks=", "names no task"),
        ("upstream=", "no data set is named"),
        ("score.chunk=0", "score.chunk is 0; it must be 1 or more"),
        ("score.packing=maybe", "score.packing is 'maybe'; it must be one of auto, true, false"),
    ],
)
def test_in_the_fields_of_associate(field, said, mistake, associate_arguments):
    assert said in mistake(*associate_arguments, f"--config.{field}")


def test_two_tasks_of_one_name(mistake, associate_arguments, data_files):
    task = data_files.tasks[0]
    said = mistake(*associate_arguments, f"--config.tasks={task}[0:3],{task}[3:6]")
    assert said.startswith("two tasks are called ") and "reverse; rename" in said


def test_an_example_over_the_context_is_said_and_counted(
    run_cli, score_arguments, tmp_path, data_files
):
    fields = [*score_arguments, "--config.data.context=32", f"--workdir={tmp_path / 'run'}"]
    status, _, err = run_cli(*fields)
    assert status == 0 and "of 20 examples of upstream are longer than 32 tokens" in err
    counted = json.loads((tmp_path / "run" / "summary.json").read_text())["over_context"]
    assert counted["truncated"] > 0 and counted["tokens_cut"] >= counted["truncated"]


@pytest.mark.parametrize(
    ("too_long", "said"),
    [
        ("drop", "every one of the 20 examples is longer than the context of 4"),
        ("error", "tokens, over the context of 4"),
    ],
)
def test_every_example_over_the_context(too_long, said, mistake, score_arguments):
    fields = ["--config.data.context=4", f"--config.data.too_long={too_long}"]
    assert said in mistake(*score_arguments, *fields)


def test_a_workdir_of_another_config(run_cli, finished, score_arguments):
    work = finished(score_arguments)
    status, _, err = run_cli(*score_arguments, "--config.score.rows=3", f"--workdir={work}")
    assert status == 2 and "score.rows was 8, now 3" in err
    status, _, err = run_cli("pretrain", f"--workdir={work}")
    assert status == 2 and "holds a run of score, not of pretrain" in err


def test_an_adapter_of_another_base_is_refused(
    finished, finetune_arguments, score_arguments, tiny_base, tmp_path, run_cli
):
    adapter = finished(finetune_arguments) / "adapter"
    other = shutil.copytree(tiny_base, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    save_file(
        {n: x * np.float32(1.5) for n, x in tensors.items()},
        other / "model.safetensors",
        {"format": "pt"},
    )
    given = [f"--config.model.path={other}", f"--config.adapters={adapter}"]
    status, _, err = run_cli(*score_arguments, *given, f"--workdir={tmp_path / 'run'}")
    line = err.splitlines()[-1]
    assert status == 2 and "Traceback" not in err
    assert f"{adapter} was trained on {tiny_base} (" in line
    assert f"the base here is {other} (" in line


def test_a_workdir_that_is_a_file(mistake, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in mistake("pretrain", workdir=tmp_path / "file" / "x")


def test_report_of_an_empty_workdir(mistake):
    assert "holds no run that has ended" in mistake("report")


def test_a_disk_that_fills(mistake, monkeypatch, finetune_arguments):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in mistake(*finetune_arguments)


def test_a_really_full_disk_and_then_room(finetune_arguments, finished, tmp_path, run_cli, figures):
    """A small disk fills while Orbax writes; with more room the same command resumes."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        argv = [*finetune_arguments, f"--workdir={tmp_path / 'run'}"]
        full = python_m(*argv)
        assert full.returncode == 2 and "Traceback" not in full.stderr, full.stderr
        assert "No space left on device" in full.stderr.splitlines()[-1]
        assert len(full.stderr.splitlines()) < 12, full.stderr
        subprocess.run(["mount", "-o", "remount,size=20m", str(tmp_path)], check=True)
        status, _, err = run_cli(*argv)
        assert status == 0, err
        assert figures(tmp_path / "run") == figures(finished(finetune_arguments))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_loss_that_is_not_finite_stops_the_run(mistake, finetune_arguments):
    said = mistake(
        *(*finetune_arguments, "--config.train.lr=1e30", "--config.train.schedule=constant"),
        begins=True,
    )
    assert "reverse is n" in said and "at step" in said and "lower train.lr" in said
    assert "examples reverse" in said and "checkpoint" in said


def test_our_own_mistake_is_status_one(run_cli, monkeypatch, tmp_path):
    def broken(*args):
        raise RuntimeError("inside")

    monkeypatch.setattr(configs, "load", broken)
    status, _, err = run_cli("score", f"--workdir={tmp_path}")
    assert status == 1 and "RuntimeError: inside" in err and "internal error" in err


def test_an_error_of_several_lines_is_shown_as_one(run_cli, monkeypatch):
    def wrong(*args):
        raise files.UserError("one\n  two")

    monkeypatch.setattr(configs, "load", wrong)
    assert run_cli("score") == (2, "", "forget-jax: one two\n")


def python_m(*argv, **kwargs):
    command = [sys.executable, "-m", "forget_jax", *argv]
    return subprocess.run(command, capture_output=True, text=True, **kwargs)


def test_python_m_is_the_command():
    bad = python_m("score", "--config.modl.path=x")
    assert bad.returncode == 2 and bad.stdout == ""
    assert bad.stderr == (
        "forget-jax: no config field 'modl.path' (did you mean model.path?); "
        "see --help for all fields\n"
    )
    good = python_m()
    assert good.returncode == 0 and good.stderr == ""
    assert all(f"  {name} " in good.stdout for name in cli.COMMANDS)


def test_a_closed_pipe_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        command = [sys.executable, "-m", "forget_jax", "score", "--help"]
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr


@pytest.mark.parametrize("field", ["data.path", "model.path"])
def test_a_file_that_is_missing_is_told_before_anything_is_made(
    field, mistake, score_arguments, monkeypatch, tmp_path
):
    if field == "data.path":  # before the model is read, too
        monkeypatch.setattr("forget_jax.commands.values.reader", None)
    said = mistake(*score_arguments, f"--config.{field}={tmp_path / 'gone.jsonl'}")
    assert "gone.jsonl" in said


def test_a_start_that_goes_wrong_keeps_what_was_there(run_cli, score_arguments, tmp_path):
    work = tmp_path / "run"
    work.mkdir()
    (work / "notes.txt").write_text("mine")
    status, _, err = run_cli(*score_arguments, "--config.data.columns=text", f"--workdir={work}")
    assert status == 2 and "data.columns" in err
    assert (work / "notes.txt").read_text() == "mine"


def test_quiet_says_only_what_went_wrong(run_cli, score_arguments, tmp_path):
    given = [*score_arguments, f"--workdir={tmp_path / 'run'}", "--quiet"]
    assert run_cli(*given) == (0, "", "")
    assert (tmp_path / "run" / "report.html").exists()
    status, out, err = run_cli(*given, "--config.score.rows=3")
    assert (status, out) == (2, "") and err.startswith("forget-jax: ") and err.count("\n") == 1


@pytest.mark.fault("found before training", "one line")
@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("lora.targets=nothing", "lora.targets 'nothing' matches no linear layer of this model; "),
        ("lora.targets=(attn", "lora.targets '(attn' is not a regular expression"),
        ("lora.targets=q_proj,v_porj", "names 'v_porj' (did you mean v_proj?)"),
        ("lora.targets=q_porj", "'q_porj' (did you mean q_proj?) matches no linear layer"),
        ("lora.targets=q_proj,c_attn", "names c_attn, which this model has not; it has q_proj"),
    ],
)
def test_a_training_is_checked_before_folder_tokenizer_and_weights(
    field, said, mistake, monkeypatch, finetune_arguments, associate_arguments
):
    for late in ("values.reader", "driver.Workdir"):
        monkeypatch.setattr(f"forget_jax.commands.{late}", None)
    for argv in (finetune_arguments, associate_arguments):
        assert said in mistake(*argv, f"--config.{field}")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["scaling", "--config.methods=top:3"], "top:3 is too many of this model's 2 layers"),
        (["scaling", "--config.lora.targets=x"], "matches no linear layer"),
        (["factoids", "--config.lora.rank=2", "--config.lora.targets=x"], "matches no linear"),
        (["replay", "--config.matrix.path=m", "--config.lora.targets=x"], "matches no linear"),
    ],
)
def test_so_are_the_others(argv, said, mistake, monkeypatch, tiny_base):
    monkeypatch.setattr("forget_jax.commands.driver.Workdir", None)
    model = [] if argv[0] == "pretrain" else [f"--config.model.path={tiny_base}"]
    assert said in mistake(*argv, *model)


def test_rows_are_read_before_the_weights(mistake, monkeypatch, tmp_path, finetune_arguments):
    monkeypatch.setattr("forget_jax.commands.values.base", None)
    rows = jsonl(tmp_path, '{"text": "a b c"}\n{"text": \n')
    assert "line 2: not valid JSON" in mistake(*finetune_arguments, f"--config.data.path={rows}")
