"""The protocol, its metrics, nomination, intervals and probes, on small planted matrices."""

import numpy as np
import pytest

from forget_jax.associations import (
    choose_probes,
    compare_probes,
    evaluate,
    expected_errors,
    fit_predictor,
    metrics,
    nominate,
    paired_difference,
    predict_from_features,
    predict_row,
    probes_needed,
)
from forget_jax.errors import UserError

TRAIN, TEST = range(14), (14, 15)


@pytest.fixture(name="z", scope="module")
def _z():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(16, 2)) @ rng.normal(size=(2, 60)) + rng.normal(size=(1, 60))
    return z + 0.3 * rng.normal(size=(16, 60))


def test_column_mean_scores_are_those_computed_by_hand(z):
    z = z.copy()
    z[14, 7] = np.nan
    found = evaluate(z, TRAIN, TEST, 10, [5], ["column_mean"], k=5)["column_mean"]
    columns = np.random.default_rng(5).choice(60, 10, replace=False)
    rest = np.setdiff1d(np.arange(60), columns)
    truth, guess = z[14:][:, rest], np.broadcast_to(z[:14].mean(0)[rest], (2, 50))
    known = ~np.isnan(truth)
    error = (guess - truth)[known]
    assert found["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert found["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    positive, called = truth[known] > 0, guess[known] > 0
    hits = (positive & called).sum()
    assert found["precision"] == pytest.approx(hits / called.sum())
    assert found["recall"] == pytest.approx(hits / positive.sum())
    assert found["f1"] == pytest.approx(2 * hits / (positive.sum() + called.sum()))
    pairs = guess[known][positive][:, None] - guess[known][~positive]
    assert found["auc"] == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    top = [
        len(set(np.argsort(-t)[:5]) & set(np.argsort(-g)[:5])) / 5
        for t, g in zip(
            np.where(known, truth, -np.inf), np.where(known, guess, -np.inf), strict=True
        )
    ]
    assert found["precision_at_k"] == pytest.approx(np.mean(top))


def test_precision_of_ties_and_of_zeros_and_ones():
    score = np.arange(8.0)[None]
    ones = np.array([[1.0, 0, 0, 0, 1, 0, 1, 1]])
    assert metrics.precision_at(ones, score, 3) == pytest.approx(2 / 3)
    few = np.array([[0.0, 0, 0, 0, 0, 0, 0, 1]])
    assert metrics.precision_at(few, score, 4) == 0.25  # zeros are no hits, though four are wanted
    tied = np.array([[0.0, 1, 2, 2, 2, 1, 0, np.nan]])
    assert metrics.precision_at(tied, -score, 2) == 0
    assert metrics.precision_at(tied, np.array([[0.0, 0, 9, 0, 8, 0, 0, 99]]), 2) == 1
    left_out = np.array([np.ones(8), np.full(8, np.nan)])
    assert np.isnan(metrics.precision_at(left_out, np.zeros((2, 8)), 2)).all()


def test_ranks_ignore_missing_entries():
    ranks = metrics.ranks(np.array([[3.0, np.nan, 1.0, 3.0]]))
    np.testing.assert_array_equal(ranks, [[2.5, np.nan, 1.0, 2.5]])


def test_factor_models_beat_means_where_there_are_factors(z):
    found = evaluate(z, TRAIN, TEST, 12, 5, ["column_mean", "additive", "als", "mixture"])
    difference = paired_difference(found, "mixture", "additive")
    assert difference["high"] < 0
    assert difference["low"] < difference["mean"] < difference["high"]
    assert found["als"]["rmse"] < found["column_mean"]["rmse"]
    assert len(found["als"]["per_seed"]["rmse"]) == 5
    with pytest.raises(UserError, match="no rmse of 'knn'"):
        paired_difference(found, "als", "knn")


def test_the_same_seed_gives_the_same_result_and_labels_may_carry_settings(z):
    methods = {"a": {"method": "svd_sgd", "epochs": 20}, "b": {"method": "svd_sgd", "epochs": 20}}
    found = evaluate(z, TRAIN, TEST, 10, 2, methods)
    assert found["a"]["per_seed"] == found["b"]["per_seed"]


def test_a_binary_matrix_is_scored_at_one_half():
    rng = np.random.default_rng(1)
    odds = 3 * rng.normal(size=(16, 1)) + 3 * rng.normal(size=(1, 60))
    z = (odds > 0).astype(float)
    settings = {"steps": 300, "rate": 0.05}
    found = evaluate(z, TRAIN, TEST, 15, 3, {"logistic": settings, "logistic_additive": settings})
    assert found["logistic_additive"]["f1"] > 0.8
    assert found["logistic"]["auc"] > 0.8
    for method in found.values():
        assert method["brier"] < 0.7 * method["brier_base"]
        assert sum(b.entries for b in method["reliability"]) == 3 * 2 * 45
        mean = np.mean(method["per_seed"]["brier"])
        assert method["brier"] == pytest.approx(mean) and len(method["per_seed"]["brier"]) == 3
    few = evaluate(z, range(3), TEST, 15, 1, ["column_mean"])["column_mean"]
    assert "brier" not in few  # too few rows to calibrate on


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_rows": (0, 14)}, "row 14 is both a train and a test task"),
        ({"test_rows": (99,)}, "row 99 is not among the 16 rows"),
        ({"test_rows": ()}, "the test split names no row"),
        ({"train_rows": (1, 1)}, "row 1 is named twice"),
        ({"n_observed": 60}, "60 observed entries of 60 columns"),
        ({"n_observed": 0}, "0 observed entries"),
        ({"seeds": 0}, "at least one seed"),
        ({"methods": {"als": {"rank": 15}}}, "rank 15 does not fit 14 known rows"),
        ({"methods": {"als": {"reg": -1.0}}}, "reg must be a number of at least 0"),
        ({"methods": {"als": {"rank": "two"}}}, "rank must be a number"),
    ],
)
def test_mistakes_in_the_protocol_are_one_line(z, change, message):
    call = {
        "z": z, "train_rows": TRAIN, "test_rows": TEST, "n_observed": 10, "seeds": 1,
        "methods": ["additive"],
    }  # fmt: skip
    with pytest.raises(UserError, match=message):
        evaluate(**(call | change))


