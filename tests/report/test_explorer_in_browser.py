"""The matrix in a browser: what is drawn, selected, sorted and taken away. Needs Chromium."""

import csv
import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from forget_jax import report
from forget_jax.report import explorer

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

TASKS = ["up", "down, with a comma"]
EXAMPLES = ["a", "b", "c", "d"]
Z = np.asarray([[0.5, -0.5, 0.25, np.nan], [0.1, -3.5, 0.2, 0.05]])
ACTS = """
addEventListener("load", () => {
  const root = document.querySelector(".explorer"), e = root.explorer, out = {};
  const pick = (name, value) => {
    const input = root.querySelector(`[name=${name}]`);
    input.value = value;
    input.dispatchEvent(new Event("input"));
  };
  const text = td => (td.querySelector("summary") ?? td).textContent;
  const cells = () => [...root.querySelectorAll("tbody tr")].map(tr => [...tr.cells].map(text));
  out.means = cells();
  const ink = root.querySelector("canvas").getContext("2d"), ratio = devicePixelRatio;
  const at = (x, y) => [...ink.getImageData(Math.round(x * ratio), y * ratio, 1, 1).data];
  out.colours = [0, 1, 2, 3].map(k => at(28 * k + 20, 10));
  root.querySelectorAll("th button")[0].click();
  out.byName = cells().map(row => row[0]);
  pick("task", "0");
  out.one = cells();
  pick("task", "*");
  out.pairs = e.csv();
  pick("source", "improved");
  out.improved = e.names();
  pick("source", "");
  pick("component", "1");
  out.component = e.names();
  pick("component", "");
  pick("query", "C TEXT");
  out.found = e.names();
  const p = document.createElement("pre");
  p.id = "out";
  p.textContent = JSON.stringify(out);
  document.body.append(p);
});
"""


@pytest.fixture(scope="module", params=["in the page", "beside it"])
def out(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "beside it":
            patch.setattr(explorer, "MAX_INLINE", 0)
        found = report.Forgetting(
            *(Z, TASKS, EXAMPLES, ["s", "q", "s", "s"], [f"{x} text" for x in EXAMPLES]),
            components=["1", "2"],
            component_N=np.asarray([0, 1, 1, -1]),
        )
        section = report.matrix_section(found)
    for name, text in section.files.items():
        (folder / "report").mkdir()
        (folder / "report" / name).write_text(text)
    assert bool(section.files) == (request.param == "beside it")
    page = report.page("t", [section], {}).replace("</body>", f"<script>{ACTS}</script></body>")
    (folder / "page.html").write_text(page)
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--window-size=1280,900")
    done = subprocess.run(
        [CHROMIUM, *flags, f"--user-data-dir={folder / 'profile'}", f"file://{folder}/page.html"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    written = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.S)
    assert written is not None, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(html.unescape(written[1]))


def test_the_table_opens_with_means_the_most_forgotten_first(out):
    assert [row[0] for row in out["means"]] == ["a", "c", "d", "b"]
    assert out["means"][0] == ["a", "s", "+0.300", "100 %", "1"]
    assert out["means"][2] == ["d", "s", "+0.0500", "100 %", "–"]
    assert out["byName"] == ["a", "b", "c", "d"]


def test_one_task_has_its_own_column_of_z_and_what_is_missing_stands_last(out):
    assert [(row[0], row[2]) for row in out["one"]] == [
        *(("a", "+0.500"), ("b", "−0.500"), ("c", "+0.250"), ("d", "–")),
    ]


def test_every_pair_goes_into_the_csv(out):
    rows = list(csv.DictReader(io.StringIO(out["pairs"])))
    assert len(rows) == 8
    for row in rows:
        z = Z[TASKS.index(row["task"]), EXAMPLES.index(row["example"])]
        assert row["z"] == "" if np.isnan(z) else float(row["z"]) == pytest.approx(z, abs=1e-7)


def test_filters_and_search(out):
    assert (out["improved"], out["found"]) == ("b", "c")
    assert sorted(out["component"].split("\n")) == ["b", "c"]


def test_colours_say_the_sign_and_grey_says_missing(out):
    # of the first task, columns a, c, d and, right of the line, b
    forgotten, less, missing, improved = out["colours"]
    assert forgotten[0] > 2 * forgotten[2] and improved[2] > 2 * improved[0]
    assert forgotten[2] < less[2] and less[0] > less[2]
    assert missing[0] == missing[1] == missing[2] < 200
