"""Laws of one's own: formulas that are parsed and never run, values, and coefficients by group."""

import numpy as np
import pytest

from forget_jax.errors import UserError
from forget_jax.scaling import Law, Shape, fit, holdout, holdouts
from forget_jax.scaling.formula import LONGEST, parse

QUICK = {"bootstraps": 0, "heldout": False, "warn": False}


def table(seed=0, noise=0.01):
    rng = np.random.default_rng(seed)
    p, n = (g.ravel() for g in np.meshgrid([1e5, 3e5, 1e6, 4e6], [10.0, 20, 40, 80, 160]))
    l_f = 1.2 - 2.0 * p**-0.1 * n**-0.3 + rng.normal(0, noise, p.size)
    return {"P": p, "steps": n, "l_f": l_f, "l_ft": 2.0 - 0.5 * l_f, "run": p}


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("s + K*P^-x*N^-y", "multiplicative"),
        ("s + K / (P**x * steps**y)", "multiplicative"),
        ("s - c*l_ft", "linear"),
        ("(s) + -(c*l_ft)", "linear"),
        ("s + A*P^-x + B*exp(-y*log(steps))", "additive"),
        ("E + B/(D + N^beta)", "rectified"),
    ],
)
def test_a_formula_is_the_law_of_that_formula(text, law):
    points = table()
    mine, named = fit(text, points, **QUICK), fit(law, points, **QUICK)
    at = {name: points[name] for name in named.definition.columns}
    np.testing.assert_allclose(mine.predict(**at), named.predict(**at), atol=2e-5)
    assert mine.r2 == pytest.approx(named.r2, abs=1e-5)


def test_what_is_printed_of_a_formula_is_what_it_says():
    made = fit("s + K*P^-x*N^-y", table(noise=0.0), **QUICK)
    v, P, N = made.params, 2e6, 50.0
    assert made.predict(P=P, steps=N) == pytest.approx(
        v["s"] + v["K"] * P ** -v["x"] * N ** -v["y"], rel=1e-9
    )
    assert v["y"] == pytest.approx(0.3, abs=1e-3)


def test_a_covariate_is_any_column():
    points = table(noise=0.0)
    points["lr"] = np.tile([1e-4, 1e-3, 3e-3, 1e-2, 2e-2], 4)
    points["l_f"] = 0.1 + 3.0 * points["lr"] ** 0.5 * points["P"] ** 0.1
    made = fit("s + K*lr^x*P^y", points, **QUICK)
    assert made.params["x"] == pytest.approx(0.5, abs=1e-3)
    assert made.params["y"] == pytest.approx(0.1, abs=1e-3)


HOSTILE = {
    "an import": ("__import__('os').system('true')", "is no function"),
    "an attribute": ("s + P.real*K", "Attribute is not allowed"),
    "a lambda": ("s + K*(lambda: 1)", "Lambda is not allowed"),
    "a comprehension": ("s + K*[P for P in P]", "ListComp is not allowed"),
    "a text": ("s + K*'a'", "'a' is no number"),
    "a truth value": ("s + K*True", "True is no number"),
    "a subscript": ("s + K*P[0]", "Subscript is not allowed"),
    "an assignment": ("s := P*K", "cannot be read|not allowed"),
    "two lines": ("s +\nK*P)", "cannot be read"),
    "half a formula": ("s + K*", "cannot be read"),
    "nothing": ("+", "cannot be read"),
    "a function that is not there": ("s + K*logg(P)", "logg.*did you mean log"),
    "a function of two": ("s + K*log(P, 2)", "of one argument"),
    "another operator": ("s + K*P % 2", "only . - . / . are operators"),
    "a huge number": ("s + K*P^1e400", "too large"),
    "too long": ("s + K*" + "P*" * LONGEST + "P", "longer than"),
    "too deep": ("s + K*" + "(" * 190 + "P" + ")" * 190, "cannot be read|no coefficient|s [+]"),
    "no coefficient": ("P^-x + s", "has no coefficient of its own; write K"),
    "two coefficients": ("s + K*A*P^-x", "K and A, of which one is enough"),
}


