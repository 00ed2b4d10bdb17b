"""Probabilities of entries that are zeros or ones: calibrated, honest where outcomes are few."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax.associations import calibration, fit_predictor, predict_row, predict_rows
from forget_jax.associations.completion import predict_left_out


def binary(rows=40, columns=80, seed=0):
    """Answers whose odds are of rank one beside effects of rows and columns."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=(rows, 1)) + 1.5 * rng.normal(size=columns)
    odds += rng.normal(size=(rows, 1)) * rng.normal(size=columns)
    p = 1 / (1 + np.exp(-odds))
    return (rng.random(p.shape) < p).astype(np.float32), p


def test_probabilities_are_found_through_any_rising_distortion():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    truth = (rng.random(p.size) < p).astype(float)
    for estimate in (p, 3 * p**3 - 1, np.sqrt(p) / 9):
        found = calibration.fitted(estimate, truth).of(estimate)
        assert np.abs(found - p).mean() < 0.03
        for b in calibration.reliability(found, truth):
            assert abs(b.predicted - b.observed) < 0.05
        assert calibration.brier(found, truth) < calibration.brier(0.5, truth)


@given(
    st.lists(st.tuples(st.floats(-9, 9, width=32), st.sampled_from([0.0, 1.0, np.nan])), min_size=1)
)
def test_probabilities_rise_and_are_never_certain(pairs):
    value, truth = map(np.array, zip(*pairs, strict=True))
    found = calibration.fitted(value, truth)
    probability = found.of(np.linspace(-10, 10, 99))
    assert (np.diff(probability) >= 0).all()
    if not np.isnan(truth).all():
        assert (probability > 0).all() and (probability < 1).all()
        bins = calibration.reliability(found.of(value), truth)
        assert sum(b.entries for b in bins) == (~np.isnan(truth)).sum()


def test_rows_are_judged_by_the_calibration_of_other_rows():
    rng = np.random.default_rng(1)
    noise = rng.random((10, 1, 50))
    truth = (rng.random(noise.shape) < 0.3).astype(float)
    judged = calibration.judged(noise, truth)
    own = calibration.fitted(noise, truth).of(noise)
    assert calibration.brier(own, truth) < judged.brier_base < judged.brier  # nothing to be learned


@pytest.mark.parametrize("method", ["auto", "als", "logistic_additive"])
def test_rows_left_out_are_predicted_as_new_ones(method):
    z, _ = binary(9, 30)
    columns = np.array([[0, 4, 9, 11, 20, 21], [1, 2, 3, 4, 5, 6]])
    options = {"auto": {"rank": 3}, "logistic_additive": {"steps": 50}}.get(method, {})
    found = predict_left_out(z, columns, method, **options)
    assert found.shape == (9, 2, 30)
    if method == "auto":  # its weights are those of all rows
        options = {"rank": 3}
        assert np.abs(found - z[:, None]).mean() < 0.6
        return
    for i in (0, 8):
        rest = np.delete(z, i, 0)
        alone = predict_rows(rest, columns, z[i][columns], method, **options)
        np.testing.assert_allclose(found[i], alone, atol=2e-5)


def test_a_predictor_of_zeros_and_ones_gives_probabilities():
    z, p = binary()
    predictor = fit_predictor(z[:30], 20, draws=1, rank=3)
    columns = np.arange(20)
    rows = [predict_row(predictor, columns, row[:20]) for row in z[30:]]
    probability, truth = (np.stack(x)[:, 20:] for x in ([r.probability_N for r in rows], z[30:]))
    best = calibration.brier(p[30:, 20:], truth)
    assert calibration.brier(probability, truth) < 0.5 * (best + calibration.brier(0.5, truth))
    assert predictor.judged.brier < predictor.judged.brier_base
    whole = fit_predictor(z[:30] + 0.25, 20, draws=1, rank=3)
    assert whole.judged is None and predict_row(whole, columns, z[30, :20]).probability_N is None


@pytest.mark.fault("matrices to predict from", "as it should be")
@pytest.mark.parametrize("case", ["one class", "few ones", "gaps", "constant rows"])
def test_odd_answers_have_probabilities(case):
    z, _ = binary(8, 30)
    z = {
        "one class": np.zeros_like(z),
        "few ones": (np.arange(240).reshape(8, 30) == 77).astype("f4"),
        "gaps": np.where(np.random.default_rng(0).random(z.shape) < 0.1, np.float32(np.nan), z),
        "constant rows": np.repeat(z[:, :1], 30, 1),
    }[case]
    predictor = fit_predictor(z, 5, draws=1)
    found = predict_row(predictor, np.arange(5), np.nan_to_num(z[0, :5])).probability_N
    assert ((found > 0) & (found < 1)).all()
    if case in ("one class", "few ones"):
        assert (found < 0.1).all()
