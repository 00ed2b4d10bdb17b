"""metrics.jsonl grows line by line, survives a kill at any byte, and is pieces in a bucket."""

import json
import subprocess
import sys

import pytest

from forget_jax import distributed, files
from forget_jax.errors import UserError
from forget_jax.runs.metrics import Metrics, parts_beside


def record(step):
    return {"step": step, "loss": {"task": 1 / step}, "seconds": 0.25}


def steps(metrics, stage="train"):
    return [r["step"] for r in metrics.stage(stage)]


def lines(path):
    return [json.loads(x)["step"] for x in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def seal_of(path):
    return path.with_suffix(".seal.json")


@pytest.fixture
def bucket(monkeypatch):
    """An object store in a folder: nothing there is appended to or renamed."""

    def refuse(*args):
        raise AssertionError("an object store has no append")

    monkeypatch.setattr(files, "is_local", lambda path: False)
    monkeypatch.setattr(files, "append_bytes", refuse)


@pytest.fixture
def written(monkeypatch):
    """How many bytes were written, by whichever way."""
    sizes = []

    def counted(name):
        write = getattr(files, name)

        def count(path, data, *more):
            if not str(path).endswith(".seal.json"):
                sizes.append(len(data))
            write(path, data, *more)

        monkeypatch.setattr(files, name, count)

    counted("write_bytes")
    counted("append_bytes")
    return sizes


def fill(path, first, last, each=lambda metrics, step: metrics.flush()):
    metrics = Metrics(path)
    for step in range(first, last + 1):
        metrics.add("train", record(step))
        each(metrics, step)
    return metrics


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_bytes_written_are_linear_in_the_records(path, written, where, request):
    if where == "bucket":
        request.getfixturevalue("bucket")
    fill(path, 1, 300).join()
    once = 1 if where == "disk" else 2  # as pieces, and joined
    assert sum(written) == once * path.stat().st_size
    assert lines(path) == list(range(1, 301))
    assert len(written) >= 300


def test_records_are_written_within_seconds(path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("forget_jax.runs.metrics.time.monotonic", lambda: clock[0])
    metrics = Metrics(path)
    metrics.add("train", record(1))
    assert not path.exists()
    clock[0] += 3
    metrics.add("train", record(2))
    assert lines(path) == [1, 2]
    metrics.add("train", record(3))
    assert lines(path) == [1, 2]
    metrics.flush()
    assert lines(path) == [1, 2, 3]


def test_flush_waits_for_the_disk_even_where_nothing_is_new(path, monkeypatch):
    clock, synced = [100.0], []
    monkeypatch.setattr("forget_jax.runs.metrics.time.monotonic", lambda: clock[0])
    metrics = fill(path, 1, 1)
    monkeypatch.setattr(files.os, "fsync", synced.append)
    clock[0] += 3
    metrics.add("train", record(2))
    assert lines(path) == [1, 2] and not synced
    metrics.flush()
    assert len(synced) == 2  # the file, and its seal
    metrics.flush()
    assert len(synced) == 2


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_torn_last_line_is_dropped_and_mended(path, cut):
    metrics = fill(path, 1, 2)
    metrics.add("train", record(3))
    metrics._write(sync=False)
    path.write_bytes(path.read_bytes()[:-cut])
    metrics = Metrics(path)
    assert steps(metrics) == [1, 2]
    metrics.add("train", record(3))
    metrics.flush()
    assert lines(path) == [1, 2, 3] and path.read_bytes().endswith(b"\n")


def test_reading_changes_nothing(path):
    fill(path, 1, 3)
    path.write_bytes(path.read_bytes() + b'{"stage": "tr')
    before = path.read_bytes()
    Metrics(path).stage("train")
    assert path.read_bytes() == before


@pytest.mark.fault("a run's own files", "one line")
@pytest.mark.parametrize(
    "line", [b"stage", b"[]", b'{"stage": 1}', b'{"step": 1}', b"\0", b"[" * 9**5]
)
def test_a_line_that_is_no_record_is_told(path, line):
    """As far as a file without its seal can tell."""
    fill(path, 1, 3)
    seal_of(path).unlink()
    path.write_bytes(line + b"\n" + path.read_bytes())
    with pytest.raises(UserError, match=r"metrics.jsonl, line 1: not a record of a run; remove"):
        Metrics(path)


@pytest.mark.fault("a run's own files", "one line")
@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_any_changed_byte_of_what_was_flushed_is_told(path, where, request):
    if where == "bucket":
        request.getfixturevalue("bucket")
    fill(path, 1, 2)
    for file in [f for f in path.parent.rglob("*.jsonl") if f.is_file()]:
        whole = file.read_bytes()
        for place in range(len(whole)):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(UserError, match="is damaged, and what it tells"):
                Metrics(path)
        file.unlink()
        with pytest.raises(UserError, match="is damaged, and what it tells"):
            Metrics(path)
        file.write_bytes(whole)


def test_lines_beyond_the_seal_are_done_again(path):
    """Whatever they hold: they are later than the newest checkpoint."""
    metrics = Metrics(path)
    for step in (1, 2, 3):
        metrics.add("train", record(step))
        metrics._write(sync=False)
    assert steps(Metrics(path)) == [1]  # the file was made, and sealed, with it
    metrics.flush()
    metrics.add("train", record(4))
    metrics._write(sync=False)
    path.write_bytes(path.read_bytes().replace(b'"step": 4', b'"step": 2'))
    metrics = Metrics(path)
    assert steps(metrics) == [1, 2, 3]
    metrics.add("train", record(4))
    metrics.join()
    assert lines(path) == steps(Metrics(path)) == [1, 2, 3, 4]


@pytest.mark.parametrize("written", [False, True])
def test_killed_while_the_file_is_written_anew(path, monkeypatch, written):
    metrics = fill(path, 1, 4)
    write = files.write_bytes

    def die(target, data):
        if str(target) == str(path):
            if written:
                write(target, data)
            raise KeyboardInterrupt
        write(target, data)

    monkeypatch.setattr(files, "write_bytes", die)
    with pytest.raises(KeyboardInterrupt):
        metrics.resume("train", 2)
    monkeypatch.undo()
    assert steps(Metrics(path)) == ([1, 2] if written else [1, 2, 3, 4])


def test_a_seal_that_is_lost_costs_nothing_else(path, capsys):
    fill(path, 1, 3)
    seal_of(path).write_bytes(b"?")
    metrics = Metrics(path)
    assert steps(metrics) == [1, 2, 3] and "metrics.seal.json is damaged" in capsys.readouterr().err
    metrics.add("train", record(4))
    metrics.flush()
    assert steps(Metrics(path)) == [1, 2, 3, 4] and not capsys.readouterr().err


def test_names_may_hold_line_separators(path):
    metrics = Metrics(path)
    metrics.add("a\u2028b", record(1))
    metrics.flush()
    assert steps(Metrics(path), "a\u2028b") == [1]


KILLED = """
import os, sys
from forget_jax import files
from forget_jax.runs.metrics import Metrics

metrics = Metrics(sys.argv[1])
for step in range(1, 6):
    metrics.add("train", {"step": step, "loss": {"task": 1 / step}, "seconds": 0.25})
    metrics.flush()
append = files.append_bytes

def die(path, data, sync):
    append(path, data[: len(data) // 2], sync)
    os._exit(9)

files.append_bytes = die
metrics.add("train", {"step": 6})
metrics.flush()
"""


def test_killed_in_the_middle_of_an_append(path):
    assert subprocess.run([sys.executable, "-c", KILLED, path]).returncode == 9
    assert not path.read_bytes().endswith(b"\n")
    metrics = Metrics(path)
    metrics.resume("train", 4)  # its newest checkpoint
    assert lines(path) == [1, 2, 3, 4]
    for step in (5, 6):
        metrics.add("train", record(step))
    metrics.join()
    assert lines(path) == [1, 2, 3, 4, 5, 6]


def test_a_full_disk_in_the_middle_of_an_append_is_mended(path, monkeypatch):
    metrics = fill(path, 1, 2)
    append = files.append_bytes

    def full(path, data, sync):
        append(path, data[:10], sync)
        raise UserError("no space")

    monkeypatch.setattr(files, "append_bytes", full)
    metrics.add("train", record(3))
    with pytest.raises(UserError, match="no space"):
        metrics.flush()
    monkeypatch.undo()
    metrics.flush()
    assert lines(path) == [1, 2, 3]


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_a_resumed_stage_forgets_what_it_does_again(path, written, where, request):
    if where == "bucket":
        request.getfixturevalue("bucket")
    metrics = fill(path, 1, 7)
    metrics.add("other", record(9))
    metrics.flush()
    metrics = Metrics(path)
    written.clear()
    metrics.resume("train", 7)
    assert not written
    metrics.resume("train", 5)
    assert len(written) == 1, written
    assert steps(Metrics(path)) == steps(metrics) == [1, 2, 3, 4, 5]
    assert steps(Metrics(path), "other") == [9]
    metrics.add("train", record(6))
    metrics.join()
    assert lines(path) == [1, 2, 3, 4, 5, 9, 6]


def test_a_bucket_gets_pieces_that_the_end_joins(path, bucket):
    metrics = fill(path, 1, 3)
    pieces = path.parent / "metrics"
    assert [f.name for f in sorted(pieces.iterdir())] == [f"00000{i}.jsonl" for i in (1, 2, 3)]
    assert not path.exists()
    metrics = Metrics(path)
    assert steps(metrics) == [1, 2, 3]
    metrics.add("train", record(4))
    metrics.flush()
    assert (pieces / "000004.jsonl").exists()
    metrics.join()
    assert lines(path) == [1, 2, 3, 4] and not list(pieces.iterdir())
    metrics.join()
    assert steps(Metrics(path)) == [1, 2, 3, 4]


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_killed_while_pieces_are_joined(path, bucket, monkeypatch, kept):
    metrics = fill(path, 1, 3)
    left = [3 - kept]

    def remove(piece):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        piece.unlink()

    monkeypatch.setattr(files, "remove", remove)
    if kept:
        with pytest.raises(KeyboardInterrupt):
            metrics.join()
    else:
        metrics.join()
    monkeypatch.setattr(files, "remove", lambda piece: piece.unlink())
    metrics = Metrics(path)
    assert steps(metrics) == [1, 2, 3]
    metrics.add("train", record(4))
    metrics.flush()
    assert steps(Metrics(path)) == [1, 2, 3, 4]
    metrics.join()
    assert lines(path) == [1, 2, 3, 4]


def test_a_folder_copied_out_of_a_bucket_goes_on(path, bucket, monkeypatch):
    fill(path, 1, 3)
    monkeypatch.undo()
    metrics = fill(path, 4, 5)
    assert steps(metrics) == [1, 2, 3, 4, 5] and lines(path) == [1, 2, 3, 4, 5]
    assert steps(Metrics(path)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_parts_come_together_and_count_once(path, where, request):
    if where == "bucket":
        request.getfixturevalue("bucket")
    for part in range(2):
        metrics = Metrics(path.with_name(f"metrics-{part}-of-2.jsonl"))
        for step in (1, 2, 3):
            metrics.add(f"train/{part}", record(step))
            metrics.flush()
    assert parts_beside(path) == ["metrics-0-of-2.jsonl", "metrics-1-of-2.jsonl"]
    parts = [path.with_name(name) for name in parts_beside(path)]
    whole = Metrics(path, parts)
    assert steps(whole) == [1, 2, 3, 1, 2, 3]
    whole.resume("train/1", 2)  # the part had not finished it
    assert steps(Metrics(path, parts)) == [3, 1, 2, 3, 1, 2]  # killed: forgotten ones come back,
    whole = Metrics(path, parts)
    whole.resume("train/1", 2)  # and are forgotten again
    whole.add("train/1", record(3))
    whole.flush()
    whole = Metrics(path, parts)
    assert steps(whole) == [1, 2, 3, 1, 2, 3]
    whole.join()
    assert lines(path) == [1, 2, 3, 1, 2, 3]
    assert steps(Metrics(path, parts)) == [1, 2, 3, 1, 2, 3]


def test_a_run_without_records_has_a_file(path):
    Metrics(path).join()
    assert path.read_bytes() == b""


def test_only_process_0_writes(path, monkeypatch):
    monkeypatch.setattr(distributed, "index", lambda: 1)
    metrics = fill(path, 1, 3)
    metrics.resume("train", 2)
    metrics.join()
    assert not list(path.parent.iterdir()) and steps(metrics) == [1, 2]


def test_a_folder_whose_name_reads_like_a_pattern(tmp_path):
    folder = tmp_path / "run[1-2]*"
    folder.mkdir()
    (folder / "metrics-0-of-2.jsonl").write_text("")
    assert parts_beside(folder / "metrics.jsonl") == ["metrics-0-of-2.jsonl"]
    assert parts_beside(tmp_path / "nowhere" / "metrics.jsonl") == []
