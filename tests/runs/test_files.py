"""Files are old or whole, names never become paths, and a full disk is one clear line."""

import errno
import json
import os
import re
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax import files
from forget_jax.errors import UserError


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, call):
    target = tmp_path / "x.json"
    files.write_json(target, {"a": 1})

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(UserError, match=r"cannot write .*x\.json: No space left on device"):
        files.write_json(target, {"a": 2})
    assert files.read_json(target) == {"a": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["x.json"]


def test_a_really_full_disk_is_a_user_error(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        files.write_text(tmp_path / "x", "old")
        with pytest.raises(UserError, match="No space left on device"):
            files.write_bytes(tmp_path / "x", bytes(1 << 20))
        assert (tmp_path / "x").read_text() == "old"
        assert [f.name for f in tmp_path.iterdir()] == ["x"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_folder_in_the_way_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        files.write_text(tmp_path / "file" / "inside", "")


def test_parents_are_made(tmp_path):
    files.write_text(tmp_path / "a" / "b" / "c.txt", "é")
    assert (tmp_path / "a" / "b" / "c.txt").read_text(encoding="utf-8") == "é"


def test_json_of_numpy_jax_and_what_is_not_finite():
    value = {
        "scalar": np.float32(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "array": np.array([[1.0, np.nan], [np.inf, 2.0]]),
        "jax": jnp.arange(2),
        "tuple": (1, float("-inf"), None, "ü"),
        3: "number as key",
    }
    assert json.loads(files.dump_json(value)) == {
        "scalar": 0.5,
        "count": 3,
        "flag": True,
        "array": [[1.0, None], [None, 2.0]],
        "jax": [0, 1],
        "tuple": [1, None, None, "ü"],
        "3": "number as key",
    }


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_json_keeps_every_bit_of_a_float(x):
    assert json.loads(files.dump_json(x)) == x


def test_broken_json_names_file_and_line(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1,\n"b": }')
    with pytest.raises(UserError, match=r"x\.json, line 2: not valid JSON"):
        files.read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match=r"absent\.json does not exist"):
        files.read_json(tmp_path / "absent.json")


@given(st.text(max_size=300))
def test_a_safe_name_is_one_plain_file_name(name):
    safe = files.safe_name(name)
    assert re.fullmatch(r"[A-Za-z0-9._%~-]{1,200}", safe)
    assert not safe.startswith(".")


@given(st.text(max_size=300), st.text(max_size=300))
def test_different_names_have_different_files(a, b):
    assert (files.safe_name(a) == files.safe_name(b)) == (a == b)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", ".", "", "a\x00b", "a" * 999]
)
def test_hostile_names_stay_in_their_folder(tmp_path, name):
    files.write_text(tmp_path / "in" / files.safe_name(name), "x")
    assert [f.read_text() for f in (tmp_path / "in").iterdir()] == ["x"]
    assert [f.name for f in tmp_path.iterdir()] == ["in"]


def test_what_lies_in_an_object_store():
    assert files.is_local("a/b") and files.is_local("/a") and not files.is_local("gs://a/b")
