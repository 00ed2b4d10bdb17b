"""How laws were tried, and what is planned by them, as a page shows it."""

import math

import numpy as np
import pandas as pd
import pytest

from forget_jax import report
from forget_jax.commands.pages import laws
from forget_jax.report import pareto
from forget_jax.report.law_checks import check_figures, check_tables, verdict

P = np.repeat([1000.0, 4000.0], 4)
STEPS = np.tile([10.0, 20, 40, 80], 2)
L_F = 0.01 * P**0.2 * STEPS**0.5


def checks(**changed):
    fan = report.Extrapolated("power", 1000.0, 48.0, [10, 80], [0.1, 0.2], [0.05, 0.1], [0.2, 0.4])
    held = {"rank": {"constant": (0.01, 0.2, 0.9, 8), "power": (-0.02, 0.1, math.nan, 8)}}
    values = {
        "tried": held,
        "line": (1.0, -0.5),
        "ranks": [(1000.0, -0.5, 0.3), (4000.0, -0.6, 0.2)],
        "p_level": 0.03,
        "p_slope": 0.6,
        "test": "F between ranks",
        "best": "power",
        "residuals": [(1000.0, 10.0, 0.1), (4000.0, 80.0, -0.2)],
        "fan": [fan],
        "rho": ([1.0, 5.0, 50.0], [9.0, 0.0, 1.0]),
    }
    return report.LawChecks(**{**values, **changed})


def test_every_check_has_its_picture_and_an_empty_one_has_none():
    titles = [f.title for f in check_figures(checks(), P, STEPS, L_F)]
    assert titles == ["Where the law errs", "Predicting the last steps", "How well rho is known"]
    empty = report.LawChecks()
    assert check_figures(empty, P, STEPS, L_F) == [] and check_tables(empty) == []
    assert verdict(empty) == ""


def test_what_was_left_out_stands_by_error_with_its_coverage():
    left_out, ranks = check_tables(checks())
    assert [row[1] for row in left_out.rows] == ["power", "constant"]
    assert left_out.rows[0][4] == "–" and left_out.rows[1][4] == "90 %"
    assert "p = 0.0300 for the level" in ranks.note and "F between ranks" in ranks.note
    assert ranks.rows[1] == (4000, -0.6, 0.2)


@pytest.mark.parametrize(("error", "word"), [(0.1, "beats"), (0.2, "is no better than")])
def test_the_lead_says_whether_a_law_beats_the_nulls(error, word):
    held = {"method": {"constant": (0, 0.2, 0.9, 8), "power": (0, error, 0.9, 8)}}
    assert f"“power” {word} the best null “constant”" in verdict(checks(tried=held))


def test_a_table_without_steps_or_losses_is_drawn_as_far_as_it_goes():
    nothing = [math.nan] * 8
    points = {"P": P, "steps": nothing, "l_ft": nothing, "l_f": nothing, "run": range(8)}
    section = report.scaling_section(points, {"power": report.FittedLaw()}, checks=checks(fan=()))
    assert [f.title for f in section.figures] == ["Where the law errs", "How well rho is known"]
    whole = report.scaling_section({**points, "steps": STEPS, "l_ft": -L_F, "l_f": L_F}, {})
    assert len(whole.figures) == 2


def test_a_part_of_a_sweep_is_drawn_and_named():
    points = {"P": P, "steps": STEPS, "l_ft": -L_F, "l_f": L_F, "run": range(8)}
    part = report.Part([i == 0 for i in range(8)], "method lora")
    whole, some = (report.scaling_section(points, {}, part=x).figures[0] for x in (None, part))
    assert "Drawn is one part, method lora." in some.caption and "part," not in whole.caption
    assert str(whole.markup).count("<use ") > str(some.markup).count("<use ")


