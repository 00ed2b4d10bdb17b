"""The table on disk: made by many at once, never emptied, of one set of models and examples."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from forget_jax.errors import UserError
from forget_jax.scoring import disk

TABLE = (["base", "a/ü"], [f"e{i}" for i in range(10)], ["s"] * 10, 4)


def tree(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def test_a_table_has_labels_and_nothing_scored(tmp_path):
    disk.create(tmp_path / "t", *TABLE, figures=("nll_sum", "kl_sum"), targets=3)
    with xr.open_zarr(tmp_path / "t", chunks=None) as table:  # without a warning
        units = {name: table[name].attrs["units"] for name in table.data_vars}
        assert units == dict.fromkeys(("nll_sum", "kl_sum", "logp"), "nats") | {"tokens": "tokens"}
    with xr.open_zarr(tmp_path / "t", consolidated=False, mask_and_scale=False) as table:
        assert table.sizes == {"model": 2, "example": 10, "target": 3}
        assert table.model.values.tolist() == TABLE[0]
        assert table.source.dims == ("example",) and set(table.source.values) == {"s"}
        assert (table.tokens.values == -1).all() and table.tokens.dtype == np.int32
        assert np.isnan(table.kl_sum.values).all() and table.logp.dtype == np.float32
    assert not disk.done(tmp_path / "t", [0, 1], 4).any()
    assert not [name for name in tree(tmp_path / "t") if name.startswith(("tokens/c", "nll_sum/c"))]


def test_chunks_are_done_when_all_their_models_are(tmp_path):
    path = tmp_path / "t"
    disk.create(path, *TABLE)
    nll = np.arange(8.0).reshape(2, 4)
    disk.write(path, [0, 1], slice(0, 4), {"nll_sum": nll}, np.ones(4))
    disk.write(path, [1], slice(8, 10), {"nll_sum": nll[:1, :2]}, np.ones(2))
    assert disk.done(path, [0, 1], 4).tolist() == [True, False, False]
    assert disk.done(path, [1], 4).tolist() == [True, False, True]
    with disk.read(path) as table:
        np.testing.assert_array_equal(table.nll_sum.values[:, :4], nll)


def test_making_it_again_writes_no_byte(tmp_path):
    path = tmp_path / "t"
    disk.create(path, *TABLE)
    disk.write(path, [0], slice(0, 4), {"nll_sum": np.ones((1, 4))}, np.ones(4))
    before = tree(path)
    disk.create(path, *TABLE)
    assert tree(path) == before


def test_a_table_left_half_made_keeps_what_is_scored(tmp_path):
    """A second maker that finds no mark of the end writes the same bytes and no scores."""
    path = tmp_path / "t"
    disk.create(path, *TABLE)
    disk.write(path, [0], slice(0, 4), {"nll_sum": np.ones((1, 4))}, np.ones(4))
    before = tree(path)
    (path / disk.ROOT).unlink()
    (path / "example" / "zarr.json").unlink()
    disk.create(path, *TABLE)
    assert tree(path) == before


RACE = """
import sys, time, numpy as np
from forget_jax.scoring import disk
path, me, start = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
time.sleep(max(0, start - time.time()))
for i in range(8):
    disk.create(f"{path}/{i}", [f"m{k}" for k in range(4)], ["a", "b", "c"], ["s"] * 3, 2)
    block = {"nll_sum": np.full((1, 2), float(me))}
    disk.write(f"{path}/{i}", [me], slice(0, 2), block, np.full(2, 7))
