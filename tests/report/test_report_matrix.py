"""The matrix on the page: names, missing entries, sizes, and what the picture's data say."""

import base64
import json
import re

import numpy as np
import pytest

from forget_jax import report
from forget_jax.errors import UserError
from forget_jax.report import explorer
from forget_jax.report.explorer import robust_range


def section_of(z_MxN, tasks, examples, sources, texts=None, n_top=12) -> report.Section:
    found = report.Forgetting(z_MxN, tasks, examples, sources, texts)
    return report.matrix_section(found, n_top=n_top)


def data_of(section: report.Section) -> tuple[dict, np.ndarray]:
    """The matrix as explorer.js reads it, from the page or from the file beside it."""
    if section.files:
        (text,) = section.files.values()
        call = 'forgetJax("forgetting", '
        assert text.startswith(call) and text.endswith(");\n")
        data = json.loads(text.removeprefix(call).removesuffix(");\n"))
    else:
        html = report.page("t", [section], {})
        found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.S)
        assert found is not None
        data = json.loads(found[1])
    raw = np.frombuffer(base64.b64decode(data["z"]), "<f4")
    return data, raw.reshape(len(data["tasks"]), len(data["examples"]))


def test_all_names_and_values_arrive():
    rng = np.random.default_rng(1)
    z_MxN = rng.normal(0, 0.3, (12, 90))
    z_MxN[rng.random(z_MxN.shape) < 0.1] = np.nan
    tasks = [f"a/very/long/prefix/that/is/the/same/{i}/and the same end" for i in range(12)]
    examples = [f"example {j}" for j in range(90)]
    sources = [f"source {j % 4}" for j in range(90)]
    section = section_of(z_MxN, tasks, examples, sources)
    html = report.page("t", [section], {})
    for name in (*tasks, *examples, *set(sources)):
        assert name in html
    data, shown = data_of(section)
    order = [examples.index(e) for e in data["examples"]]
    np.testing.assert_array_equal(shown, z_MxN[:, order].astype(np.float32))
    assert [data["sources"][g]["name"] for g in data["source_of"]] == [sources[j] for j in order]
    assert data["source_of"] == sorted(data["source_of"])
    means = [s["mean"] for s in data["sources"]]
    assert means == sorted(means, reverse=True)
    labels = re.findall(r'<div title="[^"]*">([^<]*)</div>', html)
    assert len(labels) == len(set(labels)) == 12
    assert "Grey entries were not measured" in section.figures[0].caption


def test_texts_lie_with_their_examples():
    z_MxN = np.asarray([[0.1, 0.3, -0.2]])
    data, _ = data_of(section_of(z_MxN, ["t"], list("abc"), ["s"] * 3, ["A", "B" * 900, "C\x00"]))
    assert data["examples"] == ["b", "a", "c"] and data["texts"][1:] == ["A", "C\\x00"]
    assert len(data["texts"][0]) == explorer.EXCERPT and data["texts"][0].endswith("…")


def test_range_ignores_outliers_and_is_never_zero():
    z = np.full(1000, 0.1)
    z[0], z[1], z[2] = 50.0, np.inf, np.nan
    assert robust_range(z) == pytest.approx(0.1)
    assert robust_range(np.zeros(3)) == robust_range(np.full(2, np.nan)) == 1.0


def test_means_shares_and_order_by_hand():
    z_MxN = np.asarray([[0.1, 0.3, np.nan], [-0.2, 0.0, -0.4], [np.nan] * 3])
    section = section_of(z_MxN, ["up", "down", "none"], list("abc"), ["s", "s", "q"])
    by_task, forgotten, improved = section.tables
    cells = [(r[0], r[1].text, r[2].text) for r in by_task.rows]
    assert cells == [("up", "+0.200", "100 %"), ("down", "−0.100", "0 %"), ("none", "–", "–")]
    assert by_task.rows[1][1].negative and by_task.rows[1][1].left == 0
    assert by_task.rows[1][3] == -0.4  # the source that improved a lot stands apart
    assert forgotten.title == "Sources that were forgotten" and forgotten.rows[0][0] == "s"
    assert improved.title == "Sources that improved" and improved.rows[0][0] == "q"
    assert [t.title for t in section.texts] == ["b", "a"][: len(section.texts)]
    assert section.texts[0].facts == "s · mean z +0.150 · most under up (+0.300), down (0)"
    assert "4 measured entries of sources that the base knew" in section.lead
    assert "+0.0500 nats" in section.lead


def test_a_small_improvement_is_no_unknown_source():
    z_MxN = np.asarray([[0.1, -0.05]])
    by_task, forgotten, improved = section_of(z_MxN, ["t"], ["a", "b"], ["s", "q"]).tables
    assert len(by_task.columns) == 3 and by_task.rows[0][1].text == "0.0250"
    assert [forgotten.rows[0][0], improved.rows[0][0]] == ["s", "q"]


def test_where_everything_improved_nothing_is_set_apart():
    section = section_of(np.asarray([[-2.0, -1.0]]), ["t"], ["a", "b"], ["s", "q"])
    assert "−1.50 nats" in section.lead and "that the base knew" not in section.lead
    assert "worse on no source" in section.opening and "replay" not in section.opening


