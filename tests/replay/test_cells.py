"""Arms of a comparison, and the streams of rows that their fine-tunes consume."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax.data import order
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.replay.cells import Arm, Stream, arms, cells, redrawn
from forget_jax.replay.settings import Replay
from forget_jax.replay.strategies import (
    Known,
    Sampling,
    choose,
    coverage,
    diverse,
    influence,
    parse,
)
from forget_jax.training.settings import Train

TRAIN = Train(steps=16, batch_size=4, seed=3)
REPLAY = Replay(
    strategies=("none", "pad", "random", "predicted", "predicted:top"),
    ratio=(1 / 16, 1 / 4),
    cost=("nll", "kl"),
    seeds=2,
)


def encoded(name, length):
    return Encoded(name, "s", np.zeros(length, np.int32), np.ones(length, bool))


def price(rows, cost):
    """One a token, and a half for the base's pass."""
    return sum(len(e.ids) for e in rows) * (1.0 if cost == "nll" else 1.5)


@pytest.fixture(scope="module")
def grid(random_examples):
    rows = {"a": random_examples(0, [5] * 10), "b": random_examples(1, [6] * 7)}
    pool, pad = random_examples(2, [9] * 20), random_examples(3, [8] * 5)
    known = {
        name: Known(np.arange(20.0), np.ones((3, 20)), np.arange(20.0)[::-1].copy())
        for name in rows
    }
    kinds = {"": (), "upstream": pool, "other": pad}
    by_task = dict.fromkeys(rows, kinds)
    return cells(TRAIN, rows, by_task, known, REPLAY, price), rows, pool, pad


def test_without_replay_there_is_one_arm_and_else_one_a_ratio_and_cost():
    found = arms(REPLAY)
    assert len(found) == 1 + 4 * 4 and found[0] == Arm("none")
    assert len({arm.label(REPLAY) for arm in found}) == len(found)
    assert Arm("random", 1 / 16, "kl").label(REPLAY) == "random 1/16 kl"
    one = dataclasses.replace(REPLAY, ratio=(0.3,), cost=("kl",))
    assert Arm("random", 0.3, "kl").label(one) == "random"
    both = dataclasses.replace(one, matched=("steps", "compute"))
    assert len(arms(both)) == 1 + 4 * 2
    assert Arm("random", 0.3, "kl", "compute").label(both) == "random at equal compute"


def test_so_many_rows_are_replayed_and_each_costs_what_its_arm_says(grid):
    found, rows, pool, _ = grid
    for cell in found:
        task, own = cell.task, len(rows[cell.at["task"]])
        if cell.at["strategy"] == "none":
            assert task.order is None and task.steps == 16
            continue
        again = np.flatnonzero(task.order >= own)
        assert len(again) == round(64 * float(cell.at["ratio"]))
        assert len(task.order) == task.steps * 4
        assert set(task.costs[task.order[again]]) == {["nll", "kl"].index(cell.at["cost"])}
        assert not task.costs[:own].any()
        if cell.at["strategy"] != "pad":
            assert {task.examples[i].name for i in task.order[again]} <= {e.name for e in pool}


def test_fine_tunes_of_a_task_and_seed_differ_in_what_is_replayed_alone(grid):
    found, rows, _, _ = grid
    for name, own in ((n, len(r)) for n, r in rows.items()):
        for seed in range(2):
            mine = [c.task for c in found if c.at["task"] == name and c.at["seed"] == seed]
            assert len({task.seed for task in mine}) == 1
            for task in mine[1:]:
                stream = order.rows(task.seed, own, 0, (task.order < own).sum())
                assert sorted(task.order[task.order < own]) == sorted(stream)


@given(
    own=st.integers(3, 30), again=st.integers(2, 60), cost=st.sampled_from(["nll", "kl"]),
    ratio=st.floats(0.02, 0.3), steps=st.integers(8, 40),
)  # fmt: skip
def test_at_equal_compute_replay_displaces_rows_of_the_task(own, again, cost, ratio, steps):
    """Training takes no more than without replay, and less by no more than a step and a row."""
    rows = [encoded(f"own{i}", own) for i in range(7)]
    pool = [encoded(f"pool{i}", again) for i in range(20)]
    stream = Stream(rows, pool, steps, 4, 3)
    drawn = np.arange(stream.replayed(ratio)) % 20
    arm, plain = Arm("random", ratio, cost, "compute"), price(rows[:1] * steps * 4, "nll")
    replayed = price([pool[i] for i in drawn], cost)
    if replayed > plain - 2 * 4 * own:
        return  # hardly a row of the task is left; refused when none is
    task = stream.task(arm, drawn, price)
    took = price([task.examples[i] for i in task.order if i < 7], "nll") + replayed
    assert plain - 4 * own < took <= plain
    assert (task.order >= 7).sum() == len(drawn) and len(task.order) == task.steps * 4
    more = stream.task(arm._replace(matched="steps"), drawn, price)
    assert (more.order < 7).sum() >= steps * 4 > (task.order < 7).sum()