@pytest.mark.parametrize(("text", "said"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_formula_is_refused_in_one_line(text, said):
    if "too deep" in text or text.count("(") > 100:
        try:
            parse(text, ("P", "steps"))
        except UserError as e:
            assert "\n" not in str(e)
        return
    with pytest.raises(UserError, match=said) as e:
        parse(text, ("P", "steps"))
    assert str(e.value).startswith("formula ")


def test_a_huge_power_is_no_work():
    with pytest.raises(UserError, match="finite loss"):
        fit("s + K*P^9^9^9", table(), **QUICK)


def test_a_law_is_a_few_lines_of_python():
    def terms(shape, columns):
        grown = np.exp(1.0) ** columns["log_steps"] / shape["T"]
        return [columns["log_steps"] * 0.0 + 1.0, grown / (1.0 + grown)]

    mine = Law(
        name="saturating",
        formula="s + K*N/(T + N)",
        source="mine",
        columns=("steps",),
        linear=("s", "K"),
        terms=terms,
        shape=(Shape("T", 1.0, 1e4, 5.0, 500.0),),
        centred=False,
    )
    n = np.array([5.0, 10, 20, 40, 80, 160])
    points = {"steps": n, "l_f": 0.2 + 0.7 * n / (30.0 + n)}
    made = fit(mine, points, **QUICK)
    assert made.law == "saturating"
    assert made.params["T"] == pytest.approx(30.0, rel=1e-4)


def grouped_table():
    points = {k: np.tile(v, 3) for k, v in table(noise=0.0).items()}
    points["task"] = np.repeat(["a", "b", "c"], 20)
    points["run"] = np.array([f"{t}{p}" for t, p in zip(points["task"], points["P"], strict=True)])
    points["kl"] = 1e-3 * points["P"] ** 0.2 * points["steps"] ** 0.6
    points["kl"] *= np.repeat([1.0, 2.0, 5.0], 20)
    return points


def test_tasks_share_a_curve_and_have_a_scale_each():
    points = grouped_table()
    made = fit("kl_origin", points, by="task", bootstraps=32)
    scale = [made.params[f"K[{task}]"] for task in "abc"]
    np.testing.assert_allclose(np.array(scale) / scale[0], [1.0, 2.0, 5.0], rtol=1e-4)
    assert made.params["y"] == pytest.approx(0.6, rel=1e-4)
    assert set(made.ci) == {"K[a]", "K[b]", "K[c]", "x", "y"}
    at = {"P": 2e5, "steps": [30.0, 60.0]}
    np.testing.assert_allclose(
        made.predict(task=["c", "c"], **at), 5.0 * made.predict(task="a", **at), rtol=1e-4
    )
    with pytest.raises(UserError, match="task 'd' was not in the fit"):
        made.predict(task="d", **at)
    with pytest.raises(UserError, match="needs task"):
        made.predict(**at)


def test_a_task_with_coefficients_of_its_own_cannot_be_left_out():
    points = grouped_table()
    law = fit("kl_origin", points, by="task", bootstraps=0).definition
    found, refused = holdouts(points, [law], "task", target="kl", bootstraps=0)
    assert "kl_origin" not in found and "no row has task 'a', which the law" in refused["kl_origin"]
    kept = holdout(law, points, "P", target="kl", bootstraps=0)
    assert kept.error < 1e-6


def test_shared_and_separate_coefficients_are_least_squares_with_dummies():
    rng = np.random.default_rng(0)
    x, method = rng.normal(size=60), np.tile(["ia3", "lora", "oft"], 20)
    y = 0.3 * x + np.tile([0.0, 1.0, 2.0], 20) + rng.normal(0, 0.1, 60)
    made = fit("s - c*l_ft", {"l_ft": x, "l_f": y, "method": method}, by="method", separate=("s",))
    dummies = np.stack([method == m for m in ("ia3", "lora", "oft")], axis=1).astype(float)
    wanted = np.linalg.lstsq(np.column_stack([dummies, -x]), y, rcond=None)[0]
    found = [made.params[n] for n in ("s[ia3]", "s[lora]", "s[oft]", "c")]
    np.testing.assert_allclose(found, wanted, rtol=1e-7)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": "taks"}, "no column 'taks' .did you mean task"),
        ({"by": "task", "separate": ("k",)}, "no coefficient 'k'"),
        ({"separate": ("K",)}, "by names the column"),
        ({"by": "one"}, "one has 1 groups"),
    ],
)
def test_groups_that_are_not_there(options, said):
    points = {**grouped_table(), "one": np.full(60, "x")}
    with pytest.raises(UserError, match=said):
        fit("kl_origin", points, **options)


def test_forgetting_by_the_divergence_on_the_task():
    rng = np.random.default_rng(0)
    kl = np.linspace(0.0, 2.0, 30)
    points = {"kl_ft": kl, "kl": 0.1 * kl + 0.4 * kl**2 + rng.normal(0, 1e-3, 30)}
    quadratic = fit("kl_task", points, **QUICK)
    assert quadratic.params["b"] == pytest.approx(0.4, abs=5e-3)
    assert quadratic.predict(kl_ft=0.0) == 0.0
    power = fit("kl_task_power", {"kl_ft": kl[1:], "kl": 0.4 * kl[1:] ** 1.5}, **QUICK)
    assert power.params["x"] == pytest.approx(1.5, rel=1e-5)
    with pytest.raises(UserError, match="kl_ft is a divergence and cannot be negative"):
        fit("kl_task", {"kl_ft": kl - 1.0, "kl": kl}, **QUICK)
