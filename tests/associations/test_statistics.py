"""Statistics of a matrix against a full float64 SVD, brute force, and the published figures."""

import json
import pathlib

import numpy as np
import pytest

from forget_jax.associations import (
    additive_r2,
    clusters,
    column_r2,
    leading_components,
    logistic_f1,
    rank_r2,
    row_r2,
    shrunken_additive_r2,
    similarity,
)
from forget_jax.errors import UserError

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "matrices" / "olmo-7b-dolma.json"


@pytest.fixture(name="z")
def _z():
    rng = np.random.default_rng(0)
    return rng.normal(size=(7, 2)) @ rng.normal(size=(2, 30)) + 0.1 * rng.normal(size=(7, 30)) + 0.5


@pytest.mark.parametrize("turned", [False, True])
def test_rank_r2_is_that_of_the_full_svd(z, turned):
    z = z.T if turned else z
    u, s, vt = np.linalg.svd(z)
    total = ((z - z.mean()) ** 2).sum()
    want = [
        1 - ((z - (u[:, :r] * s[:r]) @ vt[:r]) ** 2).sum() / total for r in range(1, 8)
    ]  # fmt: skip
    np.testing.assert_allclose(rank_r2(z, 7), want, atol=1e-12)


def test_additive_r2_is_that_of_regression_on_indicators(z):
    m, n = z.shape
    rows, columns = np.kron(np.eye(m), np.ones((n, 1))), np.tile(np.eye(n), (m, 1))
    total = ((z - z.mean()) ** 2).sum()
    for found, design in (
        (additive_r2(z), np.concatenate([rows, columns], 1)),
        (row_r2(z), rows),
        (column_r2(z), columns),
    ):
        fitted = design @ np.linalg.lstsq(design, z.ravel(), rcond=None)[0]
        assert found == pytest.approx(1 - ((z.ravel() - fitted) ** 2).sum() / total, abs=1e-12)
    assert shrunken_additive_r2(z, 0, 0) == pytest.approx(additive_r2(z), abs=1e-12)
    assert shrunken_additive_r2(z) < additive_r2(z)


def test_r2_does_not_depend_on_unit_or_order(z):
    rng = np.random.default_rng(1)
    shuffled = 7 * z[rng.permutation(7)][:, rng.permutation(30)]
    np.testing.assert_allclose(rank_r2(shuffled, 3), rank_r2(z, 3), rtol=1e-10)
    assert additive_r2(shuffled) == pytest.approx(additive_r2(z))


def test_logistic_f1_finds_a_planted_sign_pattern():
    rng = np.random.default_rng(0)
    z_MxN = (rng.normal(size=(40, 2)) @ rng.normal(size=(2, 300)) > 0).astype(float)
    one, two = logistic_f1(z_MxN, 2)
    assert two > 0.97 and one < two - 0.1
    shuffled = rng.permuted(z_MxN, axis=1)
    assert logistic_f1(shuffled, 1)[0] < one
    assert np.isnan(logistic_f1(np.zeros((3, 4)), 1)[0])


def test_logistic_f1_is_that_of_a_plain_loop():
    """Full-batch ascent with the paper's settings, in float64 from the same start."""
    import jax

    from forget_jax.associations.completion import METHODS

    z_MxN = (np.random.default_rng(1).random((6, 30)) < 0.4).astype(float)
    s = METHODS["logistic"].settings
    start = s["spread"] * np.asarray(jax.random.normal(jax.random.key(0), (36, 2)), np.float64)
    row, column = start[:6].copy(), start[6:].copy()
    for _ in range(s["steps"]):
        left = z_MxN - 1 / (1 + np.exp(-row @ column.T))
        column += s["rate"] * (left.T @ row - 2 * s["reg"] * column)
        left = z_MxN - 1 / (1 + np.exp(-row @ column.T))
        row += s["rate"] * (left @ column - 2 * s["reg"] * row)
    fitted = row @ column.T > 0
    wanted = 2 * (fitted & (z_MxN > 0)).sum() / (fitted.sum() + z_MxN.sum())
    assert logistic_f1(z_MxN, 2)[1] == pytest.approx(wanted, abs=0.03)


def test_logistic_f1_refuses_other_numbers():
    with pytest.raises(UserError, match="zeros and ones"):
        logistic_f1(np.full((2, 2), 0.5), 1)


def test_the_released_matrix_has_the_measured_r2():
    if not REAL.exists():
        pytest.skip("needs ../shared/data/matrices/olmo-7b-dolma.json")
    z = np.array(json.loads(REAL.read_text())["arr"])
    ranks = rank_r2(z, 10)
    want = {1: 0.6852, 2: 0.7829, 3: 0.8208, 5: 0.8589, 10: 0.9075}
    for r, figure in want.items():
        assert round(ranks[r - 1], 4) == figure
    assert [round(f(z), 4) for f in (additive_r2, row_r2, column_r2)] == [0.6147, 0.2566, 0.3581]


