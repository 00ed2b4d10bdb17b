"""The rows and order of a stage; and what the authors' code does otherwise (arXiv 2411.07175)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax.data.tokenise import Encoded
from forget_jax.factoids import stages
from forget_jax.factoids.stages import Length, Pool, order, task


def rows(n, start=0, length=2):
    return [
        Encoded(f"r{i}", "s", np.full(length, start + i, np.int32), np.arange(length) > 0)
        for i in range(n)
    ]


@given(
    facts=st.integers(1, 12),
    mixed=st.integers(0, 9),
    earlier=st.integers(0, 9),
    share=st.sampled_from([0.0, 0.2, 1.0]),
    epochs=st.integers(1, 4),
    batch=st.integers(1, 5),
)
def test_an_epoch_has_every_fact_and_every_mixed_row_once(
    facts, mixed, earlier, share, epochs, batch
):
    pool = Pool(rows(facts), rows(mixed), rows(earlier), share, redrawn=True)
    made = task(pool, Length(epochs, batch), 0)
    by_epoch = order(pool, Length(epochs, batch), 0).reshape(epochs, -1)
    for one in by_epoch:
        assert sorted(one[one < facts + mixed]) == list(range(facts + mixed))
        assert len(np.unique(one)) == len(one) == pool.epoch
    assert made.steps == -(-by_epoch.size // batch) and len(made.order) == made.steps * batch
    assert made.order.max() < len(made.examples)


def test_replayed_rows_are_the_same_in_every_epoch_or_others_in_each():
    def replayed(redrawn):
        pool = Pool(rows(8), (), rows(20), 0.25, redrawn)
        return [set(one[one >= 8]) for one in order(pool, Length(4, 4), 3).reshape(4, -1)]

    fixed, redrawn = replayed(False), replayed(True)
    assert all(one == fixed[0] and len(one) == 5 for one in fixed)
    assert set.union(*redrawn) == set(range(8, 28))


def test_a_control_has_the_steps_of_a_mix_and_none_of_its_rows():
    mix, control = Pool(rows(6), rows(9)), Pool(rows(6), more=9)
    one, other = task(mix, Length(4, 5), 0), task(control, Length(4, 5), 0)
    assert one.steps == other.steps and set(other.order) == set(range(6))
    assert np.bincount(order(control, Length(4, 5), 0), minlength=6).tolist() == [10] * 6


def test_runs_of_one_seed_have_one_order_and_of_another_another():
    pool = Pool(rows(9))
    assert np.array_equal(order(pool, Length(3, 4), 1), order(pool, Length(3, 4), 1))
    assert not np.array_equal(order(pool, Length(3, 4), 1), order(pool, Length(3, 4), 2))


# What the authors' code does, and what results from it: each is so under `paper`, not `clean`.


def test_paper_never_trains_the_rows_that_fill_no_batch():
    pool = Pool(rows(2000))
    for protocol, missed in (("paper", 16), ("clean", 0)):
        made = task(pool, Length(20, 32, protocol), 0)
        assert 2000 - len(set(made.order)) == missed
    assert task(pool, Length(20, 32, "paper"), 0).steps == 1240


def test_paper_has_one_order_for_all_epochs():
    pool = Pool(rows(32))
    first, second = order(pool, Length(2, 8, "paper"), 0).reshape(2, -1)
    assert np.array_equal(first, second)
    first, second = order(pool, Length(2, 8), 0).reshape(2, -1)
    assert not np.array_equal(first, second)


def test_paper_cuts_a_mix_away_behind_a_large_set():
    pool = Pool(rows(7473), rows(4000))
    assert order(pool, Length(1, 1, "paper"), 0).max() < 7473  # nothing is mixed in
    assert order(pool, Length(1, 1), 0).max() == 7473 + 4000 - 1


def test_paper_trains_on_padding():
    short, long = rows(1, 5, 3), rows(1, 9, 7)
    made = task(Pool(short, long), Length(1, 2, "paper"), 0, pad_id=2)
    assert {len(e.ids) for e in made.examples} == {7}
    assert made.examples[0].ids.tolist() == [5, 5, 5, 2, 2, 2, 2]
    assert made.examples[0].is_target.tolist() == [False] + 6 * [True]
    clean = task(Pool(short, long), Length(1, 2), 0, pad_id=2)
    assert [len(e.ids) for e in clean.examples] == [3, 7]


def test_a_goal_gives_the_facts_to_look_at():
    pool = Pool(rows(5), rows(3))
    made = task(pool, Length(2, 2, goal=0.5), 0)
    assert list(made.heldout) == list(pool.facts) and made.goal == 0.5
    assert not task(pool, Length(2, 2), 0).heldout


@pytest.mark.parametrize("share", [0.001, 1.0])
def test_a_share_above_zero_replays_at_least_one(share):
    assert Pool(rows(2), (), rows(4), share).replayed == (1 if share < 1 else 4)
    assert stages.PAPER_CAP == 6020
