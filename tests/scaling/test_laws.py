"""The laws themselves: published values, and printed parameters against centred fits."""

import numpy as np
import pytest

from forget_jax.errors import UserError
from forget_jax.scaling import LAWS, evaluate, fit
from forget_jax.scaling.laws import from_table, get_law, log_columns

# Table 1 of arXiv 2401.05605.
OPENORCA = {
    "f": (0.0388e7, 23.6418, 0.0351, 0.1468),
    "ft": (0.0007e7, 72.9186, 0.0424, 0.1219),
    "c_ft": 0.0020,
    "s_ft": 0.6126,
    "c": 1.7334,
    "s": 2.0481,
    "rho": 7.6885,
}
NEWS = {
    "f": (0.0011e7, 97.8466, 0.0458, 0.1044),
    "ft": (0.0022e7, 54.8678, 0.0383, 0.1161),
    "c_ft": 0.0028,
    "s_ft": 1.9253,
    "c": 1.0615,
    "s": 3.1285,
    "rho": 7.5996,
}
TRAINED_PER_RANK = 2_498_560
GRID = ([8, 8, 64, 256], [50, 260, 150, 260])


def paper_l_ft(table, p, n):
    params = from_table(*table["ft"], table["rho"], table["c_ft"], table["s_ft"])
    return evaluate("joint_rho", params, {"P": p, "steps": n})


def paper_l_f(table, p, n):
    shift = table["s"] - table["c"] * table["s_ft"]
    params = from_table(*table["f"], table["rho"], -table["c"] * table["c_ft"], shift)
    return evaluate("joint_rho", params, {"P": p, "steps": n})


@pytest.mark.parametrize(
    ("table", "l_ft", "l_f"),
    [
        (OPENORCA, [0.7675, 0.6768, 0.6765, 0.6518], [0.7107, 0.8728, 0.8740, 0.9176]),
        (NEWS, [2.1505, 2.0274, 2.0255, 1.9893], [0.8453, 0.9728, 0.9785, 1.0173]),
    ],
)
def test_table_one_reproduces_the_golden_values(table, l_ft, l_f):
    p, n = TRAINED_PER_RANK * np.array(GRID[0]), np.array(GRID[1])
    np.testing.assert_allclose(paper_l_ft(table, p, n), l_ft, atol=5.1e-5)
    np.testing.assert_allclose(paper_l_f(table, p, n), l_f, atol=5.1e-5)


@pytest.mark.parametrize(("table", "rms"), [(OPENORCA, 0.0024), (NEWS, 0.0020)])
def test_eq4_of_the_fine_tuning_loss_agrees_with_the_forgetting_law(table, rms):
    ranks = TRAINED_PER_RANK * 2.0 ** np.arange(3, 9)
    p, n = (g.ravel() for g in np.meshgrid(ranks, np.arange(50.0, 261.0, 10.0)))
    line = {"s": table["s"], "c": table["c"]}
    through_line = evaluate("linear", line, {"l_ft": paper_l_ft(table, p, n)})
    gap = through_line - paper_l_f(table, p, n)
    assert abs(np.sqrt(np.mean(gap**2)) - rms) < 1e-4


@pytest.mark.parametrize("name", [n for n, law in LAWS.items() if law.columns])
def test_printed_parameters_predict_what_the_centred_form_predicts(name):
    law = get_law(name)
    rng = np.random.default_rng(1)
    columns = {
        "P": rng.uniform(1e5, 1e6, 7),
        "steps": rng.uniform(10.0, 100.0, 7),
        "l_ft": rng.uniform(0.5, 1.0, 7),
        "mix": rng.uniform(0.01, 0.2, 7),
        "kl_ft": rng.uniform(0.01, 0.2, 7),
    }
    columns = {k: columns[k] for k in law.columns}
    centre = {"log_P": np.log(3e5), "log_steps": np.log(30.0)}
    centre = {k: v for k, v in centre.items() if k.removeprefix("log_") in columns}
    values = {
        s.name: (s.start_low * s.start_high) ** 0.5 if s.log else 0.4 * s.start_high
        for s in law.shape
    }
    coefficients = dict(zip(law.linear, rng.normal(size=len(law.linear)), strict=True))
    cols = log_columns(columns, centre)
    if law.companion:
        cols["is_companion"] = np.zeros(7)
    terms = law.terms(values, cols)
    centred = sum(coefficients[k] * np.asarray(g) for k, g in zip(law.linear, terms, strict=True))
    printed = law.natural({**coefficients, **values}, centre)
    # The centred side runs in float32 here; the printed side in float64.
    np.testing.assert_allclose(evaluate(name, printed, columns), centred, rtol=2e-4, atol=2e-5)


def test_the_joint_law_spans_the_additive_and_the_multiplicative():
    p, n = np.array([1e6, 1e7, 1e8]), np.array([10.0, 200.0, 50.0])
    columns = {"P": p, "steps": n}
    joint = {"s": 0.3, "K": 2.0, "w": 0.25, "alpha": 0.2, "beta": 0.4, "rho": 1.0}
    added = {"s": 0.3, "A": 0.5, "B": 1.5, "x": 0.2, "y": 0.4}
    np.testing.assert_allclose(
        evaluate("joint_rho", joint, columns), evaluate("additive", added, columns), rtol=1e-12
    )
    joint |= {"w": 0.5, "alpha": 0.4e-6, "beta": 0.8e-6, "rho": 1e6}
    product = {"s": 0.3, "K": 2.0, "x": 0.2, "y": 0.4}
    np.testing.assert_allclose(
        evaluate("joint_rho", joint, columns),
        evaluate("multiplicative", product, columns),
        rtol=1e-4,
    )


def test_growth_law_is_zero_before_the_first_step():
    n = np.array([1.0, 2.0, 4.0, 8.0])
    p = np.array([1e3, 1e4, 1e3, 1e4])
    made = fit("kl_origin", {"P": p, "steps": n, "kl": 1e-3 * p**0.3 * n**0.7}, heldout=False)
    assert made.predict(5e3, 0) == 0.0
    np.testing.assert_allclose(made.params["y"], 0.7, rtol=1e-5)


def test_unknown_law_names_the_nearest():
    with pytest.raises(UserError, match="did you mean multiplicative"):
        get_law("multiplicativ")


def test_evaluation_names_what_is_missing():
    with pytest.raises(UserError, match="law 'power_N' needs K, steps to be evaluated"):
        evaluate("power_N", {"s": 1.0, "x": 0.5}, {"P": [1e6]})
