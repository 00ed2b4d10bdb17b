"""A run's directory: what may resume in it, what is written when, and parts of a run."""

import json
import types

import pytest

from forget_jax import distributed, files
from forget_jax.errors import UserError
from forget_jax.runs.workdir import Workdir

FIELDS = types.MappingProxyType(
    {"train": types.MappingProxyType({"lr": 0.1, "steps": 4}), "tasks": ("a", "b"), "part": ""}
)


def changed(**train):
    return FIELDS | {"train": {**FIELDS["train"], **train}}


def test_fields_are_kept_as_json_and_resume(tmp_path):
    work = Workdir(tmp_path / "run", "finetune", FIELDS)
    kept = {"command": "finetune", "train": {"lr": 0.1, "steps": 4}, "tasks": ["a", "b"]}
    assert files.read_json(work / "config.json") == kept
    assert work.done is None
    assert work.finish({"loss": 1.5}) == {"command": "finetune", "loss": 1.5}
    again = Workdir(tmp_path / "run", "finetune", json.loads(files.dump_json(FIELDS)))
    assert again.done == {"command": "finetune", "loss": 1.5}
    assert (work / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("command", "fields", "why"),
    [
        ("score", FIELDS, "holds a run of finetune, not of score; give another --workdir"),
        ("finetune", changed(lr=0.2), r"train\.lr was 0\.1, now 0\.2; give another"),
        ("finetune", changed(more=1), r"train\.more was 'absent', now 1; give another"),
        ("finetune", FIELDS | {"part": "2/2"}, "it must be I/N with I from 0 to N-1"),
    ],
)
def test_another_run_is_refused_and_nothing_is_written(tmp_path, command, fields, why):
    Workdir(tmp_path / "run", "finetune", FIELDS)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    with pytest.raises(UserError, match=why):
        Workdir(tmp_path / "run", command, fields)
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    files.write_json(tmp_path / "config.json", {"model_type": "llama"})
    with pytest.raises(UserError, match=r"holds a config.json that is no run's; give another"):
        Workdir(tmp_path, "finetune", FIELDS)


def test_a_folder_with_broken_metrics_is_not_made_a_run(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("broken\n{}\n")
    with pytest.raises(UserError, match="not a record of a run"):
        Workdir(tmp_path, "finetune", FIELDS)
    assert [f.name for f in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_time_is_counted_over_all_starts(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("forget_jax.runs.workdir.time.monotonic", lambda: clock[0])
    work = Workdir(tmp_path, "finetune", FIELDS)
    clock[0] += 5
    work.tick()
    clock[0] += 2  # lost with a kill
    work = Workdir(tmp_path, "finetune", FIELDS)
    clock[0] += 3
    work.tick()
    clock[0] += 1
    assert work.seconds() == 9


def test_parts_write_files_of_their_own_and_the_whole_reads_them(tmp_path):
    for part in ("0/2", "1/2"):
        work = Workdir(tmp_path, "finetune", FIELDS | {"part": part})
        assert [work.has_part(i) for i in range(4)] == [i % 2 == int(part[0]) for i in range(4)]
        work.metrics.add(f"train/{part[0]}", {"step": 1})
        work.metrics.flush()
        work.tick()
    whole = Workdir(tmp_path, "finetune", FIELDS)
    assert all(whole.has_part(i) for i in range(4))
    assert [r["stage"] for r in whole.metrics.stage("train")] == ["train/0", "train/1"]
    whole.finish({})
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    names = {"config.json", "manifest.json", "metrics.jsonl", "seconds.json", "summary.json"}
    names |= {
        f"{kind}-{i}-of-2.{end}"
        for i in (0, 1)
        for kind, end in (("metrics", "jsonl"), ("metrics", "seal.json"), ("seconds", "json"))
    }
    names.add("metrics.seal.json")
    assert {f.name for f in tmp_path.iterdir()} == names


def test_another_process_goes_by_what_process_0_says(tmp_path, monkeypatch):
    """As process 1 sees it: nothing on its own disk decides anything."""
    Workdir(tmp_path / "other", "score", FIELDS)  # what its own disk holds
    wanted = {"command": "finetune", **json.loads(files.dump_json(FIELDS))}
    del wanted["part"]
    there = {"config": wanted, "seconds": 7.0, "parts": []}
    said = [there, wanted]
    monkeypatch.setattr(distributed, "index", lambda: 1)
    monkeypatch.setattr(distributed, "agreed", lambda value: said.pop(0))
    work = Workdir(tmp_path / "other", "finetune", FIELDS)
    assert work.seconds() >= 7 and not said
    said = [{**there, "config": None}, {**wanted, "tasks": ["a"]}]
    with pytest.raises(UserError, match=r"tasks is \['a'\] in process 0, \['a', 'b'\] here"):
        Workdir(tmp_path / "new", "finetune", FIELDS)
    assert not (tmp_path / "new").exists()
