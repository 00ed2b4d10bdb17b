"""`auto`: never worse than what it combines, and of odd input an estimate like any method's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.associations import complete, evaluate, fit_predictor, predict_row, predict_rows
from forget_jax.associations.completion import auto, candidates
from forget_jax.errors import UserError

SMALL = {"rank": 4}


def low_rank(rows, columns, factors, noise, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, factors)) @ rng.normal(size=(factors, columns))
    return (z + noise * rng.normal(size=z.shape)).astype(np.float32)


@pytest.mark.parametrize(("factors", "noise"), [(3, 0.5), (1, 3.0)])
def test_no_candidate_is_better(factors, noise):
    z = low_rank(34, 120, factors, noise) + np.float32(0.5)
    singles = {
        **{f"gaussian {r}": {"method": "gaussian", "rank": r, "pooled": 100.0} for r in (1, 3)},
        **{name: {} for name in ("scaled_mean", "additive", "knn", "als")},
        "mixture": {"rank": 4},
    }
    found = evaluate(z, range(22), range(22, 34), 20, 2, {"auto": SMALL, **singles})
    best = min(found[name]["rmse"] for name in singles)
    assert found["auto"]["rmse"] < 1.02 * best
    worst = max(found[name]["rmse"] for name in singles)
    assert found["auto"]["rmse"] < 0.9 * worst or noise > 1


def test_weights_are_those_of_the_least_error():
    rng = np.random.default_rng(0)
    errors_MxCxN = rng.normal(size=(9, 3, 4000)) * np.array([1.0, 1.0, 3.0])[:, None]
    products = jnp.asarray(errors_MxCxN @ errors_MxCxN.transpose(0, 2, 1) / 4000)
    weight_C = np.asarray(auto.weigh(products, jnp.ones(3) / 3))
    np.testing.assert_allclose(weight_C, np.array([9, 9, 1]) / 19, atol=0.02)
    without = products.at[:, 0, :].set(jnp.nan).at[:, :, 0].set(jnp.nan)
    weight_C = np.asarray(auto.weigh(without, jnp.ones(3) / 3))
    np.testing.assert_allclose(weight_C, np.array([0, 9, 1]) / 10, atol=0.02)


def test_a_row_unlike_the_others_is_not_weighed_as_they_are():
    z = jnp.asarray(low_rank(16, 80, 2, 0.1))
    options = auto.Settings(rank=3, probes=20)
    state = jax.jit(auto.prepare)(z[1:], options)

    @jax.jit
    def estimates(values):
        return candidates.estimates_of(
            state.models, state.products, z[1:, :20], (), values, options.rank
        )

    alike = estimates(z[0, :20])
    noise = jnp.asarray(3 * np.random.default_rng(1).normal(size=20), jnp.float32)
    other = estimates(z[0, :20] + noise)
    assert alike.unlike < 0.3 and other.unlike > 0.9
    np.testing.assert_allclose(other.evident_G.sum(), 1, rtol=1e-5)


@pytest.mark.fault("matrices to complete", "as it should be")
@pytest.mark.parametrize("case", ["constant", "two rows", "one row", "one class", "a lost column"])
def test_odd_matrices_give_numbers(case):
    z = low_rank(8, 30, 1, 0.5)
    z = {
        "constant": np.ones_like(z),
        "two rows": z[:2],
        "one row": z[:1],
        "one class": np.zeros_like(z),
        "a lost column": np.where(np.arange(30) == 3, np.nan, z),
    }[case]
    columns, values = np.array([[0, 1, 2]]), np.array([[1.0, 0, np.nan]], np.float32)
    found = predict_rows(z, columns, values, "auto")
    assert found.shape == (1, 30) and np.isfinite(found).all()


def test_intervals_of_new_rows():
    z = low_rank(20, 60, 2, 0.2)
    columns = np.arange(20)
    predictor = fit_predictor(z[6:], 20, method="auto", columns=columns, **SMALL)
    inside = []
    for row in z[:6]:
        found = predict_row(predictor, columns, row[:20])
        inside.append(((found.low_N <= row) & (row <= found.high_N))[20:].mean())
        assert np.abs(found.mean_N - row)[20:].mean() < 0.4
    assert 0.75 < np.mean(inside) < 1
    with pytest.raises(UserError, match="fits every row anew"):
        fit_predictor(z, 20, method="svd_sgd")


def test_missing_entries_anywhere():
    z = low_rank(10, 40, 2, 0.1)
    known = np.random.default_rng(0).random(z.shape) < 0.7
    found = complete(z, known, "auto", **SMALL)
    assert (found[known] == z[known]).all()
    error = np.sqrt(np.mean((found - z)[~known] ** 2))
    assert error < 0.5 * z.std()
    assert jax.dtypes.canonicalize_dtype(found.dtype) == np.float32
