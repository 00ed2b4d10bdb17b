"""Side information of columns: what it is made of, and that it helps where it tells."""

import numpy as np
import pytest

from forget_jax.associations import predict_rows
from forget_jax.associations.online import fit_predictor
from forget_jax.associations.side import features
from forget_jax.errors import UserError

OPTIONS = {"rank": 3, "probes": 15}
N, S = 90, 15


def rows_by(feature_N, seed=0):
    """Eight train rows of one factor, and four new ones that differ along a feature as well."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(12, 1)) @ rng.normal(size=(1, N)) + 0.3 * rng.normal(size=(12, N))
    return (z + 1.5 * rng.normal(size=(12, 1)) * feature_N).astype(np.float32)


def error(z, side):
    columns = np.stack([np.random.default_rng(i).choice(N, S, replace=False) for i in range(4)])
    values = np.take_along_axis(z[8:], columns, 1)
    found = predict_rows(z[:8], columns, values, "auto", side=side, **OPTIONS)
    return float(np.sqrt(np.mean((found - z[8:]) ** 2)))


def test_a_feature_that_rows_differ_along_helps_and_noise_hardly_harms():
    telling, noise = np.random.default_rng(9).normal(size=(2, 1, N))
    z = rows_by(telling)
    none, with_it, with_noise = (error(z, side) for side in ((), (telling,), (noise,)))
    assert with_it < none
    assert with_noise < 1.1 * none


def test_kinds_that_help_have_the_weight():
    telling, noise = np.random.default_rng(9).normal(size=(2, 1, N))
    z = rows_by(telling)
    side = {"telling": telling, "noise": noise}
    found = fit_predictor(z, S, draws=1, method="auto", side=side, **OPTIONS)
    assert found.side["telling"] > found.side["noise"] >= 0
    assert sum(found.side.values()) <= 1 + 1e-5
    assert fit_predictor(z, S, draws=1, rank=3).side == {}


def test_features_of_sources_loss_and_length():
    sources = ["web/a"] * 6 + ["web/b"] * 6 + ["wiki/a"] * 7 + ["rare/a"]
    found = features(sources, np.arange(20.0), np.arange(20))
    assert found["source"].sum(1).tolist() == [12, 7]  # the rare one has none of its own
    assert found["loss and length"].shape == (2, 20)
    assert features([f"c4/{i % 2}" for i in range(20)])["source"].shape == (2, 20)
    assert features(["one"] * 20) == {} == features()
    assert "loss and length" not in features((), np.full(20, np.nan), np.arange(20))


@pytest.mark.fault("matrices to predict from", "one line")
@pytest.mark.parametrize(
    ("method", "side", "said"),
    [
        ("als", np.ones((1, N)), "als takes no features"),
        ("auto", np.ones((1, N - 1)), rf"not features × {N}"),
        ("auto", np.full((1, N), np.inf), "not finite"),
    ],
)
def test_features_that_do_not_fit(method, side, said):
    with pytest.raises(UserError, match=said):
        predict_rows(np.ones((8, N)), [[0]], [[1.0]], method, side=[side])
