"""The other sections: what their leads say, missing figures, empty parts, and how numbers look."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax import report
from forget_jax.report.section import bars, column_decimals, number, percent, short_names

LAW = report.FittedLaw({"s": 0.1}, r2=0.9, bic=-10.0, heldout_error=0.02)
EMPTY_POINTS: dict = {"P": [], "steps": [], "l_ft": [], "l_f": [], "run": []}


def method(rmse: float | None, std: float | None = 0.01) -> report.Completed:
    return report.Completed(rmse, std, seconds=0.1)


@pytest.mark.parametrize(
    "section",
    [
        lambda: report.training_section({}, {}),
        lambda: report.training_section({"a": {"step": [], "loss": []}}, {}),
        lambda: report.rank_section([], 0.5, 0.2, 0.1),
        lambda: report.rank_section([None, 0.5], None, None, None),
        lambda: report.methods_section({}, 30, 5),
        lambda: report.methods_section({"a": method(None, None), "b": method(0.1)}, 1, 1),
        lambda: report.replay_section(report.Replays({})),
        lambda: report.replay_section(report.Replays({"a": report.Replayed(upstream_nll=1.0)})),
        lambda: report.check_section([], [], "nats/token", 0.95),
        lambda: report.behaviour_section([], 0.95),
        lambda: report.mix_section([], (1, 0, 0), report.Expected(), np.empty((0, 4)), {}),
        lambda: report.scaling_section(EMPTY_POINTS, {}, {}),
        lambda: report.scaling_section({k: [1.0] for k in EMPTY_POINTS}, {"l": report.FittedLaw()}),
        lambda: report.factoids_section({}, 1),
        lambda: report.factoids_section({"a": report.FactsKept()}, 1),
        lambda: report.score_section({}, {}),
        lambda: report.score_section({"a": [None, np.nan]}, {"a": [1, 1]}),
        lambda: report.timing_section({}),
        lambda: report.timing_section({"a": 0.0}),
    ],
)
def test_empty_and_missing_parts(section):
    html = report.page("t", [section()], {})
    assert not re.search(r"\b(nan|None)\b", html)


def test_many_runs_are_drawn_faintly_with_their_mean_and_all_named():
    curves = {f"run {k}": {"step": [0, 1, 2], "loss": [3.0, 2.0, 1.0 + k]} for k in range(40)}
    section = report.training_section(curves, {})
    assert [label for _, _, label in section.figures[0].legend] == ["mean of 40 runs"]
    assert [row[0] for row in section.tables[0].rows] == list(curves)
    assert "2 of 40 had a lower loss in the last tenth" in section.lead


def test_long_curves_are_thinned():
    step = np.arange(100_000)
    section = report.training_section({"a": {"step": step, "loss": np.cos(step)}}, {})
    assert len(section.figures[0].markup) < 40_000
    assert "mean of up to 417 steps" in section.figures[0].caption


def test_two_trainings_on_one_page():
    curve = {"a": {"step": [0, 1], "loss": [2.0, 1.0]}}
    sections = [report.training_section(curve, {}, key=k, title=k) for k in ("base", "tasks")]
    html = report.page("t", sections, {})
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_rank_lead_names_the_first_rank_above_additive():
    assert "rank 3 reaches 0.700" in report.rank_section([0.3, 0.5, 0.7], 0.6, 0.1, 0.1).lead
    assert "rank" not in report.rank_section([0.3], 0.6, 0.1, 0.1).lead.split("reaches")[2:]


def test_methods_are_sorted_and_close_ones_not_ranked():
    close = {"worse": method(0.20, 0.02), "better": method(0.19, 0.02)}
    section = report.methods_section(close, 30, 10)
    assert [row[0] for row in section.tables[0].rows] == ["better", "worse"]
    assert "not settled" in section.lead
    apart = {"worse": method(0.30, 0.02), "better": method(0.19, 0.02)}
    assert (
        "more than one standard deviation over 10 seeds"
        in report.methods_section(apart, 30, 10).lead
    )
    one = report.methods_section(apart, 1, 1)
    assert "one seed" in one.lead and "1 seed" in one.figures[0].caption
    assert "1 observed entry " in one.lead


@pytest.mark.parametrize(("p", "words"), [(0.01, "Told apart"), (0.4, "Not told apart")])
def test_replay_lead_follows_the_test(p, words):
    ways = {
        "random": report.Replayed(4.1, 3.0, [0.3, 0.5]),
        "predicted": report.Replayed(4.0, 3.0, [0.1, 0.3]),
    }
    test = {"predicted − random": report.PairedTest(24, -0.2, -0.3, -0.1, p, None, 12, 7)}
    section = report.replay_section(report.Replays(ways, test))
    assert words in section.lead and "share one seed" in section.lead
    assert "from +0.200 (predicted) to +0.400 (random)" in section.lead
    more = report.replay_section(report.Replays(ways, test, seeds=2))
    assert "predicted − random" in more.lead and "share one seed" not in more.lead
    assert more.tables[1].title == "Paired tests"
    assert more.tables[1].rows == (("predicted − random", 24, -0.2, -0.3, -0.1, p, 7),)
    assert more.tables[1].columns[-2:] == ("p", "tasks needed")  # no corrected p here


@pytest.mark.parametrize(("tasks", "decides"), [(2, False), (5, False), (6, True)])
def test_a_few_tasks_cannot_decide_and_the_page_says_so(tasks, decides):
    ways = {"none": report.Replayed(4.1, 3.0, [0.4]), "random": report.Replayed(4.0, 3.0, [0.2])}
    test = {"random − none": report.PairedTest(2 * tasks, -0.2, p=0.5 ** (tasks - 1), tasks=tasks)}
    room = {"random": report.Room(0.2, 0.02, True)}
    section = report.replay_section(report.Replays(ways, test, room, seeds=2))
    assert ("Told apart" in section.lead) is decides
    assert (f"{tasks} tasks cannot tell any difference" in section.lead) is not decides
    assert "10 times what seeds of a task differ by" in section.opening
    assert (f"{tasks} tasks cannot say whether" in section.opening) is not decides


def test_the_corrected_p_decides():
    ways = {name: report.Replayed(4.0, 3.0, [0.1, 0.3]) for name in "ab"}
    test = {"a − b": report.PairedTest(2, -0.2, -0.3, -0.1, p=0.01, p_holm=0.2)}
    assert "Not told apart" in report.replay_section(report.Replays(ways, test)).lead


@pytest.mark.parametrize("enough", [True, False])
def test_a_setting_without_headroom_is_no_ranking(enough):
    ways = {"none": report.Replayed(4.1, 3.0, [0.4]), "random": report.Replayed(4.0, 3.0, [0.3])}
    room = {"random": report.Room(0.1, 0.01 if enough else 0.2, enough)}
    lead = report.replay_section(report.Replays(ways, {}, room)).lead
    assert ("nothing below is a ranking" in lead) is not enough
    assert ("takes away 25 % of the 0.400 nats" in lead) is enough


def test_scaling_draws_the_law_that_predicts_best():
    points = {
        "P": [10.0, 10.0],
        "steps": [1, 2],
        "l_ft": [2.0, 1.0],
        "l_f": [0.1, 0.2],
        "run": "ab",
    }
    surface = report.LawSurface([10.0], [1.0, 2.0], [[0.1, 0.2]])
    laws = {"fits": replace(LAW, r2=0.99, heldout_error=0.5), "predicts": LAW}
    section = report.scaling_section(points, laws, {"fits": surface, "predicts": surface})
    assert "the fitted law “predicts”" in section.figures[0].caption
    assert "“predicts” erred least" in section.lead
    assert section.tables[1].rows[0] == ("fits", "s", 0.1, "–")


def test_factoids_lead_and_single_seeds():
    arms = {
        "none": report.FactsKept(accuracy_a_after_b=[0.0, 0.1]),
        "mixed": report.FactsKept(accuracy_a_after_b=[0.5, 0.7]),
    }
    section = report.factoids_section(arms, 2)
    assert "from 5 % (none) to 60 % (mixed)" in section.lead and "With one seed" not in section.lead
    assert "small dots are single seeds" in section.figures[0].caption
    assert "With one seed" in report.factoids_section(arms, 1).lead


def test_scores_against_the_first_model():
    nll = {"base": [1.0, 6.0], "a": [2.0, 8.0], "b": [1.0, 2.0], "c": [1.0, np.nan]}
    section = report.score_section(nll, {name: [1, 3] for name in nll})
    assert "higher under 1 of 3 other models" in section.lead
    assert section.tables[0].rows[0][:4] == ("base", 2, 4, 7 / 4)  # nats over tokens
    assert section.tables[0].rows[3][:4] == ("c", 1, 1, 1.0)


def test_first_and_last_losses_are_those_of_the_summary():
    loss = np.random.default_rng(0).normal(3, 1, 57)
    section = report.training_section({"a": {"step": np.arange(57), "loss": loss}}, {})
    expected = (loss[:5].mean(), loss[-5:].mean())  # as `training` in commands/values.py
    assert section.tables[0].rows[0][2:] == pytest.approx(expected)


def test_paired_tests_of_methods_stand_in_one_table():
    pair = report.PairedTest(5, -0.1, -0.2, -0.01, 0.03)
    section = report.methods_section({"a": method(0.1)}, 3, 5, {"a − b": pair, "a − c": pair})
    assert section.tables[-1].title == "Paired tests"
    assert [row[0] for row in section.tables[-1].rows] == ["a − b", "a − c"]


def test_names_that_matplotlib_cannot_draw_stay_as_they_are_without_a_warning():
    names = ("忘却 $x$ 🙂", "_hidden", "$\\frac$", "<b>")
    section = report.methods_section({name: method(0.1) for name in names}, 3, 2)
    for name in ("忘却 $x$ 🙂", "_hidden", "$\\frac$", "&lt;b&gt;"):
        assert name in section.figures[0].markup


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, "0.123"), (-2, "−2"), (1234.6, "1,235"), (1.26e-5, "1.3e−05"), (None, "–")],
)
def test_numbers(value, text):
    assert number(value) == text


def test_number_signs_and_shares():
    assert [number(v, sign=True) for v in (0.5, -0.5, 0.0)] == ["+0.500", "−0.500", "0"]
    assert [percent(v) for v in (0.0, 0.001, 0.5, 0.9999, 1.0)] == [
        "0 %",
        "<1 %",
        "50 %",
        ">99 %",
        "100 %",
    ]
    assert column_decimals([0.5, 0.02, 3]) == 3
    assert column_decimals([1e-4, 10.0]) is None


@given(st.lists(st.floats(-1e6, 1e6) | st.just(np.nan), min_size=1, max_size=20))
def test_bars_stay_inside_their_cell(values):
    for bar in bars(values):
        assert bar.left >= 0 and bar.width >= 0
        assert bar.left + bar.width <= 100.02


@given(st.lists(st.text(max_size=60), max_size=12), st.integers(12, 40))
def test_short_names_are_short(names, limit):
    assert all(len(s) <= max(limit, 9) for s in short_names(names, limit))


def test_short_names_stay_apart():
    names = [f"builtin:docstrings:{k}:with-a-long-common-ending" for k in range(12)]
    assert len(set(short_names(names, 24))) == 12
    assert len(set(short_names(["x" * 40] * 3, 24))) == 3


def test_probes_section_draws_expected_errors_and_chosen_examples():
    expected = [
        {"observed": 5, "rmse": 0.3, "low": 0.1, "high": 0.5, "bound": None},
        {"observed": 10, "rmse": 0.2, "low": 0.1, "high": 0.4, "bound": 0.45},
    ]
    columns = {"row": ["c4#1", "c4#2"]}
    html = report.page("p", [report.probes_section(expected, columns, {})], {})
    for shown in ("c4#1", "c4#2", "0.45", "bound"):
        assert shown in html
    assert "against random" not in html
    row = {"metric": "rmse", "chosen": 0.213, "random": 0.2, "mean": 0.013, "low": 0.002}
    compared = {"row": row | {"high": 0.024}}
    html = report.page("p", [report.probes_section(expected, columns, compared)], {})
    for shown in ("Chosen against random probes", "RMSE of the row", "0.213", "0.024"):
        assert shown in html


def test_equal_arms_are_not_ranked():
    arms = {n: report.FactsKept(accuracy_a_after_b=[0.0]) for n in ("naive", "mix in A")}
    lead = report.factoids_section(arms, 1).lead
    assert "is 0 % in every arm" in lead and "runs from" not in lead


def test_warnings_of_the_laws_are_shown():
    points = {
        "P": [1, 2],
        "steps": [1, 2],
        "l_ft": [1.0, 2.0],
        "l_f": [1.0, 2.0],
        "run": ["a", "b"],
    }
    law = replace(LAW, warnings=["x is at its bound"])
    section = report.scaling_section(points, {"linear": law})
    assert "x is at its bound" in report.page("p", [section], {})


def test_nll_of_answers_is_shown_where_it_was_measured():
    kept = report.FactsKept([1.0, 0.5], [0.0], [1.0], [0.1, 0.3], [4.0], [0.2])
    exact, nll = report.factoids_section({"naive": kept}, 2).tables
    assert exact.rows == (("naive", 0.75, 0.0, 1.0),) and nll.rows == (("naive", 0.2, 4.0, 0.2),)
    without = report.factoids_section({"naive": report.FactsKept([1.0], [0.0], [1.0])}, 1)
    assert len(without.tables) == 1


def test_differences_recovery_and_further_stages_of_facts_are_shown():
    kept = report.FactsKept(
        accuracy_a_after_b=[0.5],
        accuracy_a_after_last=[0.25],
        asked_before_recovery=[0.2],
        asked_after_recovery=[0.6],
        known_a_after_b=[float("nan")],
    )
    compared = report.FactsCompared(
        {"ewc − naive": (0.1, -0.1, 0.3, 0.25, float("nan"))},
        {"ewc": {"A": {"A": 1.0}, "B": {"A": 0.5, "B": 1.0}, "C": {"A": 0.25}}},
        "naive keeps 20% of A",
        {"ewc − naive": (9, 2, 0.05, 0.6, 0.07, 0.07)},
    )
    section = report.factoids_section({"ewc": kept, "naive": kept}, 1, compared)
    tables = {table.title: table for table in section.tables}
    assert tables["Differences between arms"].rows[0][:2] == ("ewc − naive", 0.1)
    assert tables["The same, fact by fact"].rows[0][:3] == ("ewc − naive", 9, 2)
    assert tables["Lost, or only misaligned"].rows[0] == ("ewc", 0.2, 0.6)
    stages = tables["Every set after every stage"]
    assert stages.columns[1:4] == ("A after A", "A after B", "B after B")
    assert stages.rows[0][1:4] == (1.0, 0.5, 1.0) and "A after B, judged otherwise" not in tables
    assert "after the last stage is 25 %" in section.lead and "Naive keeps" in section.lead
