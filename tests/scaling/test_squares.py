"""The solver of squared loss: never worse than scipy, whatever starts, weights and lanes."""

import numpy as np
import pytest
import scipy.optimize

from forget_jax.scaling import fit, profile
from forget_jax.scaling.laws import LAWS
from forget_jax.scaling.points import read_points
from forget_jax.scaling.resample import draw_runs, pick_starts
from forget_jax.scaling.solve import bound_share, coordinates, draw_starts, solve


def table(seed=0):
    rng = np.random.default_rng(seed)
    p, n = (g.ravel() for g in np.meshgrid([1e5, 3e5, 1e6, 4e6, 2e7], [10.0, 20, 40, 80, 160, 320]))
    l_f = 1.5 + 40.0 * p**-0.4 + 2.0 * n**-0.5 + rng.normal(0, 0.01, p.size)
    return {"P": p, "steps": n, "l_f": l_f}


def data(law, seed=0):
    return read_points(LAWS[law], table(seed), "l_f", "mse")


def scipy_loss(points, weight_N, start):
    p, n = (np.log(points[k]) - np.log(points[k]).mean() for k in ("P", "steps"))

    def residual(v):
        d = np.stack([np.ones_like(p), np.exp(-v[0] * p), np.exp(-v[1] * n)], axis=1)
        root = np.sqrt(weight_N)
        c = np.linalg.lstsq(d * root[:, None], points["l_f"] * root, rcond=None)[0]
        return root * (d @ c - points["l_f"])

    found = scipy.optimize.least_squares(residual, start, bounds=([1e-3] * 2, [10.0] * 2))
    return 2.0 * found.cost


@pytest.mark.parametrize("seed", range(3))
def test_no_start_of_scipy_ends_lower(seed):
    points, read = table(seed), data("additive", seed)
    rng = np.random.default_rng(seed)
    law = LAWS["additive"]
    weight_SxN = draw_runs(read.cluster_N, 3, rng)
    z_SxZ = draw_starts(law, 20, rng)
    for weight_N in weight_SxN:
        w = np.broadcast_to(np.sqrt(weight_N), (20, len(weight_N)))
        ours = solve(law, read, z_SxZ, w, "mse", 1.0).loss_S.min()
        theirs = min(scipy_loss(points, weight_N, [0.1 * k, 0.15 * k]) for k in (1, 4, 10))
        assert ours <= theirs * (1 + 1e-9)


def test_lanes_do_not_know_of_one_another():
    law, read = LAWS["multiplicative"], data("multiplicative")
    z_SxZ = draw_starts(law, 150, np.random.default_rng(0))
    w = np.ones((150, len(read.y_N)))
    together = solve(law, read, z_SxZ, w, "mse", 1.0)
    for s in (0, 77, 149):
        alone = solve(law, read, z_SxZ[s : s + 1], w[:1], "mse", 1.0)
        np.testing.assert_allclose(alone.loss_S[0], together.loss_S[s], rtol=1e-9)


def test_a_row_drawn_twice_is_a_row_written_twice():
    law, read = LAWS["power_N"], data("power_N")
    points = table()
    weight_N = np.random.default_rng(1).integers(0, 3, len(read.y_N)).astype(float)
    rows = np.repeat(np.arange(len(weight_N)), weight_N.astype(int))
    z = draw_starts(law, 8, np.random.default_rng(0))
    w = np.broadcast_to(np.sqrt(weight_N), (8, len(weight_N)))
    weighted = solve(law, read, z, w, "mse", 1.0).loss_S.min()
    written = fit(
        "power_N", {k: v[rows] for k, v in points.items() if k != "P"}, bootstraps=0, heldout=False
    )
    residual = points["l_f"][rows] - written.predict(steps=points["steps"][rows])
    assert weighted == pytest.approx(float((residual**2).sum()), rel=1e-8)


def test_coordinates_are_those_of_the_values():
    law = LAWS["joint_rho"]
    z = coordinates(law, "rho", np.array([0.5, 10.0, 99.0]))
    shares = 1.0 / (1.0 + np.exp(-z))
    values = 0.1 * (100.0 / 0.1) ** shares
    np.testing.assert_allclose(values, [0.5, 10.0, 99.0], rtol=1e-9)
    assert bound_share(law, np.array([0.5, 1.0, 1.0, 10.0]))[3] == pytest.approx(shares[1])


def test_the_picked_start_fits_its_draw_best():
    rng = np.random.default_rng(0)
    n, y = 24, rng.normal(size=24)
    basis = np.stack([np.linalg.qr(rng.normal(size=(n, 2)))[0] for _ in range(5)])
    run = np.repeat(np.arange(8), 3)
    weight = draw_runs(run, 30, rng)
    picked = pick_starts(basis, weight, y, run)
    for s in range(30):
        root = np.sqrt(weight[s])
        losses = [
            np.sum((root * (b @ np.linalg.lstsq(b * root[:, None], y * root)[0] - y)) ** 2)
            for b in basis
        ]
        assert losses[picked[s]] == pytest.approx(min(losses), rel=1e-9)


def test_a_profile_is_the_fit_with_one_parameter_held():
    points = table()
    found = profile("additive", points, "y")
    made = fit("additive", points, bootstraps=0, heldout=False)
    at = int(np.argmin(found.deviance))
    assert found.values[at] == pytest.approx(made.params["y"], rel=1e-6)
    assert found.deviance[at] == pytest.approx(0.0, abs=1e-6)
    assert found.low < 0.5 < found.high and found.low < made.params["y"] < found.high
    p, n = np.log(points["P"]) - np.log(points["P"]).mean(), points["steps"]
    y = found.values[2]

    def rss(x):
        d = np.stack([np.ones_like(p), np.exp(-x * p), n**-y], axis=1)
        return float(np.linalg.lstsq(d, points["l_f"], rcond=None)[1][0])

    held = scipy.optimize.minimize_scalar(rss, bounds=(0.01, 2.0), method="bounded").fun
    least = float(((points["l_f"] - made.predict(points["P"], n)) ** 2).sum())
    assert found.deviance[2] == pytest.approx(made.n_eff * np.log(held / least), rel=1e-3)


def test_an_exponent_that_the_data_do_not_know_has_an_open_interval():
    n = np.array([10.0, 20, 40, 80] * 3)
    rng = np.random.default_rng(0)
    points = {"steps": n, "l_f": 1.0 + rng.normal(0, 0.1, 12)}
    found = profile("power_N", points, "x")
    assert found.low == -np.inf and found.high == np.inf
