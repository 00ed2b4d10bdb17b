"""Reading and writing the association matrix, and every way a file of one can be wrong."""

import json
from importlib.metadata import version

import numpy as np
import pytest
import xarray as xr

from forget_jax.associations import matrix
from forget_jax.errors import UserError

Z = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]])


def test_zarr_round_trip_keeps_numbers_names_and_sources(tmp_path):
    wanted = matrix.Matrix(Z, ("a/b", "ü"), ("x", "y", "z"), ("c4", "c4", "wiki"))
    matrix.save(tmp_path / "forgetting.zarr", wanted)
    matrix.save(tmp_path / "forgetting.zarr", wanted)  # replaces what is there
    got = matrix.load(tmp_path / "forgetting.zarr")
    np.testing.assert_array_equal(got.z_MxN, Z)
    assert (got.tasks, got.examples, got.sources) == (
        wanted.tasks,
        wanted.examples,
        wanted.sources,
    )


def test_zarr_names_its_metric(tmp_path):
    for metric in ("exact_match", ""):
        wanted = matrix.Matrix(np.eye(2), ("a", "b"), ("x", "y"), metric=metric)
        matrix.save(tmp_path / "m.zarr", wanted)
        assert matrix.load(tmp_path / "m.zarr").metric == metric


def test_xarray_opens_what_is_saved_without_a_warning(tmp_path):
    wanted = matrix.Matrix(Z, ("a", "b"), ("x", "y", "z"), ("c4", "c4", "wiki"), "nll")
    matrix.save(tmp_path / "m.zarr", wanted, "some/base")
    with xr.open_zarr(tmp_path / "m.zarr", chunks=None) as found:  # pytest makes warnings errors
        assert found.forgetting.attrs == {
            "long_name": "forgetting",
            "metric": "nll",
            "units": "nats/token",
        }
        assert found.attrs == {"base": "some/base", "forget_jax": version("forget-jax")}
        frame = found.forgetting.to_pandas()
    assert frame.loc["b", "z"] == 6 and list(frame.columns) == ["x", "y", "z"]


def test_npz_csv_and_json_hold_the_same_matrix(tmp_path):
    np.savez(tmp_path / "m.npz", z=Z, tasks=["a", "b"], examples=["x", "y", "z"])
    (tmp_path / "m.csv").write_text(",x,y,z\na,1,,3\nb,4,5,6\n")
    document = {"arr": [[1, None, 3], [4, 5, 6]], "ocl_tasks": ["a", "b"], "pt_tasks": list("xyz")}
    (tmp_path / "m.json").write_text(json.dumps(document))
    for suffix in ("npz", "csv", "json"):
        got = matrix.load(tmp_path / f"m.{suffix}")
        np.testing.assert_array_equal(got.z_MxN, Z)
        assert (got.tasks, got.examples) == (("a", "b"), ("x", "y", "z"))


def test_rows_by_name_or_number(tmp_path):
    got = matrix.Matrix(Z, ("1", "b"), ("x", "y", "z"))
    assert got.rows(("b", 0)) == [1, 0]
    assert got.rows(("1",)) == [0]  # the name wins over the number
    with pytest.raises(UserError, match="no task 'c'"):
        got.rows(("c",))
    with pytest.raises(UserError, match="no task '2'"):
        got.rows((2,))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.txt", b"", "m.txt: a matrix is a .zarr"),
        ("gone.json", None, "gone.json does not exist"),
        ("m.json", b"[1", "m.json, line 1: not valid JSON"),
        ("m.json", b"[1]", "m.json: holds a list, not a JSON object"),
        ("m.json", b'{"arr": 3}', "arr is a number (3); it must be a list"),
        ("m.json", b'{"arr": [[1, 2], [3]]}', "row 1 has 1 entries, the first has 2"),
        ("m.json", b'{"arr": [["a"]]}', "row 0 holds the text 'a', not only numbers"),
        ("m.json", b'{"arr": [[1, 2]], "tasks": ["a", "b"]}', "1 × 2 matrix with 2 task names"),
        ("m.json", b'{"arr": [[1], [2]], "tasks": ["a", "a"]}', "two tasks are called 'a'"),
        ("m.json", b'{"arr": [[1, 2]], "sources": ["a"]}', "2 examples with 1 sources"),
        ("m.csv", b",x,y\na,1,two\n", "line 2, column 'y': 'two' is not a number"),
        ("m.csv", b"", "no table"),
        ("m.npz", b"not a zip", "not an .npz file"),
        ("m.csv", b",x\na,inf\n", "1 infinite entries"),
        ("m.csv", b",x\na,\n", "holds no known entry"),
    ],
)
def test_a_malformed_file_is_named_with_its_problem(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as e:
        matrix.load(tmp_path / name)
    assert message in str(e.value)
    assert name in str(e.value)
    assert "\n" not in str(e.value)


def test_malformed_stores(tmp_path):
    np.savez(tmp_path / "m.npz", other=Z)
    with pytest.raises(UserError, match="holds no array `z`"):
        matrix.load(tmp_path / "m.npz")
    np.savez(tmp_path / "p.npz", z=np.array([{}], object))
    with pytest.raises(UserError, match=r"not an \.npz file of plain arrays"):
        matrix.load(tmp_path / "p.npz")
    (tmp_path / "m.zarr").mkdir()
    with pytest.raises(UserError, match=r"m.zarr: not a zarr store of a matrix"):
        matrix.load(tmp_path / "m.zarr")
    xr.Dataset({"other": ("task", [1.0])}).to_zarr(tmp_path / "o.zarr", consolidated=False)
    with pytest.raises(UserError, match="no variable `forgetting`"):
        matrix.load(tmp_path / "o.zarr")
    with pytest.raises(UserError, match=r"is written to a \.zarr folder"):
        matrix.save(tmp_path / "m.npz", matrix.Matrix(Z, ("a", "b"), ("x", "y", "z")))
