"""What a comparison of strategies is said to show."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax.replay import verdict
from forget_jax.replay.cells import Arm

RANDOM = Arm("random", 1 / 32)
ONE = Arm("predicted", 1 / 32)


def frame(z_by_arm):
    """Cells of arms, each with figures task x seed."""
    rows = [
        {"task": f"t{m}", **arm._asdict(), "seed": s, "z": z, "loss": 1.0}
        for arm, z_TxS in z_by_arm.items()
        for (m, s), z in np.ndenumerate(z_TxS)
    ]
    return pd.DataFrame(rows)


def test_p_is_the_share_of_sign_flips_of_whole_tasks():
    d = np.random.default_rng(0).normal(0.4, 1, (7, 3))
    mean_T = d.mean(1)
    flips = np.array(list(itertools.product([-1, 1], repeat=7)))
    means = flips @ mean_T / 7
    two_sided = 2 * min(
        (means >= mean_T.mean() - 1e-12).mean(), (means <= mean_T.mean() + 1e-12).mean()
    )
    found = verdict.paired(d)
    assert found.p == pytest.approx(min(1, two_sided))
    assert (found.pairs, found.tasks) == (21, 7)
    assert found.low < found.mean < found.high


def test_seeds_of_a_task_are_no_further_evidence():
    mean_T = np.array([0.3, 0.1, 0.5, -0.1])
    few, many = (verdict.paired(np.repeat(mean_T[:, None], s, 1)) for s in (1, 50))
    assert few.p == pytest.approx(many.p) and few.low == pytest.approx(many.low)


def test_tasks_needed_find_the_effect_in_four_of_five():
    rng = np.random.default_rng(0)
    found = verdict.paired(rng.normal(0.5, 1, (400, 1)))
    rejected = [
        abs(x.mean()) / (x.std(ddof=1) / np.sqrt(found.needed)) > 2.03
        for x in rng.normal(0.5, 1, (2000, found.needed))
    ]
    assert 0.7 < np.mean(rejected) < 0.9


@pytest.mark.parametrize(("value", "p"), [(0.5, 2 / 8), (-0.86, 2 / 8), (0.0, 1.0)])
def test_differences_that_are_all_alike_are_no_certainty(value, p):
    found = verdict.paired(np.full((3, 1), value))
    assert found.p == pytest.approx(p) and found.low == found.high == pytest.approx(value)
    assert found.needed is None


def test_one_task_has_no_interval_and_no_p():
    found = verdict.paired(np.array([[0.1, 0.2]]))
    assert found.mean == pytest.approx(0.15) and np.isnan(found.p) and found.needed is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_at_least_p_and_keeps_its_order(p):
    found = np.array(verdict.holm(p))
    assert (found >= np.array(p) - 1e-12).all() and (found <= 1).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(found[order]) >= -1e-12).all()


def test_holm_by_hand_and_without_what_has_none():
    assert verdict.holm([0.01, 0.04, np.nan, 0.03]) == pytest.approx(
        [0.03, 0.06, np.nan, 0.06], nan_ok=True
    )


@pytest.mark.parametrize(("noise", "enough"), [(0.001, True), (0.2, False)])
def test_headroom_is_judged_by_the_noise_between_seeds(noise, enough):
    rng = np.random.default_rng(1)
    none, random = (mean + noise * rng.normal(0, 1, (6, 3)) for mean in (0.3, 0.2))
    found = verdict.headroom(frame({Arm("none"): none, RANDOM: random}), RANDOM)
    assert found.enough is enough
    assert ("no headroom" in found.line()) is not enough
    assert found.noise == pytest.approx(noise * np.sqrt(2), rel=0.5)


def test_one_seed_cannot_tell_headroom():
    found = verdict.headroom(
        frame({Arm("none"): np.ones((4, 1)), RANDOM: np.zeros((4, 1))}), RANDOM
    )
    assert not found.enough and "one seed" in found.line()


def test_the_share_recovered_is_of_what_random_replay_saves():
    cells = frame(
        {Arm("none"): np.full((5, 2), 0.4), RANDOM: np.full((5, 2), 0.2), ONE: np.full((5, 2), 0.1)}
    )
    assert verdict.recovered(cells, ONE, RANDOM) == pytest.approx((0.5, 0.5, 0.5))


def test_every_comparison_is_made_once_and_corrected_within_its_family():
    rng = np.random.default_rng(2)
    arms = [
        Arm("none"),
        *(Arm(s, 0.1, c) for s in ("random", "column_mean", "predicted") for c in ("nll", "kl")),
    ]
    found = verdict.tests(frame({a: rng.normal(0, 1, (6, 2)) for a in arms}), arms)
    pairs = {(a.strategy, a.cost, b.strategy, b.cost) for a, b in found}
    assert len(pairs) == len(found)
    assert ("predicted", "kl", "random", "kl") in pairs
    assert ("predicted", "nll", "column_mean", "nll") in pairs
    assert ("predicted", "kl", "predicted", "nll") in pairs
    assert ("random", "nll", "none", "nll") in pairs
    assert all(one.p_holm >= one.p - 1e-12 for one in found.values())
