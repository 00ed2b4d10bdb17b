"""One start at a time in a run's folder."""

import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from forget_jax.errors import UserError
from forget_jax.runs import lock

HOLD = """
import sys, time
from forget_jax.runs import lock
with lock.held(*sys.argv[1:]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other():
    """Starts a process that holds a folder until it is killed."""
    started = []

    def start(*arguments):
        held = subprocess.Popen(
            [sys.executable, "-c", HOLD, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(held)
        assert held.stdout.readline() == b"held\n"
        return held

    yield start
    for held in started:
        held.kill()
        held.communicate()


def is_free(folder, part=""):
    try:
        with lock.held(folder, part):
            return True
    except UserError:
        return False


@pytest.mark.fault("two starts in one workdir", "one line")
def test_a_second_start_names_the_first(tmp_path, other):
    first = other(tmp_path / "run")
    with pytest.raises(UserError) as e, lock.held(tmp_path / "run"):
        pass
    said = f"process {first.pid} on {socket.gethostname()} (since "
    assert str(e.value).startswith(said) and f"is at work in {tmp_path / 'run'}" in str(e.value)


@pytest.mark.fault("two starts in one workdir", "as it should be")
def test_a_killed_start_leaves_the_folder_free(tmp_path, other):
    first = other(tmp_path)
    assert not is_free(tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert is_free(tmp_path) and is_free(tmp_path)


@pytest.mark.fault("two starts in one workdir", "as it should be")
def test_parts_go_on_beside_each_other_but_not_beside_the_whole(tmp_path, other):
    first = other(tmp_path, "0/2")
    assert is_free(tmp_path, "1/2") and not is_free(tmp_path, "0/2")
    with pytest.raises(UserError, match=f"process {first.pid} "), lock.held(tmp_path):
        pass
    first.kill()
    first.wait()
    with lock.held(tmp_path):
        assert not is_free(tmp_path, "1/2")


@pytest.mark.fault("a workdir removed while running", "one line")
@pytest.mark.parametrize("made_again", [False, True])
def test_a_folder_that_is_removed(tmp_path, made_again):
    folder = tmp_path / "run"
    said = "run was removed while the run was at work in it"
    with pytest.raises(UserError, match=said), lock.held(folder):
        shutil.rmtree(folder)
        if made_again:
            folder.mkdir()
        else:
            raise FileNotFoundError("as the work finds it")


def test_an_error_of_the_work_is_its_own(tmp_path):
    with pytest.raises(KeyError), lock.held(tmp_path):
        raise KeyError("x")
    assert [f.read_bytes() for f in tmp_path.iterdir()] == [b""]


def test_where_only_reading_goes_nothing_is_locked(tmp_path):
    if not os.geteuid():
        pytest.skip("root writes everywhere")
    tmp_path.chmod(0o500)
    assert is_free(tmp_path)


@pytest.mark.fault("paths of a workdir", "one line")
def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "x", tmp_path / ("long" * 100)):
        with pytest.raises(UserError, match="cannot write"), lock.held(folder):
            pass
