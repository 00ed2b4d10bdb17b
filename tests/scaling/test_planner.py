"""The planner: the inverse of a law, its interval, and its refusals."""

import math

import numpy as np
import pytest

from forget_jax.errors import UserError
from forget_jax.scaling import fit, plan_steps


@pytest.fixture(scope="module")
def growth():
    rng = np.random.default_rng(0)
    p, n = (g.ravel() for g in np.meshgrid([1e5, 1e6, 1e7], [10.0, 30.0, 100.0, 300.0]))
    kl = 1e-3 * p**0.2 * n**0.6 * np.exp(rng.normal(0, 0.02, p.shape))
    return fit("kl_origin", {"P": p, "steps": n, "kl": kl}, heldout=False)


@pytest.mark.parametrize("p", [1e5, 2e6, 1e7])
def test_the_answer_keeps_the_limit_and_one_step_more_does_not(growth, p):
    limit = float(growth.predict(p, 57.3))
    plan = plan_steps(growth, limit, P=p)
    assert plan.steps == 57
    assert growth.predict(p, plan.steps) <= limit < growth.predict(p, plan.steps + 1)
    assert plan.low <= 57.3 <= plan.high
    assert not plan.extrapolated


def test_more_parameters_allow_fewer_steps(growth):
    limit = float(growth.predict(1e6, 60.0))
    assert plan_steps(growth, limit, P=3e6).steps < plan_steps(growth, limit, P=5e5).steps
    above = plan_steps(growth, 0.75 * limit, baseline=0.25 * limit, P=1e6).steps
    assert above == plan_steps(growth, limit, P=1e6).steps


def test_outside_the_measured_range_is_refused_until_asked(growth):
    limit = float(growth.predict(1e6, 5000.0))
    with pytest.raises(UserError, match="the most measured, it is only"):
        plan_steps(growth, limit, P=1e6)
    plan = plan_steps(growth, limit, P=1e6, extrapolate=True)
    assert plan.extrapolated and plan.steps == pytest.approx(5000, abs=1)
    with pytest.raises(UserError, match="the fewest measured, it is already"):
        plan_steps(growth, 1e-6, P=1e6)
    assert plan_steps(growth, 1e-9, P=1e6, extrapolate=True).steps == 0
    with pytest.raises(UserError, match="outside the measured 100000 to 1e"):
        plan_steps(growth, 0.1, P=1e9)
    assert plan_steps(growth, 0.5, P=1e8, extrapolate=True).extrapolated
    with pytest.raises(UserError, match="finite"):
        plan_steps(growth, math.nan, P=1e6)
    with pytest.raises(UserError, match="needs P"):
        plan_steps(growth, 0.1)


def test_a_ceiling_below_the_limit_is_never_reached():
    n = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    rising = fit("power_N", {"steps": n, "l_f": 1.0 - n**-0.7}, bootstraps=0, heldout=False)
    plan = plan_steps(rising, 1.5, extrapolate=True)
    assert plan.steps == math.inf and math.isnan(plan.low)
    falling = fit("power_N", {"steps": n, "l_f": 1.0 + n**-0.7}, bootstraps=0, heldout=False)
    with pytest.raises(UserError, match="does not rise"):
        plan_steps(falling, 1.5)
    line = fit("linear", {"l_ft": n, "l_f": 1 - n + 0.1 * np.sin(n)}, bootstraps=0, heldout=False)
    with pytest.raises(UserError, match="nothing about steps"):
        plan_steps(line, 1.0)
