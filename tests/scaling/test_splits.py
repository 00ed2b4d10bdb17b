"""Rows left out of a fit: which, how well they are predicted, and whether ranks matter."""

import numpy as np
import pytest

from forget_jax.errors import UserError
from forget_jax.scaling import holdout, holdouts, rank_test
from forget_jax.scaling.splits import folds

QUICK = {"bootstraps": 64, "starts": 32}


def table(seed=0, ranks=5, seeds=3, noise=0.01, shift=0.0):
    rng = np.random.default_rng(seed)
    rows = []
    for r in range(ranks):
        for s in range(seeds):
            own = rng.normal(0, noise)
            for n in (10.0, 20, 40, 80, 160):
                P = 1e5 * 2.0**r
                kl = 1e-3 * P**0.2 * n**0.5
                l_ft = 2.0 - kl + rng.normal(0, noise / 10)
                l_f = 0.5 + 0.8 * (2.0 - l_ft) + own + shift * r + rng.normal(0, noise / 10)
                method = "lora" if s else "dora"
                rows.append((P, n, f"r{r}s{s}", method, l_ft, l_f, kl * (1 + own)))
    names = ("P", "steps", "run", "method", "l_ft", "l_f", "kl")
    return {k: np.array(v) for k, v in zip(names, zip(*rows, strict=True), strict=True)}


def test_folds_leave_out_each_group_once_and_the_last_steps():
    points = table()
    for split, count in (("rank", 5), ("method", 2), ("run", 15)):
        outs = folds(points, split)
        assert len(outs) == count and (np.sum(outs, axis=0) == 1).all()
    (late,) = folds(points, "late")
    assert set(points["steps"][late]) == {160.0}
    uneven = {
        **points,
        "steps": np.where(points["run"] == "r0s0", points["steps"] / 2, points["steps"]),
    }
    assert set(uneven["steps"][folds(uneven, "late")[0] & (points["run"] == "r0s0")]) == {80.0}


def test_a_true_law_beats_the_nulls_and_its_intervals_hold_their_share():
    found, refused = holdouts(table(), ("kl_origin",), "rank", target="kl", **QUICK)
    law = found["kl_origin"]
    assert set(found) == {"kl_origin", "constant", "power_N", "power_P"} and not refused
    assert law.error < 0.2 * min(found[n].error for n in ("constant", "power_N", "power_P"))
    assert abs(law.signed) <= law.error
    assert (law.points, law.folds) == (75, 5)
    assert 0.85 <= law.coverage <= 1.0


def test_the_signed_error_has_the_sign_of_the_bias():
    """A line through growth that bends upwards predicts too little of the last steps."""
    n = np.tile(np.arange(1.0, 11.0), 3)
    points = {"steps": n, "l_f": n**2, "run": np.repeat([0, 1, 2], 10)}
    found = holdout("s + K*steps", points, "late", **QUICK)
    assert found.signed < -10 and found.signed == pytest.approx(-found.error)


def test_a_law_that_cannot_be_refitted_is_refused_with_the_reason():
    points = {k: v[:30] for k, v in table().items()}
    points["method"] = np.repeat(["a", "b"], 15)  # one rank each
    found, refused = holdouts(points, ("multiplicative", "power_N"), "method", **QUICK)
    assert "power_N" in found and "one rank only" in refused["multiplicative"]


@pytest.mark.parametrize(
    ("split", "said"),
    [("metod", "no column 'metod' .did you mean method"), ("one", "nothing can be left out")],
)
def test_what_cannot_be_left_out(split, said):
    with pytest.raises(UserError, match=said):
        folds({**table(), "one": np.ones(75)}, split)


def test_late_needs_steps():
    with pytest.raises(UserError, match="late needs the column steps"):
        folds({"l_ft": np.arange(5.0)}, "late")
    with pytest.raises(UserError, match="early and late"):
        folds({"steps": np.ones(5)}, "late")


@pytest.mark.parametrize("seeds", [1, 3])
def test_ranks_that_do_not_differ_are_rarely_told_apart(seeds):
    p = [rank_test(table(seed, ranks=6, seeds=seeds)).p_level for seed in range(200)]
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.11
    assert 0.4 < np.mean(p) < 0.6


@pytest.mark.parametrize(("seeds", "test"), [(1, "trend with log P"), (3, "F between ranks")])
def test_a_rank_that_matters_is_found(seeds, test):
    found = rank_test(table(0, ranks=6, seeds=seeds, shift=0.05))
    assert found.p_level < 1e-3 and found.test == test and found.runs == 6 * seeds
    np.testing.assert_allclose(found.slopes, -0.8, atol=0.05)
    assert np.ptp(found.levels) == pytest.approx(0.25, abs=0.05)


def test_ranks_need_runs():
    points = {k: v[:10] for k, v in table().items()}
    with pytest.raises(UserError, match="four runs"):
        rank_test(points)
    with pytest.raises(UserError, match="no column 'l_ft'"):
        rank_test({"P": points["P"], "l_f": points["l_f"]})
