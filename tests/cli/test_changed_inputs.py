"""A run goes on, and answers that it has ended, only with the inputs that it began with."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from forget_jax.runs import lock

CHANGED = "changed after the run in "


@pytest.fixture
def again(finished, tmp_path, run_cli):
    """Starts a finished run's command once more in a copy of its folder."""

    def start(arguments, *more, has_ended=True):
        work = tmp_path / "again"
        if not work.exists():
            shutil.copytree(finished(arguments), work)
        if not has_ended:
            (work / "summary.json").unlink(missing_ok=True)
        status, _, err = run_cli(*arguments, *more, f"--workdir={work}")
        return status, err.splitlines()[-1]

    return start


@pytest.fixture
def base(tiny_base, tmp_path_factory):
    return shutil.copytree(tiny_base, tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def rows(data_files, tmp_path_factory):
    return shutil.copy(data_files.tasks[0], tmp_path_factory.mktemp("rows") / "reverse.jsonl")


def finetune(base, rows):
    few = ["train.steps=2", "train.batch_size=4", "train.buckets=1", "lora.rank=2"]
    few += ["data.shuffle=-1", "train.warmup=0"]
    given = [f"model.path={base}", f"data.path={rows}[:20]", *few]
    return ["finetune", *(f"--config.{field}" for field in given)]


def edit_rows(path, row, text):
    lines = path.read_text().splitlines()
    lines[row] = json.dumps({"prompt": text, "completion": "b"})
    path.write_text("\n".join(lines) + "\n")


def edit_weights(base):
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * np.float32(1.001)
    save_file(tensors, base / "model.safetensors", {"format": "pt"})


def edit_tokenizer(base):
    path = base / "tokenizer_config.json"
    path.write_text(path.read_text().replace("{", '{"model_max_length": 63, ', 1))


@pytest.mark.fault("inputs changed under a workdir", "one line")
@pytest.mark.parametrize("has_ended", [True, False])
def test_of_a_fine_tune(has_ended, base, rows, again):
    argv = finetune(base, rows)
    assert again(argv, has_ended=True)[0] == 0
    for what, edit in (
        (f"rows of {rows}[:20]", lambda: edit_rows(rows, 3, "other")),
        (f"model.path {base}", lambda: edit_weights(base)),
        (f"model.path {base}", lambda: edit_tokenizer(base)),
    ):
        kept = {p: p.read_bytes() for p in (*base.iterdir(), rows)}
        edit()
        status, said = again(argv, has_ended=has_ended)
        assert (status, said.startswith(f"forget-jax: {what} {CHANGED}")) == (2, True), said
        for path, data in kept.items():
            path.write_bytes(data)
    status, said = again(argv, has_ended=has_ended)
    assert status == 0, said


@pytest.mark.fault("inputs changed under a workdir", "as it should be")
def test_what_a_run_does_not_read_may_change(base, rows, again):
    argv = finetune(base, rows)
    edit_rows(rows, 22, "beyond the slice")
    (base / "README.md").write_text("more")
    assert again(argv)[0] == 0
    edit_rows(rows, 23, "beyond the slice")
    (base / "README.md").write_text("other")
    status, said = again(argv)
    assert status == 0 and "has ended already" in said
    assert again(argv, has_ended=False)[0] == 0


def test_an_ended_run_whose_inputs_are_gone(base, rows, again, capsys):
    argv = finetune(base, rows)
    again(argv)
    rows.unlink()
    status, said = again(argv)
    assert status == 0 and "has ended already" in said
    rows.write_text("{")
    status, said = again(argv)
    assert status == 2 and "not valid JSON" in said


@pytest.mark.fault("inputs changed under a workdir", "one line")
def test_of_scores(finished, finetune_arguments, score_arguments, tmp_path, again):
    adapter = shutil.copytree(finished(finetune_arguments) / "adapter", tmp_path / "adapter")
    argv = [*score_arguments, f"--config.adapters={adapter}"]
    assert again(argv)[0] == 0
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {k: x * np.float32(2) for k, x in tensors.items()}, adapter / "adapter_model.safetensors"
    )
    status, said = again(argv)
    assert status == 2 and f"adapters {adapter} {CHANGED}" in said


def points(path, factor=1.0):
    lines = ["P,steps,l_ft,l_f,run"]
    for P in (100, 200, 400):
        lines += [f"{P},{n},{2 / n},{factor * P**0.3 * n**0.2},r{P}" for n in (10, 20, 40, 80, 160)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def fit(tmp_path):
    points(tmp_path / "points.csv")
    return ["scaling", f"--config.points.path={tmp_path}/points.csv", "--config.laws=constant"]


@pytest.mark.fault("inputs changed under a workdir", "one line")
def test_of_tables(tmp_path, fit, again):
    assert again(fit)[0] == 0
    points(tmp_path / "points.csv", 2.0)
    status, said = again(fit)
    assert status == 2 and f"points.path {tmp_path}/points.csv {CHANGED}" in said


def test_fields_that_touch_nothing_computed_may_change(fit, again, tmp_path, run_cli):
    assert again(fit)[0] == 0
    status, said = again(fit, "--config.laws=power_P,constant")
    assert status == 0 and "has ended already" not in said
    held = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert set(held["laws"]) == {"power_P", "constant"}
    kept = json.loads((tmp_path / "again" / "config.json").read_text())
    assert kept["laws"] == ["power_P", "constant"]
    assert "has ended already" in again(fit, "--config.laws=power_P,constant")[1]
    status, said = again(fit, "--config.seeds=3")
    assert status == 2 and "seeds was 2, now 3" in said
    assert json.loads((tmp_path / "again" / "summary.json").read_text()) == held


@pytest.mark.fault("two starts in one workdir", "one line")
def test_a_second_start_beside_the_first(fit, again, tmp_path):
    again(fit)
    with lock.held(tmp_path / "again"):
        status, said = again(fit)
    assert status == 2 and "is at work in" in said