def test_unknown_sources_do_not_set_the_colours():
    z_MxN = np.concatenate([np.full((2, 9), 0.1), np.full((2, 9), -4.0)], axis=1)
    section = section_of(z_MxN, ["t", "u"], [str(j) for j in range(18)], ["s"] * 9 + ["q"] * 9)
    data, _ = data_of(section)
    assert data["limit"] == pytest.approx(0.1) and "±0.100" in section.figures[0].caption
    assert "1 source that the base did not know improved, most q (by 4.00)" in section.opening


def test_the_page_opens_with_what_was_forgotten_and_what_to_replay():
    z_MxN = np.asarray([[0.5, 0.1, 0.2, -0.1]])
    section = section_of(z_MxN, ["my task"], list("abcd"), ["s", "s", "q", "r"])
    assert section.opening == (
        "Fine-tuning on my task made the model worse on s (by 0.300 nats a token) and q (0.200). "
        "Forgotten most, and the first to replay: a, c and b."
    )
    html = report.page("t", [section], {"points": "24"})
    assert html.index(section.opening) < html.index("<h2>") < html.index("points")


@pytest.mark.parametrize("value", [0.3, 0.0, np.nan])
def test_one_by_one(value):
    section = section_of(np.asarray([[value]]), ["a"], ["b"], ["c"], ["text"])
    assert len(report.page("t", [section], {})) < 45_000
    assert len(section.texts) == (value > 0)


def test_nothing_measured():
    section = section_of(np.full((2, 3), np.nan), ["a", "b"], list("cde"), ["s"] * 3)
    assert section.lead == "No entry of the matrix has been measured yet."
    assert not section.texts and not section.opening


def test_texts_are_cut_and_optional():
    z_MxN = np.asarray([[0.1, 0.2]])
    section = section_of(z_MxN, ["t"], ["a", "b"], ["s", "s"], ["x" * 5000, "short"], 1)
    assert [t.body for t in section.texts] == ["short"]
    both = section_of(z_MxN, ["t"], ["a", "b"], ["s", "s"], ["x" * 5000, "short"])
    assert len(both.texts[1].body) < 400
    assert {t.body for t in section_of(z_MxN, ["t"], ["a", "b"], ["s"] * 2).texts} == {""}


def test_lead_claims_no_noise_level_from_one_seed():
    z_MxN = np.random.default_rng(0).normal(size=(3, 4))
    found = report.Forgetting(z_MxN, list("abc"), list("defg"), ["s"] * 4)
    once, again = report.matrix_section(found), report.matrix_section(found, repeat=0.93)
    assert "not known" in once.lead and "test–retest" not in once.lead
    assert "test–retest correlation of 0.930" in again.lead


def large(m: int, n: int) -> report.Section:
    z_MxN = np.random.default_rng(0).normal(0.1, 0.2, (m, n))
    tasks = [f"task {i}" for i in range(m)]
    examples = [f"corpus/shard/{j}" for j in range(n)]
    return section_of(z_MxN, tasks, examples, [f"source {j % 60}" for j in range(n)])


def test_a_small_matrix_lies_in_the_page_and_a_large_one_beside_it():
    small, big = large(12, 380), large(85, 10_000)
    assert not small.files and list(big.files) == ["forgetting.js"]
    pages = [report.page("t", [section], {}) for section in (small, big)]
    assert all(len(page) < 5_000_000 for page in pages) and len(pages[1]) < 200_000
    assert '<script src="report/forgetting.js" defer></script>' in pages[1]
    data, shown = data_of(big)
    assert shown.shape == (85, 10_000) and len(set(data["examples"])) == 10_000  # all names kept


def test_many_tasks_are_all_in_the_table_and_the_picture_says_which_it_has(monkeypatch):
    section = large(300, 40)
    data, shown = data_of(section)
    mean_M = shown.mean(1)
    assert len(data["rows"]) == explorer.MAX_ROWS and len(data["tasks"]) == 300
    assert min(mean_M[data["rows"]]) >= max(np.delete(mean_M, data["rows"]))
    assert "of 300 tasks" in section.figures[0].caption
    monkeypatch.setattr(explorer, "MAX_CELLS", 300 * 10)
    section = large(300, 40)
    assert data_of(section)[1].shape == (300, 10)
    assert "Of 40 examples the 10" in section.figures[0].caption


@pytest.mark.parametrize(
    ("z", "names"),
    [(np.zeros((2, 3)), 2), (np.zeros((0, 3)), 3), (np.zeros(3), 3), (np.zeros((1, 4)), 3)],
)
def test_shapes_that_do_not_fit(z, names):
    with pytest.raises(UserError, match="one task name a row"):
        section_of(z, ["a"] * len(z), ["b"] * names, ["c"] * names)


def test_exact_match_is_called_by_its_name():
    z_MxN = np.asarray([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    names = [list("ab"), list("wxyz"), ["s"] * 4]
    section = report.matrix_section(report.Forgetting(z_MxN, *names, metric="exact_match"))
    assert "By exact match: of 8 measured entries" in section.lead and "38 %" in section.lead
    html = report.page("t", [section, report.rank_section([0.5], 0.4, 0.1, 0.2, f1_rank=[0.7])], {})
    assert "z in answers" in html and "nats" not in html and "F1 of logistic factors" in html
    assert "z in nats" in report.page("t", [section_of(z_MxN, *names)], {})
