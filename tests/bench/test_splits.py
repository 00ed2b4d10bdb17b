"""The comparison on random splits: its baselines, its intervals, and its made ratings."""

import numpy as np
import pytest

from forget_jax.benchmarks import splits


@pytest.fixture(name="z", scope="module")
def _z():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 60)) + rng.normal(size=60)
    return (z + 0.3 * rng.normal(size=z.shape)).astype(np.float32)


def test_splits_share_rows_and_probes_between_methods(z):
    train, test = splits.draw(z, 20, 3)
    assert set(train) | set(test) == set(range(30)) and len(train) == 20
    methods = {"a": ("gaussian", {"rank": 2}), "b": ("gaussian", {"rank": 2}), "c": ("knn", {})}
    errors, rows = splits.compare(z, 20, 3, 12, methods)
    np.testing.assert_array_equal(errors["a"], errors["b"])
    assert errors["a"].shape == rows.shape == (3, 10)
    same, other = (splits.difference(errors["a"], errors[x], rows) for x in "bc")
    assert same["splits"]["mean"] == same["tasks"]["mean"] == 0
    assert other["splits"]["high"] < 0 and other["tasks"]["high"] < 0
    assert other["tasks"]["seeds"] == len(np.unique(rows))


def test_ridge_is_least_squares_with_the_penalty_that_leaves_least_out():
    rng = np.random.default_rng(1)
    x, new = rng.normal(size=(40, 3)), rng.normal(size=(5, 3))
    weight = np.array([[1.0, 0], [0, 2], [3, 0]])
    found = splits._ridge(x, x @ weight + 7, new)
    np.testing.assert_allclose(found, new @ weight + 7, atol=0.02)
    noise = rng.normal(size=(40, 1))
    assert np.abs(splits._ridge(x, noise, new) - noise.mean()).max() < np.abs(noise).max() / 3


def test_every_estimate_of_a_mean_is_better_with_predictions(z):
    columns = splits.probes(60, 10, 12, 0)
    errors = splits.row_means(z[:20], z[20:], columns)
    size = {name: np.sqrt((error**2).mean()) for name, error in errors.items()}
    assert set(size) == {
        *("auto", "AIPW of auto", "AIPW of ridge", "ridge on anchors", "random sample")
    }
    assert max(size[name] for name in size if name != "random sample") < size["random sample"]


def test_ratings_are_like_those_they_stand_for():
    z, known = splits.ratings(seed=1, rows=200, columns=300, known=6000)
    assert set(np.unique(z)) <= {1, 2, 3, 4, 5} and 0.9 < known.sum() / 6000 < 1.1
    busiest = np.sort(known.sum(0))[::-1]
    assert busiest[:30].sum() > busiest[-150:].sum()  # a tenth has more than half of the columns


def test_intervals_hold_about_what_they_promise(z):
    held, slope = splits.compare_intervals(z, 20, 2, 12)
    assert {name: share.shape for name, share in held.items()} == dict.fromkeys(
        ("entries", "mean", "groups"), (2, 10)
    )
    assert 0.8 < held["entries"].mean() < 0.97 and held["entries"].std() > 0
    assert set(np.unique(held["mean"])) <= {0, 1} and held["mean"].mean() > 0.6
    assert held["groups"].mean() > 0.6 and -1 <= slope <= 0
