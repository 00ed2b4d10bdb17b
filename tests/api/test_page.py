"""Every block of docs/python.md runs, in order, and gives what the text around it says."""

import re
import shutil
from pathlib import Path

import pytest

import forget_jax
from forget_jax.associations import matrix
from forget_jax.lm.hf import peft

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def after_all(tmp_path_factory, tiny_base):
    """The names that the page's blocks leave."""
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copytree(tiny_base, folder / "base")
    names = {"folder": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"docs/python.md, block {number}", "exec"), names)
    return names


def test_blocks_are_short_and_show_every_name():
    assert len(BLOCKS) == 6 and all(len(b.splitlines()) <= 10 for b in BLOCKS)
    shown = set(re.findall(r"\bfj\.(\w+)", "".join(BLOCKS)))
    assert shown == set(forget_jax.__all__) - {"UserError"}
    assert "eleven names" in PAGE.read_text() and len(forget_jax.__all__) == 11


def test_scores(after_all):
    scores, nll = after_all["scores"], after_all["nll"]
    assert scores.nll_sum.dims == ("model", "example") and scores.nll_sum.shape == (1, 2)
    assert scores.nll_sum.units == "nats" and scores.tokens.units == "tokens"
    assert scores.attrs["base"] == "base" and list(scores.model.values) == ["base"]
    assert ((nll > 0) & (nll < 10)).all()


def test_fine_tuning(after_all):
    tuned, names = after_all["tuned"], after_all["names"]
    assert list(tuned.adapters) == names and tuned.failed == {}
    assert list(tuned.losses.columns) == names and list(tuned.losses.index) == [1, 2, 3, 4, 5]
    assert tuned.losses.attrs["units"] == "nats/token" and tuned.losses.notna().all(axis=None)
    assert tuned.losses.index.name == "step" and tuned.heldout.empty
    base = after_all["base"]
    kept = peft.load(
        after_all["folder"] / "adapters" / "sorting", base.model, str(after_all["folder"] / "base")
    )
    assert kept.config.rank == 2


def test_the_matrix(after_all):
    z, names = after_all["z"], after_all["names"]
    assert z.dims == ("task", "example") and z.shape == (7, 24)
    assert z.units == "nats/token" and list(z.task.values) == names
    assert list(z.example.values) == list(after_all["before"].example.values)
    assert forget_jax.forgetting(after_all["after"]).equals(z)
    assert float(abs(z).max()) > 1e-4


def test_probes_and_rows(after_all):
    z, probes, row = after_all["z"], after_all["probes"], after_all["row"]
    assert len(set(probes)) == 5 and set(probes) <= set(z.example.values)
    assert row.forgetting.dims == ("example",) and row.sizes["example"] == 24
    assert row.low.units == "nats/token" and row.attrs["coverage"] == 0.9
    assert (row.low < row.forgetting).all() and (row.forgetting < row.high).all()
    assert float(after_all["inside"].mean()) > 0.3
    holes, filled = after_all["holes"], after_all["filled"]
    assert int(holes.isnull().sum()) == 19 and not filled.isnull().any()
    assert filled.where(holes.notnull()).equals(holes) and filled.attrs == z.attrs


def test_a_matrix_that_is_saved_is_the_commands(after_all, tmp_path):
    z = after_all["z"]
    z.to_zarr(tmp_path / "forgetting.zarr", consolidated=False)
    held = matrix.load(tmp_path / "forgetting.zarr")
    assert held.tasks == tuple(z.task.values) and (held.z_MxN == z.values).all()
    assert held.metric == "nll" and held.sources[0] == z.source.values[0]
    assert (forget_jax.complete(tmp_path / "forgetting.zarr") == z).all()
    probes = forget_jax.choose_probes(tmp_path / "forgetting.zarr", 3)
    assert probes == forget_jax.choose_probes(z, 3)


def test_the_law(after_all):
    law, plan = after_all["law"], after_all["plan"]
    assert set(law.params) == {"K", "x", "y"}
    assert after_all["low"] < law.predict(P=4e5, steps=150) < after_all["high"]
    assert 50 <= plan.low < plan.steps < plan.high <= 200
    assert law.predict(P=4e5, steps=plan.steps) == pytest.approx(0.04, rel=0.02)
    assert law.warnings == ("4 runs only: intervals are rough; add seeds",)
