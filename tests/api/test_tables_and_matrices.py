"""Matrices of a notebook: out of any tables of scores, and what is predicted of them by name."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import forget_jax
from forget_jax import associations

NATS = {"units": "nats/token"}


def scores(nll, models, examples="abc", tokens=(2, 4, 5)):
    """A table of scores."""
    nll_KxN = np.array(nll, float)
    tokens_KxN = np.tile(np.array(tokens, np.int32), (len(models), 1))
    dims = ("model", "example")
    coords = {"model": list(models), "example": list(examples)}
    return xr.Dataset({"nll_sum": (dims, nll_KxN), "tokens": (dims, tokens_KxN)}, coords)


@pytest.fixture
def before():
    return scores([[2, 4, 5]], ["base"])


def test_forgetting_is_after_less_before_a_token(before):
    after = scores([[4, 4, 0], [2, np.nan, 10]], ["one", "two"])
    z = forget_jax.forgetting(before, after)
    np.testing.assert_array_equal(z, [[1, 0, -1], [0, np.nan, 1]])
    assert z.dims == ("task", "example") and list(z.task.values) == ["one", "two"]
    assert z.name == "forgetting" and z.units == "nats/token"
    turned = after.isel(example=[2, 0, 1])
    assert forget_jax.forgetting(before, turned).equals(z)
    whole = xr.concat([before, after], "model")
    assert forget_jax.forgetting(whole).equals(z)
    assert forget_jax.forgetting(before, [after.sel(model=[m]) for m in ("one", "two")]).equals(z)
    assert forget_jax.forgetting(before, whole).equals(z)


def test_tables_of_models_scored_alone_are_named(before):
    tuned = scores([[4, 4, 0]], ["base"])
    z = forget_jax.forgetting(before, {"sums": tuned, "one": scores([[2, 4, 5]], ["x"])})
    assert list(z.task.values) == ["sums", "one"] and z.values.tolist() == [[1, 0, -1], [0, 0, 0]]
    assert forget_jax.forgetting(scores([[2, 4, 5]], ["x"]), {"sums": tuned}).sizes["task"] == 1
    with pytest.raises(forget_jax.UserError, match="no model beside base; give tables"):
        forget_jax.forgetting(before, tuned)
    with pytest.raises(forget_jax.UserError, match="no model beside base"):
        forget_jax.forgetting(before)


def test_files_of_a_run(before, tmp_path):
    whole = xr.concat([before, scores([[4, 4, 0]], ["one"])], "model")
    whole = whole.isel(example=[1, 0, 2])
    wide = whole.to_dataframe().reset_index()[["model", "example", "nll_sum", "tokens"]]
    wide.to_parquet(tmp_path / "scores.parquet", index=False)
    z = forget_jax.forgetting(tmp_path / "scores.parquet")
    assert z.equals(forget_jax.forgetting(whole)) and list(z.example.values) == ["b", "a", "c"]
    wide.iloc[:-1].to_parquet(tmp_path / "hole.parquet", index=False)
    with pytest.raises(forget_jax.UserError, match="1 scores are missing"):
        forget_jax.forgetting(tmp_path / "hole.parquet")
    pd.concat([wide, wide[:1]]).to_parquet(tmp_path / "twice.parquet", index=False)
    with pytest.raises(forget_jax.UserError, match="two rows of one model and example"):
        forget_jax.forgetting(tmp_path / "twice.parquet")
    wide.drop(columns="tokens").to_parquet(tmp_path / "other.parquet")
    with pytest.raises(forget_jax.UserError, match="has no column tokens"):
        forget_jax.forgetting(tmp_path / "other.parquet")
    with pytest.raises(forget_jax.UserError, match="does not exist"):
        forget_jax.forgetting(tmp_path / "none.parquet")
    with pytest.raises(forget_jax.UserError, match=r"a .zarr or .parquet file"):
        forget_jax.forgetting(tmp_path)


def test_tables_that_do_not_agree_are_refused(before):
    def refused(message, after, first=before):
        with pytest.raises(forget_jax.UserError, match=message):
            forget_jax.forgetting(first, after)

    one = ["one"]
    refused("1 examples .*, such as c under the base", scores([[1, 2]], one, "ab", (2, 4)))
    refused("such as d under one", scores([[1, 2, 3, 4]], one, "abcd", (2, 4, 5, 6)))
    refused("such as b: 4 under the base and 3", scores([[1, 2, 3]], one, tokens=(2, 3, 5)))
    refused("2 scores are missing", scores([[1, 2, 3]], one, tokens=(2, -1, -1)))
    refused("names an example twice", scores([[1, 2, 3]], one, "aac"))
    refused("two models are called one", [scores([[1, 2, 3]], one)] * 2)
    refused("of a holds several models: x, y", {"a": scores([[1, 2, 3]] * 2, "xy")})
    refused("none of the models x, y is called base", None, scores([[1, 2, 3]] * 2, "xy"))
    refused("holds no nll_sum and tokens", before.drop_vars("tokens"))


@pytest.fixture(scope="module")
def z():
    rng = np.random.default_rng(0)
    z_MxN = rng.normal(size=(9, 1)) @ rng.normal(size=(1, 30)) + 0.1 * rng.normal(size=(9, 30))
    coords = {
        "task": [f"t{i}" for i in range(9)],
        "example": [f"e{j}" for j in range(30)],
        "source": ("example", ["s"] * 30),
    }
    return xr.DataArray(z_MxN, coords, ("task", "example"), "forgetting", NATS)


def test_completion_keeps_names_and_known_entries(z):
    holes = z.where((z.task != "t8") | (z.example.isin(["e3", "e5", "e7"])))
    filled = forget_jax.complete(holes)
    expected = associations.complete(holes.values, holes.notnull().values)
    np.testing.assert_array_equal(filled, expected)
    assert filled.coords.equals(z.coords) and filled.attrs == NATS
    assert forget_jax.complete(holes.T, "gaussian", rank=1).dims == ("task", "example")
    unnamed = forget_jax.complete(holes.drop_vars(["task", "example", "source"]))
    np.testing.assert_array_equal(unnamed, expected)
    assert unnamed.example.values.tolist() == list(range(30))


def test_a_row_by_name(z):
    new, earlier = z.sel(task="t8"), z.drop_sel(task="t8")
    names = forget_jax.choose_probes(earlier, 4, "mean")
    columns = associations.choose_probes(earlier.values, 4, "mean")
    assert names == [f"e{j}" for j in columns]
    row = forget_jax.predict_row(earlier, new.sel(example=names))
    predictor = associations.fit_predictor(earlier.values, 4)
    expected = associations.predict_row(predictor, columns, new.values[columns])
    np.testing.assert_array_equal(row.forgetting, expected.mean_N)
    np.testing.assert_array_equal(row.low, expected.low_N)
    assert row.high.attrs == NATS and row.attrs == {"coverage": 0.9}
    assert set(row.coords) == {"example", "source"}
    by_name = dict(zip(names, new.sel(example=names).values, strict=True))
    for same in (by_name, pd.Series(by_name), by_name | {"e0": np.nan}):
        assert forget_jax.predict_row(earlier, same).equals(row)
    wider = forget_jax.predict_row(earlier, by_name, coverage=0.99)
    assert (wider.high > row.high).all()


def test_mistakes_about_matrices(z):
    for call, message in (
        (lambda: forget_jax.complete(z.values), "a matrix is an xarray.DataArray over task and"),
        (lambda: forget_jax.complete(z.rename(task="row")), "over task and example"),
        (lambda: forget_jax.complete("none.zarr"), "does not exist"),
        (lambda: forget_jax.complete(xr.concat([z, z], "task")), "names a task twice"),
        (lambda: forget_jax.predict_row(z, {"e33": 1.0}), r"no example 'e33' \(did you mean e"),
        (lambda: forget_jax.predict_row(z, z[:1]), "those of one task"),
        (lambda: forget_jax.predict_row(z, {}), "0 observed entries"),
        (lambda: forget_jax.choose_probes(z, 31), "31 probes of 30"),
        (lambda: forget_jax.choose_probes(z, 3, "rows"), "unknown aim"),
    ):
        with pytest.raises(forget_jax.UserError, match=message):
            call()
    twice = pd.Series([1.0, 2.0], ["e1", "e1"])
    with pytest.raises(forget_jax.UserError, match="measured twice"):
        forget_jax.predict_row(z, twice)
