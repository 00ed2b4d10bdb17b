"""What is made once: the same value and types for all processes and all starts."""

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from forget_jax import distributed
from forget_jax.files import Path
from forget_jax.runs.once import make_once, once


class Two:
    """Two processes as two threads: process 0's messages reach process 1 in order."""

    def __init__(self, monkeypatch):
        self.own = threading.local()
        self.meet = threading.Barrier(2, timeout=20)
        self.held = None
        monkeypatch.setattr(distributed, "index", lambda: self.own.index)
        monkeypatch.setattr(distributed, "count", lambda: 2)
        monkeypatch.setattr(distributed, "agreed", self.agreed)
        monkeypatch.setattr(distributed, "barrier", lambda name: self.meet.wait())

    def agreed(self, value):
        if self.own.index == 0:
            self.held = value
        self.meet.wait()
        value = self.held
        self.meet.wait()
        return value

    def run(self, work):
        """What `work()` gives in each process; it may ask `distributed.index()`."""

        def one(index):
            self.own.index = index
            try:
                return work()
            except BaseException:
                self.meet.abort()
                raise

        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(one, range(2)))


@pytest.fixture
def two(monkeypatch):
    return Two(monkeypatch)


def test_a_first_and_a_later_start_give_the_same_types(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"pair": (1, 2), 3: float("nan")}

    first = once(tmp_path / "a" / "x.json", make)
    assert first == once(tmp_path / "a" / "x.json", make) == {"pair": [1, 2], "3": None}
    assert len(calls) == 1


@pytest.mark.parametrize("value", [None, 0, [], False])
def test_an_empty_value_is_a_value(tmp_path, value):
    assert once(tmp_path / "x.json", lambda: value) == value
    assert once(tmp_path / "x.json", lambda: "another") == value


def test_a_failure_keeps_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        once(tmp_path / "x.json", lambda: 1 / 0)
    assert not list(tmp_path.iterdir())


def test_both_take_part_and_go_on_with_what_process_0_wrote(two, tmp_path):
    took = []

    def work():
        mine = distributed.index()
        found = once(tmp_path / "x.json", lambda: took.append(mine) or {"of": (mine,)})
        assert (tmp_path / "x.json").exists()
        return found

    assert two.run(work) == [{"of": [0]}] * 2
    assert sorted(took) == [0, 1]
    assert two.run(work) == [{"of": [0]}] * 2
    assert len(took) == 2


@pytest.mark.parametrize("there", [True, False])
def test_process_0_alone_decides_what_is_there(two, tmp_path, monkeypatch, there):
    """Process 1 sees the file where process 0 does not, and the other way round."""
    path = tmp_path / "x.json"
    if there:
        sealed = {"value": "kept", "sha256": hashlib.sha256(b'"kept"').hexdigest()}
        path.write_text(json.dumps(sealed))
    kind = type(Path(path))
    see = kind.exists

    def exists(self):
        return see(self) if distributed.index() == 0 or self.name != path.name else not there

    monkeypatch.setattr(kind, "exists", exists)
    took = []

    def make():
        took.append(distributed.index())
        return "made"

    assert two.run(lambda: once(path, make)) == ["kept" if there else "made"] * 2
    assert sorted(took) == ([] if there else [0, 1])


def test_files_are_made_by_process_0_and_there_for_all(two, tmp_path):
    took = []

    def make():
        took.append(distributed.index())
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "first").write_text("a")
        (tmp_path / "made" / "second").write_text("b")

    def work():
        make_once(tmp_path / "made", make)
        return "".join((tmp_path / "made" / name).read_text() for name in ("first", "second"))

    assert two.run(work) == ["ab", "ab"] and took == [0]
    assert two.run(work) == ["ab", "ab"] and took == [0]


@pytest.mark.fault("damaged results of a run", "done again")
@pytest.mark.parametrize("damage", ["change", "remove", "half"])
def test_a_folder_that_is_not_whole_is_made_again(tmp_path, damage, capsys):
    made = []

    def make():
        made.append((tmp_path / "first").write_text("whole"))

    if damage == "half":
        (tmp_path / "first").write_text("half")  # killed before the others were there
    else:
        make_once(tmp_path, make)
        make_once(tmp_path, make)
        assert made == [5]
        (tmp_path / "first").unlink() if damage == "remove" else (
            (tmp_path / "first").write_text("whale")
        )
    make_once(tmp_path, make)
    assert made[-1:] == [5] and (tmp_path / "first").read_text() == "whole"
    assert ("first is damaged or gone" in capsys.readouterr().err) == (damage != "half")


@pytest.mark.fault("damaged results of a run", "done again")
def test_a_damaged_value_is_made_again(tmp_path, capsys):
    path, value = tmp_path / "x.json", {"a": [1, 2.5, None], "b": "é"}
    once(path, lambda: value)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in (1, 128):
            damaged = bytearray(whole)
            damaged[place] ^= bit
            path.write_bytes(damaged)
            assert once(path, lambda: value) == value
            assert "is damaged; what it held is made again" in capsys.readouterr().err or (
                json.loads(bytes(damaged)) == json.loads(whole)
            )
    for damaged in (b"", b"null", b"[]", whole[:-5], b"\0" * 9):
        path.write_bytes(damaged)
        assert once(path, lambda: value) == value
