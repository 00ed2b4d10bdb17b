"""What a plan would have said of each run, had it not been measured."""

import numpy as np
import pandas as pd
import pytest

from forget_jax.errors import UserError
from forget_jax.scaling import fit, unseen

QUICK = {"bootstraps": 64, "starts": 16}


def table(odd=0.0, seed=0):
    """Runs of three sizes and three seeds; the last is `odd` times worse than its law."""
    rng, rows = np.random.default_rng(seed), []
    for P in (1e4, 4e4, 16e4):
        for s in range(3):
            run = rng.normal(0, 0.03)
            for steps in (10, 20, 40, 80, 160):
                kl = 1e-3 * P**0.2 * steps**0.6 * np.exp(run + rng.normal(0, 0.01))
                rows.append({"run": f"P{P:g}s{s}", "P": P, "steps": steps, "kl": kl})
    rows[-5:] = [{**row, "kl": row["kl"] * (1 + odd)} for row in rows[-5:]]
    return pd.DataFrame(rows)


def test_runs_of_one_law_are_foreseen_and_an_odd_one_is_not():
    found = unseen("kl_origin", table(), target="kl", **QUICK)
    assert [u.run for u in found] == list(dict.fromkeys(table()["run"]))
    assert np.mean([u.coverage for u in found]) > 0.7
    for u in found:
        assert u.steps == 160 and u.reached == 40 and u.points == 5
        assert u.planned == pytest.approx(40, rel=0.2)
        assert u.low < u.predicted < u.high and abs(u.measured / u.predicted - 1) < 0.15
    odd = unseen("kl_origin", table(odd=1.0), target="kl", **QUICK)[-1]
    assert odd.coverage == 0 and odd.measured > odd.high and odd.signed < 0
    assert odd.planned > 2 * odd.reached  # the plan would have allowed far too many steps


def test_the_run_itself_has_no_part_in_what_is_said_of_it():
    points = table(odd=0.5)
    rest = points[points["run"] != points["run"].iloc[-1]]
    alone = fit("kl_origin", rest, heldout=False, warn=False, **QUICK)
    last = unseen("kl_origin", points, target="kl", **QUICK)[-1]
    assert last.predicted == pytest.approx(float(alone.predict(P=16e4, steps=160)), rel=1e-6)


def test_the_baseline_is_taken_off_everything():
    points = table().assign(l_f=lambda t: t["kl"] + 0.7)
    a = unseen("kl_origin", points, target="kl", **QUICK)[0]
    b = unseen("multiplicative", points, target="l_f", baseline=0.7, **QUICK)[0]
    assert b.measured == pytest.approx(a.measured) and b.limit == pytest.approx(a.limit)
    assert b.predicted == pytest.approx(a.predicted, rel=0.1)


def test_a_size_or_a_limit_beyond_the_others_is_answered_by_nan():
    points = table()
    lone = points[(points["P"] < 1e5) | points["run"].str.endswith("s0")]
    found = {u.run: u for u in unseen("kl_origin", lone, target="kl", **QUICK)}
    assert np.isnan(found["P160000s0"].planned) and np.isfinite(found["P160000s0"].predicted)
    assert np.isfinite(found["P40000s1"].planned)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="run"), "needs the column 'run'"),
        (lambda t: t.drop(columns="steps"), "needs the column 'steps'"),
        (lambda t: t[t["run"].isin(["P10000s0", "P40000s0"])], "2 runs are too few"),
    ],
)
def test_tables_without_runs_to_leave_out(change, said):
    with pytest.raises(UserError, match=said):
        unseen("kl_origin", change(table()), target="kl", **QUICK)