def test_statistics_refuse_what_they_cannot_use(z):
    broken = z.copy()
    broken[1, 2] = np.nan
    for statistic in (lambda x: rank_r2(x, 2), additive_r2, row_r2, column_r2):
        with pytest.raises(UserError, match="1 missing entries, the first in row 1, column 2"):
            statistic(broken)
    with pytest.raises(UserError, match="rank 8 does not fit 7 known rows"):
        rank_r2(z, 8)
    with pytest.raises(UserError, match="take 1 to 7"):
        rank_r2(z, 0)
    with pytest.raises(UserError, match="tasks as rows"):
        additive_r2(z[0])
    assert rank_r2(np.ones((3, 4)), 2) == [1.0, 1.0]  # a constant is explained by anything
    assert additive_r2(np.ones((3, 4))) == 1.0


def test_components_rebuild_the_matrix_and_name_its_ends(z):
    z[:, :5] += 3  # five columns are forgotten by every task
    sources = ("wiki",) * 5 + ("web",) * 25
    parts = leading_components(z, 7, sources, n_tasks=2, n_examples=5)
    np.testing.assert_allclose(sum(np.outer(c.task_M, c.example_N) for c in parts), z, atol=1e-9)
    assert set(parts[0].top_examples) == {0, 1, 2, 3, 4}
    assert len(parts[0].top_tasks) == 2
    assert parts[0].sources["wiki"]["share"] == 1.0
    assert parts[0].sources["wiki"]["p"] < 1e-6
    # Two-proportion z-test by hand: 5 of 5 against 0 of 25, pooled share 1/6.
    assert parts[0].sources["wiki"]["z"] == pytest.approx(
        1 / np.sqrt(1 / 6 * 5 / 6 * (1 / 5 + 1 / 25))
    )
    with pytest.raises(UserError, match="30 examples with 29 sources"):
        leading_components(z, 1, sources[1:])


def test_clusters_find_planted_groups():
    rng = np.random.default_rng(2)
    patterns = rng.normal(size=(2, 40))
    z = np.repeat(patterns, 4, 0) * rng.uniform(0.5, 3, (8, 1)) + 0.05 * rng.normal(size=(8, 40))
    groups = clusters(z, 2)
    assert len(set(groups[:4])) == len(set(groups[4:])) == 1
    assert groups[0] != groups[4]
    examples = clusters(np.repeat(rng.normal(size=(8, 2)) * 5, 10, 1), 2, "example")
    assert len(set(examples[:10])) == len(set(examples[10:])) == 1
    with pytest.raises(UserError, match="9 clusters of 8 tasks"):
        clusters(z, 9)


def test_correlation_and_similarity():
    rng = np.random.default_rng(3)
    z = rng.normal(size=(3, 20))
    other = np.exp(z)  # the same order, another shape
    other[0, 0] = np.nan
    found = similarity.correlation(z, other)
    assert found["spearman"] == pytest.approx(1.0)
    assert 0.5 < found["pearson"] < 0.99
    assert found["entries"] == 59
    tasks, examples = rng.normal(size=(3, 4, 9)), rng.normal(size=(20, 9))
    mean = tasks.mean(1)
    want = (mean @ examples.T) / np.outer(
        np.linalg.norm(mean, axis=1), np.linalg.norm(examples, axis=1)
    )
    np.testing.assert_allclose(similarity.cosine(tasks, examples), want, atol=1e-12)
    with pytest.raises(UserError, match="differ in their number of dimensions"):
        similarity.cosine(tasks, examples[:, 1:])
    with pytest.raises(UserError, match=r"a \(2, 20\) similarity"):
        similarity.correlation(z, other[1:])


def test_projected_gradient_products_are_nearly_the_products():
    rng = np.random.default_rng(4)
    tasks, examples = rng.normal(size=(2, 3, 5000)), rng.normal(size=(6, 5000))
    tasks += examples[:1]  # both tasks pull along the first example
    found = similarity.gradient_products(tasks, examples, dimension=2048, seed=1)
    exact = tasks.mean(1) @ examples.T
    assert np.abs(found - exact).max() < 0.12 * exact.max()
    assert (found.argmax(1) == 0).all()
    np.testing.assert_array_equal(
        found, similarity.gradient_products(tasks, examples, dimension=2048, seed=1)
    )
    with pytest.raises(UserError, match="differ in their number of entries"):
        similarity.gradient_products(tasks, examples[:, 1:])


@pytest.mark.fault("figures of degenerate matrices", "as it should be")
@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-9, 12345.678, -7.7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_matrix_is_explained_by_anything(value, dtype):
    z = np.full((7, 31), value, dtype)
    assert additive_r2(z) == row_r2(z) == column_r2(z) == 1
    assert rank_r2(z, 2) == [1, 1]
    z[0, 0] += dtype(abs(value) * 1e-3)
    assert column_r2(z) < 0.5
