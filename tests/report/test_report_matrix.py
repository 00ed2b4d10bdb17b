"""The matrix on the page: names, missing entries, sizes, and what the picture's data say."""

import base64
import json
import re

import numpy as np
import pytest

from forget_jax import report
from forget_jax.errors import UserError
from forget_jax.report.heatmap import MAX_CELLS, robust_range


def section_of(z_MxN, tasks, examples, sources, texts=None, n_top=12) -> report.Section:
    found = report.Forgetting(z_MxN, tasks, examples, sources, texts)
    return report.matrix_section(found, n_top=n_top)


def data_of(html: str) -> tuple[dict, np.ndarray]:
    """The picture's data as its script reads them; NaN where not measured."""
    found = re.search(r'<script type="application/json">(.*?)</script>', html, re.S)
    assert found is not None
    data = json.loads(found[1])
    raw = np.frombuffer(base64.b64decode(data["z"]), "<i2").reshape(len(data["tasks"]), -1)
    return data, np.where(raw == -32768, np.nan, raw * data["scale"])


def pixels(html: str) -> np.ndarray:
    import io

    from matplotlib.image import imread

    found = re.search(r"data:image/png;base64,([^\"]+)", html)
    assert found is not None
    return imread(io.BytesIO(base64.b64decode(found[1])), format="png")


def test_all_names_and_values_arrive():
    rng = np.random.default_rng(1)
    z_MxN = rng.normal(0, 0.3, (12, 90))
    z_MxN[rng.random(z_MxN.shape) < 0.1] = np.nan
    tasks = [f"a/very/long/prefix/that/is/the/same/{i}/and the same end" for i in range(12)]
    examples = [f"example {j}" for j in range(90)]
    sources = [f"source {j % 4}" for j in range(90)]
    html = report.page("t", [section_of(z_MxN, tasks, examples, sources)], {})
    for name in (*tasks, *examples, *set(sources)):
        assert name in html
    data, shown = data_of(html)
    order = [examples.index(e) for e in data["examples"]]
    np.testing.assert_allclose(shown, z_MxN[:, order], atol=np.nanmax(np.abs(z_MxN)) / 32767)
    stops = [stop for _, stop in data["groups"]]
    for (source, stop), start in zip(data["groups"], [0, *stops], strict=False):
        assert {sources[j] for j in order[start:stop]} == {source}
    labels = re.findall(r'<div title="[^"]*">([^<]*)</div>', html)
    assert len(labels) == len(set(labels)) == 12


def test_colours_say_the_sign_and_grey_says_missing():
    z_MxN = np.asarray([[0.5, -0.5, 0.0, np.nan]])
    section = section_of(z_MxN, ["t"], list("abcd"), ["s"] * 4)
    forgotten, unchanged, improved, missing = pixels(section.figures[0].markup)[0, :, :3]
    assert forgotten[0] > 2 * forgotten[2] and improved[2] > 2 * improved[0]
    assert unchanged.min() > 0.9
    assert missing[0] == missing[1] == missing[2] < 0.8
    assert "Grey entries were not measured" in section.figures[0].caption


def test_range_ignores_outliers_and_is_never_zero():
    z = np.full(1000, 0.1)
    z[0], z[1], z[2] = 50.0, np.inf, np.nan
    assert robust_range(z) == pytest.approx(0.1)
    assert robust_range(np.zeros(3)) == robust_range(np.full(2, np.nan)) == 1.0


def test_means_shares_and_order_by_hand():
    z_MxN = np.asarray([[0.1, 0.3, np.nan], [-0.2, 0.0, -0.4], [np.nan] * 3])
    section = section_of(z_MxN, ["up", "down", "none"], list("abc"), ["s", "s", "q"])
    by_task, by_source = section.tables
    cells = [(r[0], r[1].text, r[2].text) for r in by_task.rows]
    assert cells == [("up", "+0.200", "100 %"), ("down", "−0.200", "0 %"), ("none", "–", "–")]
    assert by_task.rows[1][1].negative and by_task.rows[1][1].left == 0
    assert [r[0] for r in by_source.rows] == ["s", "q"]
    assert [t.title for t in section.texts] == ["b", "a", "c"]
    assert section.texts[0].facts == "s · mean z +0.150 · most under up (+0.300), down (0)"
    assert "5 measured entries" in section.lead and "−0.0400 nats" in section.lead


@pytest.mark.parametrize("value", [0.3, 0.0, np.nan])
def test_one_by_one(value):
    section = section_of(np.asarray([[value]]), ["a"], ["b"], ["c"], ["text"])
    assert len(report.page("t", [section], {})) < 20_000
    assert len(section.texts) == np.isfinite(value)


def test_nothing_measured():
    section = section_of(np.full((2, 3), np.nan), ["a", "b"], list("cde"), ["s"] * 3)
    assert section.lead == "No entry of the matrix has been measured yet."
    assert not section.texts


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


@pytest.mark.parametrize(("m", "n", "limit"), [(100, 2000, 2_000_000), (300, 9000, 2_000_000)])
def test_size_of_large_matrices(m, n, limit):
    z_MxN = np.random.default_rng(0).normal(0.1, 0.2, (m, n))
    tasks = [f"task {i}" for i in range(m)]
    examples = [f"corpus/shard/{j}" for j in range(n)]
    section = section_of(z_MxN, tasks, examples, [f"source {j % 60}" for j in range(n)])
    html = report.page("t", [section], {})
    assert len(html) < limit
    data, shown = data_of(html)
    assert shown.size <= MAX_CELLS
    assert len(data["groups"]) == 41  # forty named, the others together
    reduced = m * n > MAX_CELLS
    assert ("too many examples" in section.figures[0].caption) == reduced
    assert ("of 300 tasks" in section.figures[0].caption) == (m == 300)


def test_averaged_columns_are_means_of_their_examples():
    rng = np.random.default_rng(0)
    z_MxN = rng.normal(size=(200, 3000))
    section = section_of(
        z_MxN, [str(i) for i in range(200)], [str(j) for j in range(3000)], ["s"] * 3000
    )
    _, shown = data_of(section.figures[0].markup)
    assert shown.shape == (200, 1000)
    np.testing.assert_allclose(shown.mean(axis=1), z_MxN.mean(axis=1), atol=1e-3)


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
