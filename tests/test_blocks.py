"""What stands in the blocks of README.md and docs/: commands that exist, and Python that runs."""

import re
import shlex
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forget_jax import cli
from forget_jax.associations import matrix
from forget_jax.commands import config, settings
from forget_jax.scoring import disk

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAID = re.compile(r"`([^`]+)`")


def shell_of(page):
    """What a page has people type: fenced and indented blocks, and commands within the text."""
    text = page.read_text()
    blocks = [block for language, block in FENCED.findall(text) if language == "sh"]
    rest = FENCED.sub("", text)
    blocks += re.findall(r"(?:^    .*\n)+", rest, re.MULTILINE)
    blocks += [" ".join(x.split()) for x in SAID.findall(rest)]
    return [line for block in blocks for line in commands_of(block)]


def commands_of(block):
    """The arguments of every forget-jax command that a text starts, also through launch/."""
    whole = textwrap.dedent(block).replace("\\\n", " ")
    for part in re.split(r"\n|&&|(?<= )\|(?= )", whole):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:  # an apostrophe in prose
            continue
        if words and words[0].startswith("launch/") and "--" in words:
            words = words[words.index("--") + 1 :]
        else:
            at = [i for i, word in enumerate(words) if word.split("/")[-1] == "forget-jax"]
            if not at or any("=" not in word for word in words[: at[0]]):
                continue
            words = words[at[0] + 1 :]
        words = [word for word in words if word != "..."]
        if words and words[0] in cli.COMMANDS:
            yield words


def check(words):
    """Raises UserError where a command line names what is not there."""
    command, *rest = words
    given = cli.parse([word.removesuffix("...") for word in rest])
    name = given.config.partition(":")[0]
    named = given.config if name.isidentifier() else command
    made = config.load(named or command, command)
    for key, value in given.overrides:
        config.override(made, key, value)
    settings.read(settings.TABLES[command], made)


CASES = [(page, words) for page in PAGES for words in shell_of(page)]


@pytest.mark.parametrize(
    ("page", "words"), CASES, ids=[f"{page.name}-{' '.join(words)[:50]}" for page, words in CASES]
)
def test_commands_and_fields_are_there(page, words):
    check(words)


def test_commands_are_found():
    pages = {page.name for page, _ in CASES}
    assert {"README.md", "scoring.md", "replay.md", "launching.md", "scaling.md"} <= pages
    assert len(CASES) >= 20
    for wrong in ("forget-jax score --config.no=1", "launch/x.sh -- score --config.data.no=1"):
        with pytest.raises(ValueError, match="no config field"):
            check(next(commands_of(wrong)))
    assert not list(commands_of("`forget-jax's own words"))


def python_of(page):
    blocks = FENCED.findall((ROOT / "docs" / page).read_text())
    return [block for language, block in blocks if language == "python"]


def test_every_page_with_python_is_run():
    """`docs/python.md` by tests/api/test_page.py, the others here; diffs by test_extending.py."""
    languages = {p.name: {x for x, _ in FENCED.findall(p.read_text())} for p in PAGES}
    assert {name for name, found in languages.items() if "python" in found} == {
        *("python.md", "results.md", "associations.md", "scaling.md")
    }
    assert set.union(*languages.values()) <= {"", "sh", "python", "diff"}


def run(page, names):
    """Runs a page's blocks in order; gives the names they leave."""
    for number, block in enumerate(python_of(page)):
        exec(compile(block, f"docs/{page}, block {number}", "exec"), names)
    return names


TASKS, SOURCES = [f"t{i}" for i in range(8)], ["c4"] * 80 + ["wiki"] * 80
EXAMPLES = [f"e{j}" for j in range(160)]


@pytest.fixture
def z_MxN():
    draw = np.random.default_rng(0)
    z_MxN = draw.normal(size=(8, 2)) @ draw.normal(size=(2, 160)) / 10
    z_MxN[:, 80:] *= 2  # of wiki
    return z_MxN + 0.001 * draw.normal(size=(8, 160))


