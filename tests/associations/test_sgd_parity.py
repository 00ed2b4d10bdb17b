"""The paper's own methods agree with scikit-surprise: by golden file, and live on real data."""

import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest

from forget_jax.associations.completion import knn, sgd

HERE = pathlib.Path(__file__).parent
REAL = HERE.parents[2] / "shared" / "data" / "matrices" / "olmo-7b-dolma.json"

_spec = importlib.util.spec_from_file_location("make_golden", HERE / "make_golden.py")
make_golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_golden)


def ours(z, known, epochs, neighbours):
    """Our three estimates of the last row, in float64 for parity."""
    with jax.enable_x64(True):
        z, known = jax.numpy.asarray(np.where(known, z, 0.0)), jax.numpy.asarray(known)
        key = jax.random.key(0)
        common = {"rate": 0.005, "reg": 0.02, "epochs": epochs}
        start = make_golden.first_factors(*z.shape)
        factors = sgd.descend(
            z, known, *map(jax.numpy.asarray, start), rate=0.005, reg=0.0, epochs=epochs
        )
        return {
            "additive_sgd": np.asarray(sgd.fill_additive(z, known, key, sgd.Additive(**common)))[
                -1
            ],
            "knn_sgd": np.asarray(
                knn.fill_sgd(z, known, key, knn.Descended(neighbours, 1.0, **common))
            )[-1],
            "svd_sgd": np.asarray(sgd.predicted(factors))[-1],
        }


def test_golden_predictions_of_scikit_surprise():
    golden = json.loads((HERE / "golden.json").read_text())
    z, known = make_golden.problem()
    rows = ours(z, known, golden["epochs"], golden["neighbours"])
    for name, row in rows.items():
        # Only unknown columns: surprise counts a row among its own neighbours where it is known.
        np.testing.assert_allclose(
            row[~known[-1]], np.array(golden[name])[~known[-1]], atol=1e-7, err_msg=name
        )


def test_the_skewed_order_is_the_sequential_one_whatever_the_shape():
    rng = np.random.default_rng(3)
    for t, n in ((1, 4), (4, 1), (5, 3), (3, 3)):
        z, known = rng.normal(size=(t, n)), rng.random((t, n)) < 0.7
        known[0, 0] = True
        p, q = rng.normal(size=(t, 2)), rng.normal(size=(n, 2))
        b, c, mean = np.zeros(t), np.zeros(n), z[known].mean()
        want_p, want_q = p.copy(), q.copy()
        for _ in range(3):
            for i, j in zip(*np.nonzero(known), strict=True):
                error = z[i, j] - (mean + b[i] + c[j] + want_p[i] @ want_q[j])
                b[i] += 0.05 * (error - 0.1 * b[i])
                c[j] += 0.05 * (error - 0.1 * c[j])
                old = want_p[i].copy()
                want_p[i] += 0.05 * (error * want_q[j] - 0.1 * old)
                want_q[j] += 0.05 * (error * old - 0.1 * want_q[j])
        with jax.enable_x64(True):
            fit = sgd.descend(
                *map(jax.numpy.asarray, (z, known, p, q)), rate=0.05, reg=0.1, epochs=3
            )
        np.testing.assert_allclose(fit.row_Mxk, np.concatenate([b[:, None], want_p], 1), atol=1e-12)
        np.testing.assert_allclose(
            fit.column_Nxk, np.concatenate([c[:, None], want_q], 1), atol=1e-12
        )


@pytest.mark.slow
def test_scikit_surprise_itself_on_200_real_columns():
    pytest.importorskip("surprise", reason="needs scikit-surprise (the `bench` extra)")
    if not REAL.exists():
        pytest.skip("needs ../shared/data/matrices/olmo-7b-dolma.json")
    z = np.array(json.loads(REAL.read_text())["arr"])[:47, :200]
    known = np.ones(z.shape, bool)
    known[-1] = False
    known[-1, np.random.default_rng(0).choice(200, 30, replace=False)] = True
    rows = ours(z, known, epochs=1000, neighbours=40)
    for name, model in make_golden.surprise_models(epochs=1000).items():
        want = make_golden.surprise_row(model, z, known)
        np.testing.assert_allclose(
            rows[name][~known[-1]], want[~known[-1]], atol=1e-4, err_msg=name
        )
