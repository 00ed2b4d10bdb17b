"""Features of tasks: they help where rows follow them, and are left out where they do not."""

import numpy as np
import pytest

from forget_jax.associations import fit_predictor, predict_means, predict_row, robust_means
from forget_jax.associations.task_features import TaskFeatures
from forget_jax.errors import UserError

M, N, S = 16, 60, 3


@pytest.fixture(name="rows", scope="module")
def _rows():
    """Rows of a factor that a feature tells, and much noise, so that few probes tell little."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(M + 8, 1))
    z = factor @ (1 + 0.3 * rng.normal(size=(1, N))) + rng.normal(size=(M + 8, N))
    noise = rng.normal(size=(M + 8, 1))
    return z.astype(np.float32), np.c_[7 + 3 * factor, np.full(M + 8, 2.0)], noise


@pytest.fixture(name="known", scope="module")
def _known(rows):
    z, told, _ = rows
    groups = [np.ones(N, bool), np.arange(N) < 30]
    return fit_predictor(z[:M], S, draws=2, method="gaussian", groups=groups, tasks=told[:M])


def test_they_help_where_rows_follow_them(rows, known):
    z, told, _ = rows
    plain = fit_predictor(z[:M], S, draws=2, method="gaussian")
    assert known.tasks is not None and known.tasks.count == 1  # one of the two varies
    assert known.rmse < plain.rmse
    errors = []
    for predictor, features in ((plain, None), (known, told)):
        off = []
        for i in range(M, M + 8):
            columns = np.random.default_rng(i).choice(N, S, replace=False)
            own = predictor if features is None else predictor.knowing(features[i])
            row = predict_row(own, columns, z[i, columns])
            assert row.mean_N.shape == row.low_N.shape == row.deviation_N.shape == (N,)
            off.append(np.sqrt(np.mean((row.mean_N - z[i]) ** 2)))
        errors.append(np.mean(off))
    assert errors[1] < errors[0]


def test_means_and_a_task_of_unknown_features(rows, known):
    z, told, _ = rows
    columns = np.arange(S)
    own = known.knowing(told[M])
    measured = np.full(N, np.nan)
    measured[columns] = z[M, columns]
    row = predict_row(own, columns, z[M, columns])
    mean_G, low_G, high_G = predict_means(own, row, measured)
    assert mean_G.shape == (2,) and (low_G < mean_G).all() and (mean_G < high_G).all()
    assert np.isfinite(robust_means(own, columns, z[M, columns])[0]).all()
    unknown = predict_row(known, columns, z[M, columns])  # as if the feature had not been given
    assert np.isfinite(unknown.mean_N).all() and (unknown.mean_N != row.mean_N).any()
    far = known.knowing([1e9, 2.0])
    assert far.tasks.value_P == known.tasks.train_MxP.max(0)  # no further than train rows go


def test_they_are_left_out_where_they_do_not_help(rows):
    z, told, noise = rows
    found = fit_predictor(z[:M], 30, draws=1, method="gaussian", tasks=noise[:M])
    plain = fit_predictor(z[:M], 30, draws=1, method="gaussian")
    assert found.tasks is None and found.rmse == plain.rmse
    assert fit_predictor(z[:7], S, draws=1, method="gaussian", tasks=told[:7]).tasks is None
    zeros = (z[:M] > 0).astype(np.float32)
    assert fit_predictor(zeros, S, draws=1, method="gaussian", tasks=told[:M]).tasks is None
    some = told[:M].copy()
    some[3, 0] = np.nan
    assert fit_predictor(z[:M], S, draws=1, method="gaussian", tasks=some).tasks is None
    assert TaskFeatures.scaled(np.ones((M, 2)), z[:M]) is None


def test_mistakes(rows, known):
    z, told, _ = rows
    with pytest.raises(UserError, match="must have as many rows"):
        fit_predictor(z[:M], S, method="gaussian", tasks=told[:5])
    with pytest.raises(UserError, match="3 features of a new task"):
        known.knowing([1, 2, 3])


def test_features_of_columns_say_nothing_of_them(rows):
    z, told, _ = rows
    side = {"half": (np.arange(N) < 30).astype(float)}
    widened = TaskFeatures.scaled(told[:M], z[:M]).widened({"rank": 2, "side": side})
    assert widened["rank"] == 2
    np.testing.assert_allclose(widened["side"]["half"], [[1.0] * 30 + [0.0] * 30 + [0.5]])
