"""What a comparison knows of candidates: the prediction, with what is known of them beside."""

import dataclasses

import numpy as np
import pytest

from forget_jax import associations
from forget_jax.associations.matrix import Matrix
from forget_jax.replay.experiment import Upstream, completed, known

J, SEEN = 40, 12


@pytest.fixture(scope="module")
def upstream():
    """Examples of which two columns of the matrix are no part."""
    column_J = 2 + np.arange(J)
    return Upstream(column_J, [], [], np.arange(J), np.arange(0), np.arange(SEEN))


def test_auto_is_told_what_is_known_of_the_examples_beside(upstream, monkeypatch):
    told = []

    def predict_rows(others_MxJ, columns_FxS, values_FxS, method, side):
        told.append((method, side))
        return others_MxJ[:1]

    monkeypatch.setattr(associations, "predict_rows", predict_rows)
    z = np.random.default_rng(0).normal(size=(6, J + 2))
    matrix = Matrix(z, tuple("abcdef"), tuple(f"e{j}" for j in range(J + 2)))
    side = (np.ones((1, J)),)
    knowing = dataclasses.replace(upstream, side=side)
    for method in ("auto", "additive"):  # which takes none
        others, _ = completed(matrix, "f", knowing, z[5, 2 : 2 + SEEN], method)
        np.testing.assert_array_equal(others, z[:5, 2:])
    assert told == [("auto", side), ("additive", ())]


def test_without_a_matrix_nothing_is_predicted(upstream):
    found = known(None, "a", upstream, "auto", np.arange(J))
    assert np.isnan(found.own_J).all() and np.isnan(found.predicted_J).all()
    assert np.isnan(found.others_MxJ).all() and found.base_nll_J[-1] == J - 1
