"""Completion: exact cases, agreement of the fast and the general path, bad input."""

import numpy as np
import pytest

from forget_jax.associations import METHODS, complete, predict_rows
from forget_jax.errors import UserError


def low_rank(seed=0, m=12, n=40, rank=2, noise=0.01):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n)) + rng.normal(size=(1, n))
    return (z + noise * rng.normal(size=(m, n))).astype(np.float32)


@pytest.mark.parametrize("method", ["additive", "als", "gaussian"])
def test_known_entries_are_kept_and_missing_ones_found(method):
    rng = np.random.default_rng(1)
    z = rng.normal(size=(12, 1)) + rng.normal(size=(1, 40))
    observed = rng.random(z.shape) < 0.8
    options = {"als": {"rank": 1, "reg": 0.001, "reg_bias": 0.01}, "gaussian": {"rank": 1}}
    filled = complete(np.where(observed, z, np.nan), observed, method, **options.get(method, {}))
    np.testing.assert_array_equal(filled[observed], z[observed])
    assert np.abs(filled - z)[~observed].max() < 0.2


@pytest.mark.parametrize("method", ["additive", "als"])
def test_extending_equals_appending_the_row_and_filling(method):
    z = low_rank()
    columns = np.random.default_rng(2).choice(40, 10, replace=False)
    options = {"als": {"rank": 2, "reg": 0.1, "reg_bias": 0.1, "steps": 200}}.get(method, {})
    fast = predict_rows(z[:-1], columns[None], z[None, -1, columns], method, **options)[0]
    observed = np.ones(z.shape, bool)
    observed[-1] = False
    observed[-1, columns] = True
    slow = complete(z, observed, method, **options)[-1]
    unknown = ~observed[-1]
    np.testing.assert_allclose(fast[unknown], slow[unknown], atol=2e-2)


def test_bad_input_is_one_clear_line():
    z = low_rank()
    observed = np.ones(z.shape, bool)
    with pytest.raises(UserError, match="unknown method 'magic'"):
        complete(z, observed, "magic")
    with pytest.raises(UserError, match="no setting 'rnak'"):
        complete(z, observed, "als", rnak=2)
    with pytest.raises(UserError, match="rank 13 does not fit"):
        complete(z, observed, "als", rank=13)
    with pytest.raises(UserError, match=r"1 infinite entries, the first in row 2, column 3"):
        broken = z.copy()
        broken[2, 3] = np.inf
        complete(broken, observed, "als")
    with pytest.raises(UserError, match="observed has shape"):
        complete(z, observed[:, 1:], "als")
    with pytest.raises(UserError, match="no entry of the matrix is both observed and known"):
        complete(z, ~observed, "als")


def test_every_method_is_named_once():
    assert {"additive", "als", "gaussian", "column_mean", "scaled_mean"} <= set(METHODS)
