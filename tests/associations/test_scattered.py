"""Completion where entries are known here and there: variational factors, and `auto` over them."""

import numpy as np
import pytest

from forget_jax.associations import complete

METHODS = ("gaussian", "mixture", "auto")


def planted(factors, noise=0.3, rows=60, columns=80, share=0.3, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, factors)) @ rng.normal(size=(factors, columns))
    z += rng.normal(size=(rows, 1)) + rng.normal(size=(1, columns))
    known = rng.random(z.shape) < share
    return (z + noise * rng.normal(size=z.shape)).astype(np.float32), known


def error(z, known, method, **options):
    found = complete(z, known, method, **options)
    np.testing.assert_array_equal(found[known], z[known])
    return float(np.sqrt(np.mean((found - z)[~known] ** 2)))


def test_factors_are_found_where_most_entries_are_missing():
    z, known = planted(2)
    additive = error(z, known, "additive")
    assert error(z, known, "gaussian", rank=2) < 0.5 * additive
    assert error(z, known, "gaussian", rank=2) < error(z, known, "als", rank=2)
    assert error(z, known, "auto") < 1.05 * error(z, known, "mixture")


def test_more_factors_than_there_are_do_no_harm():
    z, known = planted(0, noise=1.0)
    additive = error(z, known, "additive")
    for method in METHODS:
        assert error(z, known, method) < 1.03 * additive


@pytest.mark.parametrize("method", METHODS)
def test_unit_origin_and_order_do_not_matter(method):
    z, known = planted(1, rows=30, columns=40, share=0.45)
    options = {"rank": 2}
    found = complete(z, known, method, **options)
    moved = complete(0.01 * z + 3, known, method, **options)
    if method != "auto":  # which hides random entries
        rows, columns = np.random.default_rng(1).permutation(30), np.arange(40)[::-1]
        turned = complete(z[rows][:, columns], known[rows][:, columns], method, **options)
        np.testing.assert_allclose(turned, found[rows][:, columns], atol=0.02)
    np.testing.assert_allclose((moved - 3) / 0.01, found, atol=0.02)


@pytest.mark.fault("matrices to complete", "as it should be")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", ["constant", "empty lines", "one class", "one entry a row"])
def test_odd_scattered_matrices_give_numbers(method, case):
    z, known = planted(1, rows=20, columns=30)
    if case == "constant":
        z = np.ones_like(z)
    if case == "one class":
        z = np.zeros_like(z)
    if case == "empty lines":
        known[3] = known[:, 5] = False
    if case == "one entry a row":
        known = np.zeros_like(known)
        known[np.arange(20), np.arange(20)] = True
    found = complete(z, known, method)
    assert np.isfinite(found).all()
    if case in ("constant", "one class"):
        np.testing.assert_allclose(found, z, atol=1e-3)
