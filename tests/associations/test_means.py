"""Means of groups of a row: corrected by random probes, and how many probes they need."""

import numpy as np
import pytest

from forget_jax.associations import (
    expected_errors,
    fit_predictor,
    predict_means,
    predict_row,
    probes_needed,
    robust_means,
)
from forget_jax.associations.intervals import Levelling, levelled
from forget_jax.errors import UserError

N, S = 200, 30


@pytest.fixture(name="train", scope="module")
def _train():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(12, 1)) @ rng.normal(size=(1, N)) + rng.normal(size=N)).astype("f4")


@pytest.fixture(name="predictor", scope="module")
def _predictor(train):
    groups = [np.ones(N, bool), np.arange(N) < 100, np.arange(N) == 7]
    return fit_predictor(train, S, groups=groups, draws=1)


def test_corrected_means_are_right_for_a_row_unlike_all_others(predictor):
    rng = np.random.default_rng(1)
    row = (2 + np.where(np.arange(N) < 100, 3, -1) * rng.gamma(1.0, size=N)).astype("f4")
    truth = np.array([row.mean(), row[:100].mean()])
    found = []
    for _ in range(60):
        columns = rng.choice(N, S, replace=False)
        found.append(np.array(robust_means(predictor, columns, row[columns]))[:, :2])
    mean, low, high = np.array(found).transpose(1, 0, 2)
    np.testing.assert_allclose(mean.mean(0), truth, atol=4 * mean.std(0).max() / np.sqrt(60))
    inside = ((low <= truth) & (truth <= high)).mean(0)
    assert (inside > 0.75).all()
    assert (high - low > 0).all()


def test_groups_with_few_probes_have_no_corrected_mean_and_whole_ones_are_exact(predictor, train):
    row = train[0] + 0.1 * np.random.default_rng(2).normal(size=N).astype("f4")
    columns = np.r_[7, np.arange(100, 129)]
    mean, low, high = robust_means(predictor, columns, row[columns])
    assert np.isfinite(mean[0]) and np.isnan([mean[1], mean[2], low[2], high[2]]).all()
    everything = np.arange(N)
    mean, low, high = robust_means(predictor, everything, row)
    np.testing.assert_allclose(mean[:2], [row.mean(), row[:100].mean()], atol=1e-5)
    np.testing.assert_allclose((high - low)[:2], 0, atol=1e-6)
    values = np.full(3, np.nan)
    assert np.isnan(robust_means(predictor, [0, 1, 2], values)).all()
    with pytest.raises(UserError, match="twice"):
        robust_means(predictor, [0, 0, 1], [1.0, 1.0, 1.0])


def test_both_means_agree_where_the_model_holds(predictor, train):
    row = (0.5 * train[0] + 0.5 * train[1]).astype("f4")
    columns = np.random.default_rng(3).choice(N, S, replace=False)
    measured = np.full(N, np.nan)
    measured[columns] = row[columns]
    usual, *_ = predict_means(predictor, predict_row(predictor, columns, row[columns]), measured)
    corrected, *_ = robust_means(predictor, columns, row[columns])
    np.testing.assert_allclose(corrected[:2], usual[:2], atol=0.05)


def test_rows_deviations_are_levelled_as_far_as_held_out_rows_ask():
    rng = np.random.default_rng(0)
    scales = np.exp(rng.normal(size=40))
    deviations = [np.full(50, scale) for scale in scales]
    alike = [np.abs(rng.normal(size=50)) / scale for scale in scales]  # rows really vary alike
    found = levelled(alike, deviations, 0.9, 40)
    assert -1 <= found.slope < -0.7
    right = [np.abs(rng.normal(size=50)) for _ in scales]  # the deviations are right
    assert abs(levelled(right, deviations, 0.9, 40).slope) < 0.1
    assert levelled(right, [np.ones(50)] * 40, 0.9, 40) == Levelling(0.0, 0.0, 0.0, 0.0)
    assert found.of(np.full(50, np.exp(found.centre))) == pytest.approx(1)
    assert found.of(np.full(50, 1e9)) == found.of(np.full(50, 1e12))  # none beyond is believed


def test_errors_of_means_are_those_computed_by_hand():
    z = np.arange(24, dtype=float).reshape(6, 4) ** 1.5
    groups = {"": np.ones(4, bool), "last": np.arange(4) == 3}
    record, *_ = expected_errors(z, (1,), seeds=1, method="column_mean", groups=groups)
    probed = np.random.default_rng(30_000).choice(4, 1, replace=False)[0]
    off = np.array([np.delete(z, i, 0).mean(0) - z[i] for i in range(6)])
    off[:, probed] = 0
    assert record["means"][""]["rmse"] == pytest.approx(np.sqrt(np.mean(off.mean(1) ** 2)), 1e-5)
    if probed != 3:
        assert record["means"]["last"]["rmse"] == pytest.approx(np.sqrt((off[:, 3] ** 2).mean()))
    assert record["means"][""]["bound"] == np.inf  # six tasks promise no ninety per cent
    with pytest.raises(UserError, match="masks of 4 columns"):
        expected_errors(z, (1,), groups={"a": np.ones(3, bool)})


def test_more_probes_are_needed_for_a_noisy_source(train):
    groups = {"calm": np.arange(N) < 100, "noisy": np.arange(N) >= 100}
    noise = np.random.default_rng(4).normal(size=train.shape) * np.where(groups["noisy"], 2, 0.1)
    records = expected_errors(train + noise, (5, 20, 60), groups=groups, confidence=0.8)
    bounds = {name: [r["means"][name]["bound"] for r in records] for name in groups}
    target = 1.01 * bounds["calm"][1]
    assert probes_needed(records, target, "calm") <= 20
    assert (probes_needed(records, target, "noisy") or 1000) > probes_needed(
        records, target, "calm"
    )
    assert probes_needed(records, 0.0, "calm") is None


@pytest.mark.fault("matrices to complete", "as it should be")
@pytest.mark.parametrize("case", ["zeros", "constant rows", "one column alike", "four rows"])
def test_odd_matrices_have_means_with_intervals(case):
    z = np.random.default_rng(5).normal(size=(8, 30)).astype("f4")
    z = {
        "zeros": np.zeros_like(z),
        "constant rows": np.repeat(z[:, :1], 30, 1),
        "one column alike": np.where(np.arange(30) == 3, 1, z),
        "four rows": z[:4],
    }[case]
    columns = np.arange(5)
    predictor = fit_predictor(z, 5, groups=[np.ones(30, bool)], draws=1)
    row = predict_row(predictor, columns, z[0, :5])
    measured = np.where(np.arange(30) < 5, z[0], np.nan)
    for mean, low, high in (
        predict_means(predictor, row, measured),
        robust_means(predictor, columns, z[0, :5]),
    ):
        assert np.isfinite([mean, low, high]).all() and low <= mean <= high
    if case == "zeros":
        assert (row.low_N == 0).all() and (row.high_N == 0).all()
