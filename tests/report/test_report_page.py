"""The page as a whole: well-formed, escaped, self-contained, light in size and in imports."""

import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from forget_jax import report

VOID = {"meta", "img", "br", "link", "input", "hr"}
NASTY = '<script>alert(\'x\')</script> & "q" $\\frac{1}$ id="a" 忘れる _x'


class Reader(HTMLParser):
    """Checks that tags nest and collects tags, ids, texts and attribute values."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.urls: list[str] = []
        self.texts: list[str] = []
        self.alts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id":
                self.ids.append(value)
            elif name in ("src", "href", "xlink:href"):
                self.urls.append(value)
            elif name in ("alt", "aria-label"):
                self.alts.append(value)
            elif name == "clip-path":
                self.references.append(value.removeprefix("url(#").removesuffix(")"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def all_sections(name: str = "a name") -> list[report.Section]:
    rng = np.random.default_rng(0)
    z_MxN = rng.normal(0.1, 0.2, (5, 40))
    z_MxN[1, 3] = np.nan
    names = [f"{name} {k}" for k in range(40)]
    curve = {"step": list(range(300)), "loss": list(rng.normal(3, 0.1, 300))}
    columns = {
        "P": [1000, 1000, 4000, 4000],
        "steps": [10, 20, 10, 20],
        "l_ft": [3.0, 2.9, 2.8, 2.6],
        "l_f": [0.1, 0.2, 0.2, 0.3],
        "run": [name, name, "b", "b"],
    }
    forgetting = report.Forgetting(
        *(z_MxN, names[:5], names, names[:1] * 20 + names[1:2] * 20, names),
        components=[name, "other"],
        component_N=np.arange(40) % 3 - 1,
    )
    law = report.FittedLaw({name: 0.5}, {name: (0.4, 0.6)}, r2=0.9, bic=-3.0)
    surface = report.LawSurface([1000.0, 4000.0], [10.0, 20.0], [[0.1, 0.2], [0.2, 0.3]])
    replayed = report.Replayed(4.0, 3.0, [0.1, 0.2, 0.3], strategy="one", recovered=(0.2, 0.1, 0.3))
    test = report.PairedTest(pairs=3, mean=-0.1, low=-0.2, high=0.0, p=0.01)
    room = report.Room(mean=0.1, noise=0.2, enough=False)
    replays = report.Replays({name: replayed, "b": replayed}, {name: test}, {name: room})
    row = (name, 0.1, name, name)
    ratios = np.array([(r, 0.2 - r, 0.01, 1.0) for r in (0.0, 0.1)])
    kept = report.FactsKept([1.0], [0.2, 0.4], [1.0])
    figures = {"examples": 5, "z": 0.1, "low": 0.0, "high": 0.2, "z_tokens": 0.1, "noise": 0.01}
    judged = {"lost": "1 of 3", "gained": "0", "p": "1", "limit": 0.05, "verdict": "over"}
    checked = report.Checked(
        name, name, **figures, **judged, over=True, worst=[(name, 0.3, True, name)]
    )
    missing = dict.fromkeys(("z", "low", "high", "z_tokens", "noise", "limit"))
    unknown = dataclasses.replace(checked, model="b", over=False, worst=(), **missing)
    flips = report.Flips(before=2, after=1, lost=2, gained=1, p=1.0)
    behaved = report.Behaved(
        *(name, name, 3, (0.5, 0.3, 0.7), 0.6, flips, None, 0.5, True, [(name,) * 5])
    )
    return [
        report.training_section({name: curve, "other": curve}, {name: name}),
        report.matrix_section(forgetting),
        report.rank_section([0.7, 0.8, 0.9], 0.6, 0.3, 0.2),
        report.methods_section({name: report.Completed(0.2, 0.1, f1=0.9, seconds=1)}, 30, 5),
        report.replay_section(replays),
        report.check_section([checked, unknown], [name], "nats/token", 0.95),
        report.behaviour_section([behaved], 0.95),
        report.mix_section(
            [row], (5, 1, 9), report.Expected(0.1, {name: 0.2}, 0.5), ratios, {name: name}
        ),
        report.scaling_section(columns, {name: law}, {name: surface}),
        report.factoids_section({name: kept, "b": kept}, 2),
        report.score_section(
            {name: [1.0, 2.0, None], "b": [1.0, 3.0, 2.0]}, {name: [1, 2, 3], "b": [1, 2, 3]}
        ),
        report.timing_section({name: 3.0, "b": 1}),
    ]


@pytest.fixture(scope="module")
def nasty() -> str:
    return report.page(NASTY, all_sections(NASTY), {NASTY: NASTY})


def test_parses_and_ids_are_unique_and_references_resolve(nasty):
    page = Reader(nasty)
    assert len(set(page.ids)) == len(page.ids)
    inside = [u.removeprefix("#") for u in page.urls if u.startswith("#")]
    assert page.references
    assert set(inside + page.references) <= set(page.ids)


def test_nothing_from_users_becomes_markup(nasty):
    assert "<script>alert" not in nasty
    page = Reader(nasty)
    assert page.tags.count("script") == 2  # the matrix and the page's own script
    assert "<script>alert('x')</script>" in page.text


def test_data_for_the_script_is_json_that_cannot_end_it(nasty):
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', nasty, re.S)
    assert data is not None
    tasks = json.loads(data[1])["tasks"]
    assert tasks == [f"{NASTY} {k}" for k in range(5)]


def test_self_contained(nasty):
    page = Reader(nasty)
    assert all(u.startswith("#") for u in page.urls)
    assert not {"link", "iframe", "object", "embed"} & set(page.tags)
    style = re.search(r"<style>(.*?)</style>", nasty, re.S)
    assert style is not None
    assert "url(" not in style[1] and "@import" not in style[1]
    assert "prefers-color-scheme: dark" in style[1]


def test_every_figure_has_caption_alt_and_seeds():
    sections = all_sections()
    page = Reader(report.page("t", sections, {}))
    figures = [f for s in sections for f in s.figures]
    assert page.tags.count("figure") == page.tags.count("figcaption") == len(figures) == 13
    for figure in figures:
        assert figure.alt in page.alts
        assert "seed" in figure.caption


def test_contents_only_for_more_than_two_sections():
    sections = all_sections()
    few, many = (Reader(report.page("t", sections[:k], {})) for k in (2, 3))
    assert "nav" not in few.tags
    assert [u for u in many.urls if u.startswith("#") and u[1:] in {s.key for s in sections}] == [
        "#training",
        "#matrix",
        "#rank",
    ]


def test_equal_keys_are_refused():
    section = report.timing_section({"a": 1.0})
    with pytest.raises(ValueError, match="must differ"):
        report.page("t", [section, section], {})


def test_same_input_gives_the_same_bytes():
    assert report.page("t", all_sections(), {}) == report.page("t", all_sections(), {})


def test_matplotlib_comes_late_and_keeps_its_settings():
    code = """
import sys
from forget_jax import report
print([m for m in ("matplotlib", "jax") if m in sys.modules])
section = report.training_section({"a": {"step": [0, 1], "loss": [2.0, 1.0]}}, {})
import matplotlib
print("matplotlib.pyplot" in sys.modules, matplotlib.rcParams["font.size"])
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False 10.0"], done.stderr
