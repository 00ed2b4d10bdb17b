"""`factoids`: every kind of arm in one run, three stages, resumed; and mistakes."""

import json

import numpy as np
import pandas as pd
import pytest

from forget_jax.errors import UserError
from forget_jax.factoids import training
from forget_jax.fleet import fleet
from tests.conftest import write_jsonl

ARMS = "naive,random in A,steps in A,replay:20,redraw:20 + ewc:5,kl,lora:2,freeze"
SETTINGS = (
    "epochs=2",
    "mix=builtin:random_words/2",
    "generic_words=2",
    "ratio=1",
    "train.batch_size=4",
    "train.buckets=1",
    "train.save_every=2",
    "train.lr=0.01",
    "train.warmup=1",
)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Three sets; the first has a question of two answers, and one that stands twice."""
    folder = tmp_path_factory.mktemp("sets")
    rows = [{"prompt": f"what is {i}?", "completion": f"a{i}"} for i in range(18)]
    double = [{"prompt": "what?", "completion": x} for x in "ab"] + [rows[0]]
    return [
        str(write_jsonl(folder / f"{name}.jsonl", found))
        for name, found in (("a", rows[:6] + double), ("b", rows[6:12]), ("c", rows[12:]))
    ]


@pytest.fixture(scope="module")
def arguments(sets, tiny_base):
    return [
        *("factoids", f"--config.model.path={tiny_base}"),
        *(f"--config.{field}" for field in SETTINGS),
        *(f"--config.stage_{name}={file}" for name, file in zip("ab", sets, strict=False)),
    ]


@pytest.fixture(scope="module")
def whole(arguments, finished):
    return finished(
        [
            *(*arguments, f"--config.arms={ARMS}", "--config.recover=2"),
            *("--config.recover_steps=2", "--config.lens=true", "--config.lora.rank=0"),
            "--config.displacement=true",
        ]
    )


def test_every_arm_is_measured_after_every_stage(whole):
    summary = json.loads((whole / "summary.json").read_text())
    cells = pd.read_csv(whole / "cells.csv")
    arms = ARMS.split(",")
    assert list(summary["factoids"]) == arms == list(cells.arm.unique())
    assert len(cells) == len(arms) * 5  # A after A, A and B after B, A before and after again
    assert cells[cells.after.isin(["A", "B"])].exact.between(0, 1).all()
    assert cells.nll.notna().all() and (cells[cells.after == "recovery"].facts == 4).all()
    by_seed = summary["by_seed"]["naive"]
    assert len(by_seed["accuracy_a_after_b"]) == 1
    assert summary["factoids"]["naive"]["answer_nll_a_after_b"] == pytest.approx(
        np.mean(by_seed["answer_nll_a_after_b"])
    )
    assert summary["facts_a"] == 6 and summary["facts_b"] == 6
    steps = {arm: (of["steps_a"], of["steps_b"]) for arm, of in summary["factoids"].items()}
    assert steps["naive"] == (3, 3) and steps["random in A"] == steps["steps in A"] == (6, 3)
    assert (cells[cells.after == "recovery"].steps == 2).all()
    one = summary["paired_test"]["random in A − steps in A"]
    assert (one["facts_more"] - one["facts_less"]) / 6 == pytest.approx(one["mean"])
    assert one["facts_low"] <= one["mean"] <= one["facts_high"]
    assert "random in A − replay:20" in summary["paired_test"]
    assert "Lost, or only misaligned" in (whole / "report.html").read_text()


def test_arms_that_do_the_same_in_a_stage_are_one_run(whole):
    cells = pd.read_csv(whole / "cells.csv")
    first = cells[(cells.after == "A") & (cells.seed == 0)].set_index("arm").run
    assert first["naive"] == first["kl"] == first["lora:2"]
    assert len({first["naive"], first["random in A"], first["steps in A"]}) == 3
    last = cells[(cells.after == "B") & (cells["set"] == "A")].run
    assert last.is_unique


def test_arms_differ_in_what_they_keep(whole):
    cells = pd.read_csv(whole / "cells.csv")
    of_a = cells[(cells.after == "B") & (cells["set"] == "A") & (cells.seed == 0)]
    assert of_a.nll.is_unique


def test_predictions_lens_and_what_was_left_out_are_written(whole):
    table = pd.read_parquet(whole / "predictions.parquet")
    cells = pd.read_csv(whole / "cells.csv")
    assert len(table) == 6 * (3 + 8 * 2 + 8)
    one = table[(table.run == cells.run[1]) & (table.dataset == cells.dataset[1])]
    assert one.exact.mean() == pytest.approx(cells.exact[1])
    assert one.nll.sum() / one.tokens.sum() == pytest.approx(cells.nll[1])
    lens = pd.read_csv(whole / "lens.csv")
    assert set(lens.layer) == {1, 2} and lens.top.between(0, 1).all()
    moved = pd.read_csv(whole / "displacement.csv")
    last = cells[(cells.after == "B") & (cells["set"] == "A") & (cells.seed == 0)]
    assert set(moved.run) == set(last.run) and moved.cosine.between(-1, 1).all()
    first = cells[(cells.after == "A") & (cells["set"] == "A")].set_index("arm").nll
    of_naive = moved.set_index("run").loc[last.set_index("arm").run["naive"]]
    change = last.set_index("arm").nll["naive"] - first["naive"]
    assert of_naive.change == pytest.approx(change, abs=1e-4)
    (dropped,) = json.loads((whole / "dropped.json").read_text()).values()
    assert len(dropped) == 3 and {"a#6", "a#7"} < set(dropped)


def test_whole_models_and_checkpoints_do_not_stay(whole):
    assert not list((whole / "adapters").rglob("*.safetensors"))
    assert not list((whole / "checkpoints").iterdir())


def test_a_run_that_was_stopped_between_stages_ends_with_the_same_figures(
    whole, arguments, tmp_path, monkeypatch, figures
):
    from forget_jax import cli

    few = [*arguments, "--config.arms=naive,l2", "--config.lora.rank=0"]
    assert cli.main([*few, f"--workdir={tmp_path / 'through'}"]) == 0
    trained = _trainings(monkeypatch, most=2)
    assert cli.main([*few, f"--workdir={tmp_path / 'cut'}"]) == 2 and len(trained) == 2
    monkeypatch.undo()
    assert cli.main([*few, f"--workdir={tmp_path / 'cut'}"]) == 0
    assert figures(tmp_path / "cut") == figures(tmp_path / "through")


def _trainings(monkeypatch, most=1000):
    """The names of what is trained from now on; the run stops once so many were kept."""
    done = []

    def keep(*given):
        kept(*given)
        done.append(given[1][0].name)
        if len(done) == most:
            raise UserError("stopped here")

    kept = fleet.keep
    monkeypatch.setattr(training.fleets, "keep", keep)
    return done


def test_arms_can_be_added_to_a_run(arguments, tmp_path, monkeypatch, figures):
    from forget_jax import cli

    def run(arms, work):
        return cli.main(
            [*arguments, f"--config.arms={arms}", "--config.lora.rank=0", f"--workdir={work}"]
        )

    with monkeypatch.context() as patch:
        _trainings(patch, most=2)  # the checkpoints of naive's B stay
        assert run("naive", tmp_path / "grown") == 2
    assert run("random in A,naive", tmp_path / "grown") == 0
    assert run("random in A,naive", tmp_path / "whole") == 0
    assert figures(tmp_path / "grown") == figures(tmp_path / "whole")
    trained = _trainings(monkeypatch)
    assert run("random in A,naive,l2", tmp_path / "grown") == 0
    assert [name.rpartition("jsonl, ")[2] for name in trained] == ["naive, A", "l2, B"]


def test_adapters_over_three_sets_and_two_sequences(arguments, sets, finished):
    a, b, c = sets
    work = finished(
        [
            *(*arguments, "--config.arms=naive,random in B,l2:3", "--config.lora.rank=2"),
            f"--config.sequences={a} > {b} > {c},{a} > {c} > {b}",
        ]
    )
    summary = json.loads((work / "summary.json").read_text())
    cells = pd.read_csv(work / "cells.csv")
    assert len(cells) == 2 * 3 * (1 + 2 + 3)
    assert list(summary["after"]["naive"]["C"]) == ["A", "B", "C"]
    assert (
        len(summary["sequences"]) == 2 and summary["paired_test"]["l2:3 − naive"]["clusters"] == 2
    )
    assert "Every set after every stage" in (work / "report.html").read_text()


def test_a_stage_ends_at_the_loss_that_is_asked_for(arguments, finished):
    few, b = [*arguments, "--config.arms=naive", "--config.lora.rank=0"], arguments[-1]
    work = finished([*few, "--config.epochs=30", "--config.stop=loss", "--config.stop_loss=1.5",
                     f"{b}[:3]"])  # fmt: skip
    records = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    for stage, planned, batches in (("A", 45, 2), ("B", 24, 1)):
        steps = [r for r in records if r.get("stage", "").endswith(f"naive, {stage}")]
        assert 0 < len(steps) < planned
        looked_at = [r["step"] for r in steps if "heldout" in r]
        assert looked_at == list(range(batches, len(steps) + 1, batches))
    nll = json.loads((work / "summary.json").read_text())["factoids"]["naive"]
    assert nll["answer_nll_a_after_a"] < 1.5


def test_what_the_base_knows_is_left_out_and_asked_again(arguments, finished, monkeypatch):
    from forget_jax.factoids import filter

    monkeypatch.setattr(filter, "is_correct", lambda said, accepted, rule: accepted[0] in "a1 a7")
    work = finished(
        [
            *(*arguments, "--config.arms=naive", "--config.only=unknown", "--config.shots=1"),
            "--config.lora.rank=0",
        ]
    )
    summary = json.loads((work / "summary.json").read_text())
    assert list(summary["known"].values()) == [1, 1] and summary["facts_a"] == 5
    assert summary["factoids"]["naive"]["known_a_after_b"] == 1.0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["arms=naive,ewk"], "did you mean ewc"),
        (["arms=naive,naive"], "arms names naive twice"),
        (["arms="], "arms names nothing"),
        (["stage_b="], "config.stage_b names no data set"),
        (["sequences=a"], "has one set"),
        (["sequences=a > b,a > b > c"], "the same number of sets"),
        (["mix=", "arms=mix in A"], "config.mix names no data set"),
        (["arms=lora", "lora.rank=2"], "set lora.rank=0"),
        (["max_new_tokens=1", "arms=naive"], "raise it to"),
        (["arms=naive", "recover=6"], "leaves none of the 6 facts"),
        (["arms=random:1000 in A"], "lower the ratio"),
        (["arms=naive", "train.batch_size=1000"], "or less fit"),
    ],
)
def test_mistakes_are_one_line_before_weights_are_read(
    fields, said, arguments, run_cli, tmp_path, monkeypatch
):
    monkeypatch.setattr("forget_jax.commands.values.base", None)
    given = [f"--config.{field}" for field in ["lora.rank=0", *fields]]
    status, _, err = run_cli(*arguments, *given, f"--workdir={tmp_path / 'run'}")
    lines = [line for line in err.splitlines() if line.startswith("forget-jax")]
    assert status == 2 and said in err and "Traceback" not in err
    assert len(lines) <= 1
