"""Lost and gained answers, adjusted for chance, and intervals of a mean change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax.associations import changes
from forget_jax.errors import UserError


def test_a_mean_change_with_its_interval_over_examples():
    z_N, tokens_N = np.array([0.1, 0.3, np.nan, -0.1]), np.array([10.0, 1.0, 5.0, 4.0])
    found = changes.change(z_N, tokens_N, 0.95)
    assert found.examples == 3 and found.mean == pytest.approx(0.1)
    assert found.over_tokens == pytest.approx((1.0 + 0.3 - 0.4) / 15)
    half = 4.30265 * 0.2 / np.sqrt(3)  # Student's t with two degrees of freedom
    assert (found.low, found.high) == pytest.approx((0.1 - half, 0.1 + half), rel=1e-5)
    assert found.worse == pytest.approx(2 / 3)


def test_nothing_known_has_no_mean():
    found = changes.change(np.full(3, np.nan), np.ones(3), 0.95)
    assert found.examples == 0 and np.isnan(found.mean)
    assert np.isnan(changes.change(np.array([1.0]), np.ones(1), 0.9).low)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = [
        (c := changes.change(rng.normal(0.3, 1, 20), np.ones(20), 0.9)).low < 0.3 < c.high
        for _ in range(400)
    ]
    assert 0.85 < np.mean(held) < 0.95


def test_lost_and_gained_answers_and_their_test():
    before = np.array([1, 1, 1, 1, 1, 1, 0, 0, 1, np.nan])
    after = np.array([0, 0, 0, 0, 0, 0, 1, 0, 1, 1])
    found = changes.flips(before, after, np.full(10, np.nan))
    assert (found.answers, found.lost, found.gained) == (9, 6, 1)
    assert found.p == pytest.approx(2 * (1 + 7) / 2**7)  # two-sided binomial of 1 in 7
    assert found.adjusted is None
    assert changes.flips(np.full(2, np.nan), np.ones(2), np.ones(2)) is None
    with pytest.raises(UserError, match="one option"):
        changes.flips(np.ones(2), np.ones(2), np.ones(2))


@given(
    st.integers(2, 6),
    st.tuples(*[st.floats(0.01, 1)] * 4),
)
def test_adjusting_for_chance_finds_what_was_lost(options, weights):
    """Expected counts of the model in the docstring, as fractions of many examples."""
    kept, lost, gained, never = np.array(weights) / sum(weights)
    q = 1 / options
    # shares of (right before, right after) by whether each was known or guessed
    both = kept + lost * q + gained * q + never * q * q
    down = lost * (1 - q) + never * q * (1 - q)
    up = gained * (1 - q) + never * q * (1 - q)
    N = 200_000
    counts = np.round(np.array([both, down, up, 1 - both - down - up]) * N).astype(int)
    before = np.repeat([1.0, 1.0, 0.0, 0.0], counts)
    after = np.repeat([1.0, 0.0, 1.0, 0.0], counts)
    found = changes.flips(before, after, np.full(before.size, float(options))).adjusted
    wanted = (lost, gained, kept + lost, kept + gained)
    given_ = (found.lost, found.gained, found.before, found.after)
    np.testing.assert_allclose(given_, wanted, atol=2e-4)


def test_open_questions_beside_others_count_as_they_are():
    before, after = np.array([1.0, 1, 0, 0]), np.array([0.0, 1, 0, 0])
    open_ = changes.flips(before, after, np.array([np.nan, np.nan, np.nan, 1e9]))
    assert open_.adjusted.lost == pytest.approx(0.25) and open_.adjusted.before == pytest.approx(
        0.5
    )


def test_the_floor_is_the_end_of_the_interval_that_is_farther_from_zero():
    moved = np.array([1e-6, -3e-6, -2e-6])
    found = changes.change(moved, np.ones(3), 0.95)
    assert changes.floor(moved, 0.95) == -found.low > 0
    assert changes.floor(np.array([]), 0.95) == 0
