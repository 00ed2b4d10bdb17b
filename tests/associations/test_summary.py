"""What a matrix is summed up by: figures of its complete part, and of a second seed."""

import numpy as np
import pytest

from forget_jax.associations import additive_r2, column_r2, logistic_f1, rank_r2, row_r2
from forget_jax.associations.summary import retest, statistics
from forget_jax.errors import UserError


def test_statistics_are_those_of_the_complete_part():
    z = np.random.default_rng(0).normal(size=(5, 9))
    broken = z.copy()
    broken[1] = np.nan  # a task that failed
    broken[0, 3] = np.inf
    whole = np.delete(np.delete(z, 1, 0), 3, 1)
    found = statistics(broken, 99)
    assert found.pop("r2_rank") == pytest.approx(rank_r2(whole, 4))
    assert found == pytest.approx(
        {
            "r2_additive": additive_r2(whole),
            "r2_row": row_r2(whole),
            "r2_column": column_r2(whole),
        }
    )
    assert statistics(np.diag([np.nan] * 2), 3) == {
        "r2_rank": [], "r2_additive": None, "r2_row": None, "r2_column": None,
    }  # fmt: skip


def test_statistics_of_a_binary_matrix_hold_logistic_f1():
    z = (np.random.default_rng(1).random((4, 12)) < 0.4).astype(float)
    assert statistics(z, 1, logistic=True)["f1_rank"] == logistic_f1(z, 1)
    with pytest.raises(UserError, match="zeros and ones"):
        statistics(0.5 * z, 1, logistic=True)
    with pytest.raises(UserError, match="tasks as rows"):
        statistics(z[0], 1)


def test_retest_compares_what_both_seeds_have():
    z = np.array([[0.0, 1.0, 2.0, np.nan]])
    found = retest(z, [[1.0, 2.0, 3.0, 4.0]])
    assert found["test_retest"] == pytest.approx(1.0)
    assert found["seed_rmse"] == pytest.approx(1.0)
    constant = retest(np.ones((1, 4)), z)
    assert constant["test_retest"] is None
    assert constant["seed_rmse"] == pytest.approx(np.sqrt(2 / 3))
    none = {"test_retest": None, "seed_rmse": None}
    assert retest(np.full((1, 2), np.nan), np.ones((1, 2))) == none
    assert retest(np.zeros((0, 4)), np.array([])) == none  # no task was repeated
    with pytest.raises(UserError, match="beside a second seed's"):
        retest(z, z[:, :3])