def test_a_plan_says_its_answer_its_interval_and_its_grounds():
    best = report.Planned(
        P=4000.0,
        rank=4.0,
        lr=1e-3,
        steps=40.0,
        steps_interval=(31.0, 52.0),
        forgetting=0.1,
        run_interval=(0.08, 0.12),
        l_ft=1.9,
    )
    basis = report.PlanBasis(
        law="power",
        formula="K*N^x",
        target="kl",
        limit=0.1,
        level=0.95,
        laws={"power": (0.9, -10.0, 0.01)},
        nulls={"constant": 0.2},
        tried={"rank": (0.001, 0.01, 0.93, 8)},
        valid={"steps": (10.0, 80.0)},
        warnings=("6 runs only",),
        unseen={
            "safe": report.UnseenRow(80, 0.2, 0.21, (0.1, 0.3), 1.0, 0.1, 40, 38, (30, 45)),
            "beyond": report.UnseenRow(80, 0.9, 0.2, (0.1, 0.3), 0.0, 0.1, 20, 38, (30, 45)),
            "refused": report.UnseenRow(
                80, 0.2, 0.2, (0.1, 0.3), 1.0, 0.1, 40, math.nan, (math.nan, math.nan)
            ),
        },
    )
    curve = {"steps": [10, 80], "forgetting": [0.05, 0.2], "low": [0.04, 0.1], "high": [0.1, 0.3]}
    measured = {"P": P, "steps": STEPS, "forgetting": L_F}
    section = report.plan_section([best], basis, curve, measured)
    assert "rank 4 and learning rate 0.001, 40 steps forget 0.100 nats" in section.lead
    assert "(31.0 to 52.0); the lower end is the careful answer" in section.lead
    assert "intervals held 93 % of the measurements, for 95 %" in section.lead
    unseen, warned = section.tables[-2:]
    assert warned.title == "What the fit warns of"
    assert "Of 2 runs for which it answered" in unseen.note
    assert "kept the limit in 1, and its interval held that number in 1" in unseen.note
    assert unseen.rows[2][-1] == "–" and unseen.rows[1][5] == "0 %"
    assert report.page("plan", [section], {})


def marks():
    """Rank 8 forgets less for what it learns but at the end, where rank 1 alone goes."""
    cheap = [report.Mark("rank 8", 8e3, n, 3.0 - n / 100, n / 1000) for n in (10, 20, 40)]
    dear = [report.Mark("rank 1", 1e3, n, 3.0 - n / 100, n / 400) for n in (10, 40, 80)]
    return [*cheap, *dear, report.Mark("rank 2", 2e3, 10, math.nan, 0.0)]


def test_the_front_holds_what_forgets_least_for_what_it_learned():
    best = pareto.front(marks())
    assert [(m.setting, m.steps) for m in best] == [
        *(("rank 8", 10), ("rank 8", 20), ("rank 8", 40)),
        ("rank 1", 80),
    ]
    (figure,) = pareto.front_figure(marks())
    assert "rank 8 holds 3 of its 4 marks" in figure.caption and "2 settings of 3" in figure.caption
    (table,) = pareto.front_table(marks())
    assert [row[1] for row in table.rows] == ["rank 8"] * 3 + ["rank 1"]
    assert pareto.front_figure(marks()[:3]) == [] and pareto.front_table(marks()[:3]) == []


def test_parameters_of_resampled_tables_are_drawn_in_pairs():
    rng = np.random.default_rng(0)
    K = rng.normal(1, 0.1, 50)
    draws = np.stack([K, -(K**3), rng.normal(size=50)], 1)
    found = report.Resampled("power", ("K", "x", "s"), (1.0, -1.0, 0.0), draws.tolist())
    figure = check_figures(report.LawChecks(resampled=found), P, STEPS, L_F)[-1]
    assert "K and x move together most (rank correlation −1.00)" in figure.alt
    assert str(figure.markup).count("<use ") > 3 * 45  # three pairs


def test_settings_of_a_sweep_are_means_over_seeds():
    axes = {"task": list("aab"), "rank": [1, 1, 4], "seed": [0, 1, 0], "steps": 10, "P": 9.0}
    table = pd.DataFrame({**axes, "l_ft": [1.0, 3.0, 9.0], "l_f": [0.1, 0.3, 0.9]})
    assert laws.marks_of(table) == [report.Mark("the run", 9.0, 10, 2.0, 0.2)]
    other = laws.marks_of(table.assign(task="a", lr=[1e-3, 1e-3, 1e-2]))
    assert [m.setting for m in other] == [
        *("rank 1, learning rate 0.001", "rank 4, learning rate 0.01"),
    ]
    assert laws.marks_of(table.assign(l_ft=math.nan)) == []
