"""`forget-jax bench` and what the benchmarks share, at the least sizes."""

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from forget_jax.benchmarks import finetune, generate, matmul, score, table, waiting, world
from forget_jax.benchmarks.shapes import TINY
from forget_jax.benchmarks.side import Side, missing
from forget_jax.data.examples import Example

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def no_peers(monkeypatch):
    for module in (finetune, generate, score):
        monkeypatch.setattr(module, "no_peer", lambda: "the peers are left out: torch is absent")


@pytest.fixture
def short(monkeypatch):
    """A small world, one step under the clock, one round."""
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    tasks = [
        Example(
            f"t{i}", f"task{i % 8}", prompt=" ".join(words[: 1 + i % 7]), completion=words[i % 8]
        )
        for i in range(128)
    ]
    documents = [Example(f"d{i}", "d", text=" ".join(words[i % 4 :] * 3)) for i in range(8)]
    monkeypatch.setattr(world, "examples", lambda: ("a few words", tasks, documents))
    world.encode.cache_clear()
    monkeypatch.setattr(finetune, "COUNT", (48, 48))
    monkeypatch.setattr(finetune, "ROUNDS", (1, 1))
    monkeypatch.setattr(finetune, "STEPS", (3, 3))
    monkeypatch.setattr(score, "COUNT", (4, 4))
    monkeypatch.setattr(score, "ROUNDS", (1, 1))
    monkeypatch.setattr(generate, "PROMPTS", (4, 4))
    monkeypatch.setattr(generate, "NEW", (6, 6))
    monkeypatch.setattr(generate, "LONGEST", 16)
    monkeypatch.setattr(generate, "ROUNDS", (1, 1))
    yield
    world.encode.cache_clear()


def test_a_matmul_bench_writes_summary_metrics_and_page_and_is_not_repeated(run_cli, tmp_path):
    argv = ["bench", "--config.what=matmul", f"--workdir={tmp_path}", "--config.shape=tiny"]
    status, _, err = run_cli(*argv)
    assert status == 0, err
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["command"] == "bench" and summary["matmul_flops"] > 1e8
    assert summary["ratio"] == {} and summary["peak_bytes"] > 2**20
    assert "What was measured" in (tmp_path / "report.html").read_text()
    before = (tmp_path / "summary.json").stat().st_mtime_ns
    status, _, err = run_cli(*argv)
    assert status == 0 and "has ended already" in err
    assert (tmp_path / "summary.json").stat().st_mtime_ns == before


def test_a_bench_that_was_stopped_goes_on_after_the_cases_it_has(run_cli, tmp_path, monkeypatch):
    done = []

    def case(name, stops):
        def measure(found):
            done.append(name)
            if stops and done.count(name) == 1:
                os.kill(os.getpid(), signal.SIGINT)  # which the next turn sees
            turn = {"tokens": 4, "seconds": 2.0, "cpu_seconds": 1, "useful": 1, "peak_bytes": 8}
            turns = table.alternate({name: lambda number: turn | {"before": time.sleep(0.2)}}, 1)
            rows = [table.summarise(name, f"after {len(found['rows'])}", turns[name])]
            return {"rows": rows, "ratio": {}, "notes": []}

        return measure

    cases = {"one": case("one", False), "two": case("two", True), "three": case("three", False)}
    monkeypatch.setattr(matmul, "run", lambda quick, shape, keep: table.measure(cases, keep))
    argv = ["bench", "--config.what=matmul", f"--workdir={tmp_path / 'w'}"]
    status, _, err = run_cli(*argv)
    assert status == 130 and "same command again to resume" in err and done == ["one", "two"]
    assert "case 2 of 3: two" in err and "turn 1/2" in err
    status, _, err = run_cli(*argv)
    assert status == 0 and done == ["one", "two", "two", "three"], err
    assert err.count("measured by an earlier start") == 1
    rows = json.loads((tmp_path / "w" / "summary.json").read_text())["rows"]
    assert [row["setting"] for row in rows] == ["after 0", "after 1", "after 2"]


@pytest.mark.parametrize("field", ["what=fine_tune", "shape=7b"])
def test_an_unknown_benchmark_is_said(field, run_cli, tmp_path):
    status, _, err = run_cli("bench", f"--config.{field}", f"--workdir={tmp_path}/w")
    assert status == 2 and "it must be one of" in err


def test_finetune_without_peers(no_peers, short):
    found = finetune.run(quick=True, cases="ragged,identical", shape="tiny")
    systems = {row["system"]: row for row in found["rows"]}
    assert set(systems) == {"forget_jax", "forget_jax_identical"} and found["ratio"] == {}
    for row in systems.values():
        assert row["tokens_per_second"] > 0 and 0 < row["useful"] <= 1 and row["peak_bytes"] > 0
        assert 0 < row["mfu"] < 1
    assert any("torch is absent" in note for note in found["notes"])
    assert any("waits for the host" in note for note in found["notes"])
    json.dumps(found)
    text = table.show(found)
    assert all(system in text for system in systems)


