"""Replay weights, draws and the order of a mixed stream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax.data import mixing, order
from forget_jax.errors import UserError
from forget_jax.replay.strategies import draw, weights

rows = st.lists(st.floats(-5, 5), min_size=2, max_size=40).map(np.array)


@given(rows, st.floats(0.1, 10), st.floats(-3, 3), st.floats(0.1, 10))
def test_weights_do_not_depend_on_shift_or_scale_of_the_row(z, temperature, shift, scale):
    p = weights(z, temperature)
    np.testing.assert_allclose(p.sum(), 1)
    if z.std() > 1e-3:
        np.testing.assert_allclose(p, weights(scale * z + shift, temperature), atol=1e-6)


def test_weights_are_a_softmax_in_units_of_the_spread():
    z = np.array([0.0, 1.0, 3.0])
    expected = np.exp(z / (0.5 * z.std()))
    np.testing.assert_allclose(weights(z, 0.5), expected / expected.sum())


@pytest.mark.parametrize("spread", [5e-324, 1e-310, 1e-307])
def test_a_spread_that_nothing_can_be_divided_by_is_none(spread):
    np.testing.assert_allclose(weights(np.array([0.0, spread, 0.0]), 1e-6), 1 / 3)


def test_unknown_candidates_are_never_drawn():
    p = weights(np.array([np.nan, 1.0, 2.0, np.nan]), 1.0)
    assert p[0] == p[3] == 0 and p[2] > p[1]
    assert set(draw(p, 50, seed=0)) == {1, 2}


def test_a_draw_repeats_nothing_before_all_were_drawn():
    p = weights(np.arange(10.0), 1.0)
    drawn = draw(p, 25, seed=3)
    assert len(drawn) == 25
    assert sorted(drawn[:10]) == sorted(drawn[10:20]) == list(range(10))
    assert len(set(drawn[20:])) == 5
    np.testing.assert_array_equal(drawn, draw(p, 25, seed=3))


def test_likelier_candidates_are_drawn_more_often():
    p = weights(np.array([0.0, 0.0, 0.0, 4.0]), 1.0)
    first = [draw(p, 1, seed)[0] for seed in range(200)]
    assert abs(np.mean(np.array(first) == 3) - p[3]) < 0.1


@pytest.mark.parametrize("z, temperature", [([np.nan, np.nan], 1.0), ([0.0, 1.0], 0.0)])
def test_nothing_known_or_no_temperature_is_refused(z, temperature):
    with pytest.raises(UserError):
        weights(np.array(z), temperature)


@given(st.integers(1, 20), st.integers(0, 60), st.integers(0, 15), st.integers(0, 5))
def test_mixing_keeps_the_tasks_own_stream_and_every_insertion(n, total, count, seed):
    mixed = np.arange(count)
    together = mixing.inserted(n, total, mixed, seed)
    own = together[together < n]
    assert sorted(own) == sorted(order.rows(seed, n, 0, total))
    assert sorted(together[together >= n] - n) == list(mixed)
    np.testing.assert_array_equal(together, mixing.inserted(n, total, mixed, seed))