"""


def test_four_makers_at_once_lose_nothing(tmp_path):
    import time

    start = time.time() + 6
    argv = [sys.executable, "-c", RACE, str(tmp_path)]
    runs = [subprocess.Popen([*argv, str(k), str(start)]) for k in range(4)]
    assert [run.wait() for run in runs] == [0] * 4
    for i in range(8):
        with disk.read(tmp_path / str(i)) as table:
            assert (table.tokens.values == [7, 7, -1]).all()
            np.testing.assert_array_equal(table.nll_sum.values[:, 0], range(4))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ((["base", "b"], *TABLE[1:]), "table of other models (without b)"),
        ((["base"], *TABLE[1:]), "table of other models (with 2 instead of 1)"),
        ((TABLE[0][::-1], *TABLE[1:]), "table of other models (in another order)"),
        ((TABLE[0], [*TABLE[1][:9], "x"], *TABLE[2:]), "table of other examples (without x)"),
        ((*TABLE, ("nll_sum", "kl_sum")), "table of other figures"),
        ((*TABLE, ("nll_sum",), 5), "table of other figures"),
    ],
)
def test_another_table_in_the_same_place(table, said, tmp_path):
    disk.create(tmp_path / "t", *TABLE)
    before = tree(tmp_path / "t")
    with pytest.raises(UserError) as error:
        disk.create(tmp_path / "t", *table)
    assert said in str(error.value) and "--workdir" in str(error.value)
    assert tree(tmp_path / "t") == before


def test_what_killed_writers_left_is_cleared_away(tmp_path):
    path = tmp_path / "t"
    disk.create(path, *TABLE)
    before = tree(path)
    (path / "tokens" / "c" / "0").mkdir(parents=True)
    (path / "tokens" / "c" / "0" / "0.1f2e.partial").write_bytes(b"x")
    (path / ".zarr.json.host.1.tmp").write_bytes(b"x")
    disk.tidy(path)
    assert tree(path) == before


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A table of two models whose last chunk is not scored yet, one example NaN in a chunk."""
    path = tmp_path_factory.mktemp("filled") / "t"
    disk.create(path, *TABLE, figures=("nll_sum", "kl_sum"), targets=3)
    rng = np.random.default_rng(0)
    for k in range(2):
        for start in (0, 4):
            figures = {name: rng.normal(size=(1, 4)) for name in ("nll_sum", "kl_sum")}
            figures["logp"] = np.full((1, 4, 3), np.nan, np.float32)  # as it is where none is
            disk.write(path, [k], slice(start, start + 4), figures, np.arange(1, 5))
    return path


@pytest.mark.fault("damaged tables of scores", "done again")
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_damage_is_found_and_only_that_chunk_is_to_be_scored(filled, damage, tmp_path, capsys):
    """Every file in turn, six places of it: figures are right, or marked as not scored."""
    rng = np.random.default_rng(0)
    with disk.read(filled) as whole:
        whole.load()
    tried = 0
    for name in sorted(tree(filled)):
        for trial in range(6 if damage == "flip" else 1):
            path = tmp_path / f"{tried}"
            shutil.copytree(filled, path)
            file, tried = path / name, tried + 1
            data = bytearray(file.read_bytes())
            if damage == "remove":
                file.unlink()
            elif damage == "flip":
                data[rng.integers(len(data))] ^= 1 << rng.integers(8)
                file.write_bytes(data)
            else:
                file.write_bytes(data[: len(data) // 2] if damage == "truncate" else b"")
            disk.create(path, *TABLE, figures=("nll_sum", "kl_sum"), targets=3)
            disk.mend(path, 4)
            with disk.read(path) as mended:
                mended.load()
            sound = mended.tokens.values >= 0
            lost = (whole.tokens.values >= 0) & ~sound
            assert lost.sum() in (0, 4), name
            for figure in ("nll_sum", "kl_sum", "tokens"):
                found, expected = mended[figure].values[sound], whole[figure].values[sound]
                np.testing.assert_array_equal(found, expected, err_msg=name)
            assert mended.example.values.tolist() == whole.example.values.tolist()
            said = capsys.readouterr().err
            if not (damage == "remove" and name.startswith("tokens/c")):  # as if not scored yet
                assert "damaged" in said or tree(path) == tree(filled), (name, trial)
            shutil.rmtree(path)
    assert tried > 15


def test_mending_a_sound_table_changes_nothing(filled):
    before = tree(filled)
    disk.mend(filled, 4)
    assert tree(filled) == before
