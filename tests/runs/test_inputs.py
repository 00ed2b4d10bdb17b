"""Inputs are held to what they were when a run began."""

import os

import pytest

from forget_jax.errors import UserError
from forget_jax.runs import inputs, once
from forget_jax.runs.workdir import Workdir


def work(folder, part=""):
    return Workdir(folder, "score", {"part": part})


def test_the_first_start_keeps_and_the_next_compares(tmp_path):
    inputs.check(work(tmp_path), {"a": "1"})
    inputs.check(work(tmp_path), {"b": "2"})
    assert once.unsealed(tmp_path / "inputs.json")[0] == {"a": "1", "b": "2"}
    inputs.check(work(tmp_path), {"a": "1", "c": "3"}, keep=False)
    assert "c" not in once.unsealed(tmp_path / "inputs.json")[0]
    before = (tmp_path / "inputs.json").read_bytes()
    with pytest.raises(UserError) as e:
        inputs.check(work(tmp_path), {"a": "1", "b": "3", "d": "4"})
    assert str(e.value).startswith(f"b changed after the run in {tmp_path} began")
    assert (tmp_path / "inputs.json").read_bytes() == before


def test_parts_of_a_run_share_what_they_know_and_no_file(tmp_path):
    inputs.check(work(tmp_path, "0/2"), {"a": "1"})
    inputs.check(work(tmp_path, "1/2"), {"a": "1", "b": "2"})
    for part in ("", "0/2"):
        with pytest.raises(UserError, match="b changed"):
            inputs.check(work(tmp_path, part), {"b": "3"})


@pytest.mark.parametrize("size", [0, 1, 5000, inputs.WHOLE + 12345])
def test_every_byte_of_a_file_counts_but_of_the_largest(size, tmp_path):
    path = tmp_path / "data"
    path.touch()
    os.truncate(path, size)
    before = inputs.of_path(path)
    assert inputs.of_path(path) == before
    for place in range(0, size, max(1, size // 2)):
        with path.open("r+b") as f:
            f.seek(place if size < inputs.WHOLE else 0)
            f.write(os.urandom(16))
        assert inputs.of_path(path) != before
        before = inputs.of_path(path)
    with path.open("ab") as f:
        f.write(b"\0")
    assert inputs.of_path(path) != before


def test_a_folder_is_its_files_and_their_names(tmp_path):
    (tmp_path / "m" / "c").mkdir(parents=True)
    (tmp_path / "m" / "c" / "0").write_text("zero")
    before = inputs.of_path(tmp_path / "m")
    (tmp_path / "m" / "c" / "0").rename(tmp_path / "m" / "c" / "1")
    assert inputs.of_path(tmp_path / "m") != before


def test_of_a_model_other_files_do_not_count(tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text(name)
    before = inputs.of_weights(tmp_path)
    (tmp_path / "README.md").write_text("more")
    assert inputs.of_weights(tmp_path) == before
    (tmp_path / "tokenizer.json").write_text("other")
    assert inputs.of_weights(tmp_path) != before