def test_a_test_row_without_entries_is_an_error_and_an_empty_train_row_is_not(z):
    z = z.copy()
    z[15] = np.nan
    with pytest.raises(UserError, match="test row 15 has no known entry"):
        evaluate(z, TRAIN, TEST, 10, 1, ["additive"])
    z[3] = np.nan
    z[:, 4] = np.nan
    z[5] = 1.0
    found = evaluate(z, TRAIN, (14,), 10, 2, ["additive", "knn", "als", "mixture", "soft_impute"])
    assert all(np.isfinite(m["rmse"]) for m in found.values())


def test_nomination_takes_factors_where_there_are_some(z):
    candidates = (("additive", {}), ("als", {"rank": 2, "reg": 1.0}), ("als", {"rank": 99}))
    chosen = nominate(z[:14], 12, 2, candidates)
    assert chosen.method == "als"
    assert len(chosen.table) == 2  # a rank that does not fit is passed over
    with pytest.raises(UserError, match="at least 4 train rows"):
        nominate(z[:3], 12)
    with pytest.raises(UserError, match="no candidate's rank fits 4 train rows"):
        nominate(z[:4], 12, 1, (("als", {"rank": 2}),))


def test_intervals_hold_the_share_they_promise_and_known_rows_need_no_refit(z):
    rng = np.random.default_rng(3)
    factors = rng.normal(size=(2, 80))
    train, new = (
        rng.normal(size=(k, 2)) @ factors + 0.3 * rng.normal(size=(k, 80)) for k in (30, 30)
    )
    predictor = fit_predictor(train, 15, 0.9, draws=2, rank=3)
    columns = rng.choice(80, 15, replace=False)
    rows = [predict_row(predictor, columns, row[columns]) for row in new]
    inside = [(r.low_N <= row) & (row <= r.high_N) for r, row in zip(rows, new, strict=True)]
    assert 0.85 < np.mean(np.delete(inside, columns, 1)) < 0.95
    with pytest.raises(UserError, match="as many finite values"):
        predict_row(predictor, columns, new[0][columns][1:])
    with pytest.raises(UserError, match="row 80 is not among"):
        predict_row(predictor, [80], [0.0])
    with pytest.raises(UserError, match="coverage must lie between 0 and 1"):
        fit_predictor(train, 15, 90)


def test_chosen_probes_lower_the_planted_error_and_stay_where_they_may():
    rng = np.random.default_rng(4)
    # Only the first ten columns tell the factors well; the others are noisy.
    loadings = np.where(np.arange(60) < 10, 3.0, 1.0) * rng.normal(size=(2, 60))
    noise = np.where(np.arange(60) < 10, 0.05, 1.0)
    z = rng.normal(size=(30, 2)) @ loadings + noise * rng.normal(size=(30, 60))
    assert set(choose_probes(z, 3, rank=2, offset=0.0, pooled=0.0)) <= set(range(10))
    allowed = np.arange(60) >= 30
    assert (choose_probes(z, 5, "top", allowed, k=5) >= 30).all()
    assert len(set(choose_probes(z, 60, "mean"))) == 60
    compared = compare_probes(z[:20], z[20:], 3, range(4), "row", "gaussian", k=5, rank=2)
    assert compared["rmse"]["mean"] == pytest.approx(
        compared["rmse"]["chosen"] - compared["rmse"]["random"]
    )
    with pytest.raises(UserError, match="test rows of 59"):
        compare_probes(z[:20], z[20:, 1:], 3, range(4))
    with pytest.raises(UserError, match="unknown aim 'best'"):
        choose_probes(z, 3, "best")
    with pytest.raises(UserError, match="31 probes of 30 columns"):
        choose_probes(z, 31, allowed=allowed)


def test_expected_errors_fall_and_say_how_many_probes_are_needed(z):
    records = expected_errors(z, (4, 40, 60), 0.8, 2, "als", rank=2)
    assert [r["observed"] for r in records] == [4, 40]
    assert records[1]["rmse"] < records[0]["rmse"]
    assert all(r["low"] <= r["high"] <= r["bound"] * 1.5 for r in records)
    assert probes_needed(records, records[1]["bound"]) == 40
    assert probes_needed(records, 0.0) is None
    few = expected_errors(z[:5], (4,), 0.9, 1, "additive")
    assert few[0]["bound"] == float("inf")  # five tasks cannot promise 90 %


def test_representations_that_tell_forgetting_are_learned():
    rng = np.random.default_rng(6)
    tasks, examples = rng.normal(size=(16, 3)), rng.normal(size=(60, 3))
    z = np.tanh(tasks) @ examples.T
    guess = predict_from_features(z[:14], tasks[:14], tasks[14:], examples, width=32, steps=300)
    assert np.corrcoef(guess.ravel(), z[14:].ravel())[0, 1] > 0.8
    with pytest.raises(UserError, match="features of 13 tasks"):
        predict_from_features(z[:14], tasks[:13], tasks[14:], examples)