def test_score_without_peers(no_peers, short):
    found = score.run(quick=True, shape="tiny")
    names = [row["system"] for row in found["rows"]]
    ways = [f"forget_jax_{how}" for how in ("merged", "together", "single")]
    assert names == ["forget_jax_documents", "forget_jax_tasks", *ways]
    assert list(found["ratio"]) == ways[1:]
    gap = next(n for n in found["notes"] if n.startswith("tasks, 8 adapters: mean NLLs"))
    assert float(gap.split()[-2]) < 1e-4


def test_generate_without_peers(no_peers, short):
    found = generate.run(quick=True, shape="tiny")
    (row,) = found["rows"]
    assert row["tokens_per_second"] > 0 and row["setting"].startswith("4 prompts of up to 16")
    assert found["ratio"] == {} and "torch is absent" in found["notes"][0]
    assert generate.agreement([[1, 2], [3]], [[1, 2], [4]]) == 0.5


def test_a_side_ends_with_its_input_whatever_it_computes():
    code = "import time; from forget_jax.benchmarks import side; "
    code += "side.serve(type('S', (), {'wait': lambda self: time.sleep(60)})())"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdin.write('{"do": "wait"}\n')
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_case_that_is_not_there():
    with pytest.raises(ValueError, match="no case 'raged'"):
        finetune.run(cases="raged", shape="tiny")


def test_turns_alternate_and_the_warm_one_does_not_count():
    seen = []

    def turn(name):
        return lambda number: seen.append((name, number)) or {"tokens": 4, "seconds": 2 + number}

    done = table.alternate({"a": turn("a"), "b": turn("b")}, 2)
    assert seen == [("b", 0), ("a", 0), ("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    assert [t["seconds"] for t in done["a"]] == [2, 3]
    slower = [{"tokens": 4, "seconds": 8}, {"tokens": 4, "seconds": 6}]
    assert table.ratio(done["a"], slower) == pytest.approx(3)  # the median of 4 and 2


def test_idle_time_between_spans_that_overlap():
    spans = np.array([[5.0, 6.0], [0.0, 2.0], [1.0, 4.0], [1.5, 1.6]])
    assert waiting.idle(spans) == pytest.approx(1 / 6)
    assert math.isnan(waiting.idle(np.zeros((0, 2))))


def test_rows_survive_their_file(tmp_path):
    rows = world.full_rows(TINY, 9, 3)
    rows[1] = type(rows[1])("x", "other", rows[1].ids[:4], rows[1].is_target[:4])
    world.save(tmp_path / "r.npz", rows)
    back = world.load(tmp_path / "r.npz")
    assert [row.source for row in back] == ["full", "other", "full"]
    for a, b in zip(rows, back, strict=True):
        assert np.array_equal(a.ids, b.ids) and np.array_equal(a.is_target, b.is_target)


def test_the_built_in_rows_stand_in_for_absent_data(tmp_path, monkeypatch):
    monkeypatch.setattr(world, "DATA", tmp_path)
    where, tasks, documents = world.examples()
    assert where.startswith("built-in") and len(tasks) > 200 and len(documents) > 50


def test_a_side_that_fails_says_why(tmp_path):
    loading = {"folder": str(tmp_path), "shape": "tiny", "rank": 2, "random": False}
    with Side("ours", loading) as side, pytest.raises(RuntimeError, match=r"nothing\.npz"):
        side.ask("score", rows="nothing", adapters=0, how="together")


@pytest.mark.parametrize("name", ["completion", "finetune", "generate", "matmul", "score"])
def test_every_benchmark_is_a_script(name):
    assert importlib.import_module(f"forget_jax.benchmarks.{name}").run
    done = subprocess.run(
        [sys.executable, SCRIPTS / f"{name}.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--quick" in done.stdout and "--json" in done.stdout


def test_what_is_missing():
    assert missing("json", "no_such_module_here") == ["no_such_module_here"]


@pytest.mark.parity
def test_finetune_and_score_beside_their_peers(short):
    """The same losses and the same NLLs on both sides, from the first step on."""
    pytest.importorskip("torch", reason="the parity extra is not installed")
    pytest.importorskip("peft", reason="the parity extra is not installed")
    found = finetune.run(quick=True, shape="tiny")
    peers = {"peft_default", "peft_grouped", "peft_identical"}
    assert set(found["ratio"]) == peers and all(x > 0 for x in found["ratio"].values())
    gap = next(n for n in found["notes"] if n.startswith("the losses of both sides"))
    assert float(gap.split()[-2]) < 1e-4
    found = score.run(quick=True, shape="tiny")
    assert {f"transformers_{n}" for n in ("documents", "tasks")} <= set(found["ratio"])
    gaps = [float(n.split()[-2]) for n in found["notes"] if "mean NLLs differ" in n]
    assert len(gaps) == 3 and max(gaps) < 1e-4
    found = generate.run(quick=True, shape="tiny")
    assert set(found["ratio"]) == {"transformers"}
    assert next(n for n in found["notes"] if "continued alike" in n).startswith("100%")