@pytest.fixture
def run_of_associate(z_MxN, tmp_path, monkeypatch):
    """The files of a run of `associate`, in runs/matrix of the working folder."""
    work = tmp_path / "runs" / "matrix"
    work.mkdir(parents=True)
    found = matrix.Matrix(z_MxN, tuple(TASKS), tuple(EXAMPLES), tuple(SOURCES), "nll")
    matrix.save(work / "forgetting.zarr", found, "some/base")
    disk.create(work / "scores.zarr", ["base", *TASKS], EXAMPLES, SOURCES, 160)
    nll = np.concatenate([np.full((1, 160), 3.0), 3.0 + z_MxN]) * 5
    disk.write(work / "scores.zarr", range(9), slice(0, 160), {"nll_sum": nll}, np.full(160, 5))
    steps = [{"stage": "associate/0", "step": i, "loss": dict.fromkeys(TASKS, 4.0)} for i in (1, 2)]
    pd.DataFrame(steps).to_json(work / "metrics.jsonl", orient="records", lines=True)
    texts = pd.DataFrame({"name": EXAMPLES, "source": SOURCES, "text": "a"})
    texts.to_json(work / "examples.jsonl", orient="records", lines=True)
    (work / "summary.json").write_text('{"command": "associate"}')
    monkeypatch.chdir(tmp_path)
    return work


def test_results(run_of_associate, z_MxN, tmp_path):
    names = run("results.md", {})
    np.testing.assert_allclose(names["by_source"].loc["t2", "wiki"], z_MxN[2, 80:].mean())
    assert names["most"].iloc[0] == z_MxN.max() and len(names["most"]) == 20
    nll, z = names["nll"], names["z"]
    np.testing.assert_allclose((nll - nll.sel(model="base")).sel(model=TASKS).values, z.values)
    assert z.attrs["units"] == "nats/token" and names["found"].attrs["base"] == "some/base"
    assert list(names["losses"].columns) == TASKS and list(names["losses"].index) == [1, 2]
    assert names["texts"].loc["e3", "source"] == "c4"
    assert (tmp_path / "forgetting.csv").read_text().startswith("task,e0,")


def test_associations(run_of_associate, z_MxN, monkeypatch):
    (run_of_associate.parent / "associate").symlink_to(run_of_associate)
    draw = np.random.default_rng(1)
    embeddings = [draw.normal(size=(3, 4)) for _ in TASKS], draw.normal(size=(160, 4))
    given = {"columns": np.arange(30), "values": z_MxN[0, :30]}
    given |= dict(zip(("task_embeddings", "example_embeddings"), embeddings, strict=True))
    names = run("associations.md", given)
    error = np.abs(names["row"].mean_N - z_MxN[0])
    assert error.mean() < 0.5 * np.abs(z_MxN[0]).mean()
    assert names["first"].sources["wiki"] and names["alike"].shape == (8, 160)


def test_scaling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(2)
    rows = []
    for rank, lr in ((1, 1e-4), (4, 3e-4), (16, 1e-4), (64, 3e-4), (256, 1e-4)):
        for steps in (25, 50, 100, 200, 400):
            P = rank * 1e6
            noise = 0.001 * draw.normal(size=2)
            l_f = 0.70 + 0.03 * (P / 1e6) ** 0.1 * (steps / 25) ** 0.2 + noise[0]
            l_ft = 2.0 - 5 * (l_f - 0.70) + noise[1]
            rows.append({"P": P, "steps": steps, "l_ft": l_ft, "l_f": l_f, "lr": lr, "rank": rank})
    frame = pd.DataFrame(rows).assign(run=lambda x: x.P.astype(str))
    (tmp_path / "runs" / "scaling").mkdir(parents=True)
    frame.to_csv(tmp_path / "runs" / "scaling" / "points.csv", index=False)
    frame.assign(forgetting=frame.l_f - 0.70).to_csv(tmp_path / "points.csv", index=False)
    names = run("scaling.md", {})
    assert names["low"] < names["high"] and "multiplicative" in names["held"]
    assert set(names["fits"]) and names["law"].params


def test_the_site_has_no_dead_link(tmp_path, monkeypatch):
    """By mkdocs, where the extra `docs` is installed; .ci/run builds it in any case."""
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    made = {"site_dir": str(tmp_path / "site"), "strict": True}
    build(load_config(str(ROOT / "mkdocs.yml"), **made))
    assert (tmp_path / "site" / "index.html").exists()
    assert (tmp_path / "site" / "picture.png").stat().st_size < 100_000