def test_replay_that_leaves_no_room_for_the_task_is_refused():
    stream = Stream([encoded("a", 3)], [encoded("b", 400)], 4, 4, 0)
    with pytest.raises(UserError, match="take as many FLOPs"):
        stream.task(Arm("random", 0.5, "nll", "compute"), np.zeros(8, int), price)


def test_a_strategy_takes_what_it_values(grid):
    found, rows, pool, _ = grid
    best = {e.name for e in pool[:4]}  # predicted falls with the number
    top = [c for c in found if c.at["strategy"] == "predicted:top" and c.at["ratio"] == "0.0625"]
    for cell in top:
        own = len(rows[cell.at["task"]])
        assert {cell.task.examples[i].name for i in cell.task.order if i >= own} == best


def test_a_revised_order_keeps_what_was_consumed(grid):
    found = grid[0]
    task = next(c.task for c in found if c.at["strategy"] == "random" and c.at["task"] == "a")
    again = redrawn(task, 10, 30, np.full(64, 19))
    np.testing.assert_array_equal(again.order[:30], task.order[:30])
    later = task.order[30:] >= 10
    assert (again.order[30:][later] == 29).all()
    np.testing.assert_array_equal(again.order[30:][~later], task.order[30:][~later])


@pytest.mark.parametrize("kind", ["softmax", "proportional", "top", "best"])
def test_every_sampling_prefers_high_values_and_never_takes_the_unknown(kind):
    value = np.array([np.nan, 0.0, 1.0, 5.0, np.nan, 4.0])
    first = [choose(value, 1, seed, Sampling(kind, 0.3, 3))[0] for seed in range(60)]
    assert 0 not in first and 4 not in first
    assert np.mean(np.isin(first, [3, 5])) > 0.8
    several = choose(value, 9, 0, Sampling(kind))
    assert len(several) == 9 and set(several) <= {1, 2, 3, 5}


def test_best_of_k_takes_the_most_forgotten():
    """The release that this replaces took the least forgotten of its candidates."""
    value = np.random.default_rng(0).normal(0, 1, 200)
    chosen = choose(value, 20, 0, Sampling("best", best_of=30))
    assert len(set(chosen)) == 20
    assert value[chosen].mean() > value.mean() + 1.2


@pytest.mark.parametrize(
    ("spec", "said"),
    [("rnadom", "no replay strategy"), ("random:top", "takes no sampling"), ("mir:x", "one of")],
)
def test_a_strategy_that_there_is_not(spec, said):
    with pytest.raises(UserError, match=said):
        parse(spec)


def test_coverage_is_the_forgetting_of_like_columns():
    """Two groups of columns that different tasks make forget; only the first is predicted to be."""
    rng = np.random.default_rng(0)
    tasks = np.zeros((8, 12))
    tasks[:4, :6], tasks[4:, 6:] = 1.0, 1.0
    others = tasks + 0.05 * rng.normal(0, 1, (8, 12))
    predicted = np.r_[np.full(6, 0.5), np.zeros(6)]
    predicted[2] = -0.1  # a noisy entry
    value = coverage(Known(np.full(12, np.nan), others, predicted))
    assert value[:6].min() > 5 * value[6:].max() and value[2] > 0.8 * value[0]


def test_diverse_goes_round_the_groups_that_coverage_would_not_leave(monkeypatch):
    rng = np.random.default_rng(0)
    tasks = np.zeros((8, 12))
    tasks[:4, :6], tasks[4:, 6:] = 1.0, 1.0
    others = tasks + 0.05 * rng.normal(0, 1, (8, 12))
    predicted = np.r_[np.full(6, 0.5), np.full(6, 0.3)]
    known = Known(np.full(12, np.nan), others, predicted)
    top = Sampling("top")
    assert all(choose(coverage(known), 4, 0, top) < 6)
    first = choose(diverse(known), 4, 0, top)
    np.testing.assert_array_equal(first < 6, [True, False, True, False])  # .5, .3, .18, .11
    assert sorted(choose(diverse(known), 12, 0, top)) == list(range(12))
    monkeypatch.setattr("forget_jax.replay.strategies.MOST_DIVERSE", 4)
    some = diverse(known)
    np.testing.assert_array_equal(choose(some, 4, 0, top), first)
    assert sorted(some) == list(range(1, 13))


def test_influence_is_of_the_others():
    g = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    known = Known(np.zeros(3), np.zeros((1, 3)), np.array([2.0, -1.0, 3.0]), None, g)
    np.testing.assert_allclose(influence(known), [0.0, 2.0, 0.0])
