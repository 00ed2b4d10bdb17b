"""Fits: recovery of predictions, agreement with another solver, published fits, bad input."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from forget_jax.errors import UserError
from forget_jax.scaling import compare, evaluate, fit
from forget_jax.scaling.points import effective_points
from forget_jax.scaling.resample import draw_runs, leave_out

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "laws"
RANKS = 2_498_560 * 2.0 ** np.arange(3, 9)
# The published surface of L_f on OpenOrca (Table 1 of arXiv 2401.05605).
TRUE = {
    "s": 2.0481 - 1.7334 * 0.6126,
    "K": -1.7334 * 0.0020 * (388000.0**0.0351 + 23.6418**0.1468) ** 7.6885,
    "w": 388000.0**0.0351 / (388000.0**0.0351 + 23.6418**0.1468),
    "alpha": 0.0351,
    "beta": 0.1468,
    "rho": 7.6885,
}


def surface(noise_r2=None, seed=0):
    """126 points of the published surface, with Gaussian noise that leaves the given R²."""
    p, n = (g.ravel() for g in np.meshgrid(RANKS, np.arange(60.0, 261.0, 10.0)))
    clean = evaluate("joint_rho", TRUE, {"P": p, "steps": n})
    rng = np.random.default_rng(seed)
    spread = 0.0 if noise_r2 is None else clean.std() * np.sqrt(1.0 / noise_r2 - 1.0)
    noisy = clean + rng.normal(0.0, spread, clean.shape)
    l_ft = (2.0481 - clean) / 1.7334 + rng.normal(0.0, spread / 2, clean.shape)
    return {"P": p, "steps": n, "l_f": noisy, "l_ft": l_ft}, clean


def test_line_is_least_squares_and_deming_forgives_a_noisy_input():
    rng = np.random.default_rng(0)
    x = np.linspace(0.6, 0.8, 400)
    y = 2.0 - 1.7 * x + rng.normal(0, 0.03, 400)
    noisy_x = x + rng.normal(0, 0.03, 400)
    table = {"l_ft": noisy_x, "l_f": y, "run": np.arange(400) % 20}
    line, deming = fit("linear", table), fit("deming", table)
    slope, shift = np.polyfit(noisy_x, y, 1)
    assert line.params["c"] == pytest.approx(-slope, rel=1e-9)
    assert line.params["s"] == pytest.approx(shift, rel=1e-9)
    assert line.params["c"] < 1.4  # attenuated by a reliability of about 0.79
    assert deming.params["c"] == pytest.approx(1.7, abs=0.12)
    low, high = deming.ci["c"]
    assert low < 1.7 < high
    # A noiseless input is the limit of an infinite ratio of error variances.
    limit = fit("deming", table, noise_ratio=1e9, bootstraps=0, heldout=False)
    assert limit.params["c"] == pytest.approx(line.params["c"], rel=1e-6)


@pytest.mark.parametrize("law", ["multiplicative", "joint_rho"])
def test_predictions_of_the_published_surface_are_recovered(law):
    table, clean = surface(noise_r2=0.9598)
    made = fit(law, table)
    error = made.predict(table["P"], table["steps"]) - clean
    assert np.sqrt(np.mean(error**2)) < 0.35 * made.noise
    assert made.converged
    assert made.r2 == pytest.approx(0.96, abs=0.02)
    assert made.heldout_error == made.heldout[law] < 0.5 * made.heldout["constant"]
    assert made.heldout_error < made.heldout["power_N"]
    assert made.heldout_by == "rank"
    low, high = made.interval(table["P"], table["steps"])
    assert np.mean((low <= clean) & (clean <= high)) > 0.8
    wide_low, wide_high = made.interval(table["P"], table["steps"], kind="point")
    assert ((wide_high - wide_low) > (high - low)).all()
    if law == "joint_rho":  # 126 points cannot tell the shape of the published law
        assert any("rho is not identified" in note for note in made.warnings)
    json.dumps(made.summary(), allow_nan=False)


NEWS = {
    "s": 3.1285 - 1.0615 * 1.9253,
    "K": -1.0615 * 0.0028 * (11000.0**0.0458 + 97.8466**0.1044) ** 7.5996,
    "w": 11000.0**0.0458 / (11000.0**0.0458 + 97.8466**0.1044),
    "alpha": 0.0458,
    "beta": 0.1044,
    "rho": 7.5996,
}


@pytest.mark.parametrize("law", ["multiplicative", "joint_rho"])
@pytest.mark.parametrize(("true", "r2"), [(TRUE, 0.9598), (NEWS, 0.9769)])
def test_both_published_surfaces_are_predicted_within_one_percent(law, true, r2):
    p, n = (g.ravel() for g in np.meshgrid(RANKS, np.arange(60.0, 261.0, 10.0)))
    clean = evaluate("joint_rho", true, {"P": p, "steps": n})
    for seed in range(3):
        noise = clean.std() * np.sqrt(1.0 / r2 - 1.0)
        l_f = clean + np.random.default_rng(seed).normal(0.0, noise, clean.shape)
        made = fit(law, {"P": p, "steps": n, "l_f": l_f}, bootstraps=0, heldout=False, warn=False)
        np.testing.assert_allclose(made.predict(p, n), clean, rtol=0.01)


@pytest.mark.parametrize("loss", ["mse", "huber-log"])
def test_no_other_solver_finds_a_lower_loss(loss):
    table, _ = surface(noise_r2=0.95, seed=3)
    table["l_f"][5] += 0.1
    made = fit("multiplicative", table, loss=loss, bootstraps=0, heldout=False)
    p, n = np.log(table["P"]) - np.log(table["P"]).mean(), np.log(table["steps"] / 100)
    y = table["l_f"]

    def loss_of(pred):
        if loss == "mse":
            return float(np.sum((pred - y) ** 2))
        r = np.abs(np.log(np.maximum(pred, 1e-9)) - np.log(y))
        return float(np.sum(np.where(r < 1e-3, 0.5 * r**2, 1e-3 * (r - 0.5e-3)))) * 1e3

    def objective(v):
        return loss_of(v[0] - np.exp(v[1] - v[2] * p - v[3] * n))

    rng = np.random.default_rng(0)
    others = [
        scipy.optimize.minimize(
            objective,
            [rng.uniform(0.9, 1.1), rng.uniform(-3, -1), rng.uniform(0, 0.3), rng.uniform(0.1, 1)],
            method="Nelder-Mead",
            options={"maxiter": 2000, "maxfev": 2000, "xatol": 1e-8, "fatol": 1e-12},
        ).fun
        for _ in range(8)
    ]
    ours = loss_of(made.predict(table["P"], table["steps"]))
    assert ours <= min(others) * (1 + 1e-5)


def test_an_outlier_moves_huber_less_than_least_squares():
    table, clean = surface(noise_r2=0.99)
    table["l_f"][[3, 40]] += 1.0
    options = {"bootstraps": 0, "heldout": False}
    errors = [
        np.abs(
            fit("multiplicative", table, loss=loss, **options).predict(table["P"], table["steps"])
            - clean
        ).mean()
        for loss in ("mse", "huber-log")
    ]
    assert errors[1] < 0.2 * errors[0]


def test_the_tied_law_fits_both_losses_and_predicts_forgetting():
    table, clean = surface(noise_r2=0.96)
    options = {"bootstraps": 0, "heldout": False, "starts": 128}
    made = fit("joint_rho_tied", table, **options)
    assert {"s_ft", "K_ft", "alpha_ft", "rho"} <= set(made.params)
    np.testing.assert_allclose(made.predict(table["P"], table["steps"]), clean, atol=0.012)


@settings(max_examples=10, deadline=None)
@given(
    scale=st.floats(1e-3, 1e3),
    unit=st.floats(1e-3, 1e3),
    shift=st.floats(-5, 5),
    seed=st.integers(0, 9),
)
def test_units_do_not_matter(scale, unit, shift, seed):
    """Rescaling P or the target, or shifting it, rescales or shifts the predictions."""
    table, _ = surface(noise_r2=0.95, seed=seed)
    options = {"bootstraps": 0, "heldout": False}
    base = fit("multiplicative", table, **options)
    moved = {**table, "P": table["P"] * unit, "l_f": table["l_f"] * scale + shift}
    other = fit("multiplicative", moved, **options)
    np.testing.assert_allclose(
        other.predict(moved["P"], moved["steps"]),
        base.predict(table["P"], table["steps"]) * scale + shift,
        atol=2e-6 * scale,
    )
    assert other.r2 == pytest.approx(base.r2, abs=1e-6)


def test_tables_of_every_kind_give_one_answer():
    table, _ = surface(noise_r2=0.95)
    options = {"bootstraps": 0, "heldout": False}
    kinds = [
        table,
        {k: jnp.asarray(v) for k, v in table.items()},
        pd.DataFrame(table),
        np.stack([table["steps"], table["l_f"]], axis=1),
        pd.DataFrame(table)[["steps", "l_f"]].to_records(index=False),
    ]
    answers = [fit("power_N", k, **options).params["x"] for k in kinds]
    np.testing.assert_allclose(answers, answers[0], rtol=1e-4)  # jax arrays are float32


def test_seed_decides_the_interval_and_nothing_global_changes():
    table, _ = surface(noise_r2=0.95)
    first, again, other = (fit("power_N", table, seed=s, heldout=False) for s in (0, 0, 1))
    assert first.ci == again.ci != other.ci
    assert jnp.ones(1).dtype == jnp.float32


def test_compare_orders_laws_and_says_why_not():
    table, _ = surface(noise_r2=0.96)
    fits, refused = compare(table, ["constant", "linear", "power_N", "multiplicative", "kl_origin"])
    assert list(fits)[-1] == "constant"
    assert [f.bic for f in fits.values()] == sorted(f.bic for f in fits.values())
    assert "kl" in refused["kl_origin"]
    assert len({f.n_eff for f in fits.values()}) == 1
    with pytest.raises(UserError, match="no option 'lost'"):
        compare(table, ["constant"], lost="mse")


def test_steps_that_repeat_one_another_count_for_little():
    rng = np.random.default_rng(0)
    run = np.repeat(np.arange(30), 40)
    steps = np.tile(np.arange(1.0, 41.0), 30)
    p = np.repeat(2.0 ** np.arange(30), 40)
    named = {"P": p, "steps": steps}
    white = rng.normal(size=1200)
    assert effective_points(named, white, run) > 900
    offset = rng.normal(size=30)[run] + 0.05 * rng.normal(size=1200)
    assert effective_points(named, offset, run) < 60


def test_resampling_keeps_runs_whole():
    rng = np.random.default_rng(0)
    assert len(np.unique(draw_runs(np.arange(3), 50, rng), axis=0)) > 1
    cluster = np.array([0, 0, 1, 1, 1, 2, 3])
    draws = draw_runs(cluster, 200, rng)
    assert (draws[:, 0] == draws[:, 1]).all() and (draws[:, 2] == draws[:, 4]).all()
    assert (np.stack([draws[:, i] for i in (0, 2, 5, 6)]).sum(axis=0) == 4).all()
    out = leave_out(np.arange(50), 16)
    assert out.shape == (16, 50) and ((out == 0).sum(axis=0) == 1).all()


@pytest.mark.parametrize("runs", [6, 20])
def test_intervals_of_a_line_cover_under_run_effects(runs):
    rng = np.random.default_rng(5)
    hits = []
    for i in range(150):
        run = np.repeat(np.arange(runs), 10)
        x = rng.uniform(0.65, 0.8, run.size)
        y = 2.0 - 1.7 * x + rng.normal(0, 0.01, runs)[run] + rng.normal(0, 0.005, run.size)
        made = fit("linear", {"l_ft": x, "l_f": y, "run": run}, heldout=False, seed=i)
        low, high = made.interval(0.7)
        hits.append(low <= 2.0 - 1.7 * 0.7 <= high)
    assert 0.85 <= np.mean(hits) < 1.0


def bad(**changes):
    table, _ = surface(noise_r2=0.95)
    return {**table, **{k: np.asarray(v) for k, v in changes.items()}}


@pytest.mark.parametrize(
    ("law", "table", "options", "words"),
    [
        ("multiplicativ", bad(), {}, "did you mean multiplicative"),
        ("multiplicative", bad(l_f=np.full(126, np.nan)), {}, "126 missing or infinite"),
        ("multiplicative", bad(P=np.full(126, 2.0)), {}, "one rank only"),
        ("multiplicative", bad(steps=np.arange(126)), {}, "row 0 has 0"),
        ("multiplicative", bad(P=-np.arange(1, 127)), {}, "P must be positive"),
        ("multiplicative", bad(P=["r8"] * 126), {}, "'P' is not numeric"),
        ("multiplicative", {k: v[:4] for k, v in bad().items()}, {}, "needs more points"),
        ("multiplicative", {"P": [1, 2], "steps": [1]}, {}, "equally long"),
        ("kl_origin", bad(), {}, "needs a column 'kl'|no column 'kl'"),
        ("kl_origin", bad(kl=np.arange(126) - 1.0), {"loss": "huber-log"}, "positive kl"),
        ("linear", bad(l_f=np.ones(126)), {}, "nothing to fit"),
        ("linear", np.ones((5, 7)), {}, "2 columns"),
        ("linear", bad(), {"loss": "mae"}, "unknown loss"),
        ("deming", bad(), {"loss": "huber-raw"}, "closed form"),
        ("linear", bad(), {"level": 95}, "level between"),
        ("linear", bad(), {"bootstraps": -1}, "bootstraps at least 0"),
        ("linear", bad(), {"bootstrap": 5}, "no option 'bootstrap' .did you mean bootstraps"),
    ],
)
def test_mistakes_are_told_in_one_line(law, table, options, words):
    with pytest.raises(UserError, match=words) as caught:
        fit(law, table, **options)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_known_is_said():
    table = {"P": [1e6, 1e7, 1e6, 1e7, 1e7], "l_f": [0.1, 0.2, 0.11, 0.21, 0.2]}
    made = fit("power_P", table, bootstraps=0, heldout=False)
    assert any("only 2 distinct P" in note for note in made.warnings)
    alone = fit("power_N", {"steps": np.arange(1.0, 9.0), "l_f": np.log(np.arange(1.0, 9.0))})
    assert any("every point counts as a run" in note for note in alone.warnings)
    assert any("lower bound" in note or "not identified" in note for note in alone.warnings)
    assert alone.summary()["warnings"] == list(alone.warnings)
    assert made.aicc == np.inf and made.summary()["aicc"] is None
    json.dumps(made.summary(), allow_nan=False)
    with pytest.raises(UserError, match="bootstraps > 0"):
        made.interval(1e6)
    with pytest.raises(UserError, match="positive P"):
        made.predict(0.0)


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/data/laws here")
def test_published_fits_of_fine_tuning_runs_are_met():
    """The four published encoder fits of error = K*N^-b + c over training-set size."""
    runs = pd.read_csv(REAL / "peft_scaling.csv")
    published = json.loads((REAL / "peft_scaling_published_fit.json").read_text())
    runs = runs[runs.model_name.str.contains("bert")]
    runs["error"] = 1.0 - runs.primary_metric
    for method, group in runs.groupby("method"):
        mean = group.groupby("train_subset_size").error.mean()
        table = {"steps": mean.index.to_numpy(), "l_f": mean.to_numpy()}
        made = fit("power_N", table, heldout=False)
        theirs = published[f"Encoder_{method}"]
        assert made.r2 == pytest.approx(theirs["R2"], abs=1e-4)
        curve = theirs["a"] * mean.index.to_numpy() ** -theirs["b"] + theirs["c"]
        np.testing.assert_allclose(made.predict(mean.index.to_numpy()), curve, atol=1.5e-3)
        if theirs["c"] > -0.99:  # the others lie at their bound: the exponent is not identified
            np.testing.assert_allclose(
                [made.params["K"], made.params["x"], made.params["s"]],
                [theirs["a"], theirs["b"], theirs["c"]],
                atol=1.1e-3,
            )
        else:
            assert any("x is not identified" in note for note in made.warnings)


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/data/laws here")
def test_pretraining_losses_of_other_shapes_are_predicted():
    """Loss of 22 model shapes: the additive law predicts a shape it has not seen."""
    grid = pd.read_json(REAL / "gemstones_loss_grid.jsonl", lines=True).iloc[::32]
    table = {
        "P": grid.params_active_precise,
        "steps": grid.tokens,
        "l_f": grid.final_loss,
        "run": grid.run_name,
    }
    made = fit("additive", table, bootstraps=0)
    assert made.r2 > 0.96
    assert made.clusters == 22
    assert made.heldout_error < 0.5 * made.heldout["power_P"] < 0.5 * made.heldout["constant"]
