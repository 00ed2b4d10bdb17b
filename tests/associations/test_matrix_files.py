"""Matrices as people have them: names stay text, and what is wrong is one line, at once."""

import io
import json
import zipfile

import numpy as np
import pytest

from forget_jax.associations import matrix
from forget_jax.errors import UserError

NAMES = ("NA", "null", "007", "08", "false", "1e5", " x")


@pytest.mark.fault("names in matrix files", "as it should be")
@pytest.mark.parametrize("suffix", ["csv", "json", "npz", "npz bytes", "zarr"])
def test_names_are_text_as_written(tmp_path, suffix):
    z = np.arange(14.0).reshape(7, 2)
    path = tmp_path / f"m.{suffix.split()[0]}"
    if suffix == "csv":
        rows = [",a,b", *(f"{name},{x},{y}" for name, (x, y) in zip(NAMES, z, strict=True))]
        path.write_text("\n".join(rows))
    elif suffix == "json":
        path.write_text(json.dumps({"arr": z.tolist(), "tasks": NAMES}))
    elif suffix == "zarr":
        matrix.save(path, matrix.Matrix(z, NAMES, ("a", "b")))
    else:
        np.savez(path, z=z, tasks=np.array(NAMES, "S5" if "bytes" in suffix else "U5"))
    assert matrix.load(path).tasks == NAMES


@pytest.mark.fault("names in matrix files", "as it should be")
def test_missing_entries_of_a_csv_are_nan(tmp_path):
    (tmp_path / "m.csv").write_text(",x,y,z\na,1,,NA\nb,nan,2,-\n")
    got = matrix.load(tmp_path / "m.csv").z_MxN
    np.testing.assert_array_equal(got, [[1, np.nan, np.nan], [np.nan, 2, np.nan]])


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def claiming(shape):
    """An .npz whose array's header claims a shape that its bytes do not have."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("z.npy", header.getvalue() + b"\0" * 16)
    return file.getvalue()


def npy():
    file = io.BytesIO()
    np.save(file, np.ones((2, 2)))
    return file.getvalue()


Z = np.ones((2, 3))
WRONG = {
    "two columns of one name": ("m.csv", b",x,x\na,1,2\n", "two examples are called 'x'"),
    "two rows of one name": ("m.csv", b",x,y\na,1,2\na,3,4\n", "two tasks are called 'a'"),
    "no column of names": ("m.csv", b"x,y,z\n1,2,3\n4,5,6\n", "must name the tasks"),
    "text": ("m.csv", b",x,y\na,1,b\n", "line 2, column 'y': 'b' is not a number"),
    "a short row": ("m.csv", b",x,y\na,1\n", "line 2: has 2 cells, the header 3"),
    "a header only": ("m.csv", b",x,y\n", "has a header and no row"),
    "Latin-1": ("m.csv", ",é\na,1\n".encode("latin-1"), "line 1: not UTF-8"),
    "UTF-16": ("m.csv", ",x\na,1\n".encode("utf-16"), "is UTF-16 text"),
    "an open quote": ("m.csv", b',x\n"a,1\n', "not valid CSV"),
    "text in JSON": ("m.json", b'{"arr": [["1"]]}', "row 0 holds the text '1'"),
    "a huge number": ("m.json", b'{"arr": [[1' + b"0" * 400 + b"]]}", "beyond every float"),
    "nested deep": ("m.json", b'{"arr": ' + b"[" * 9999, "nested too deep"),
    "names that are lists": ("m.json", b'{"arr": [[1]], "tasks": [[1]]}', "name 0 is a list"),
    "names that are one text": ("m.json", b'{"arr": [[1]], "tasks": "a"}', "not a list of names"),
    "an .npy": ("m.npz", npy(), "not an .npz file"),
    "8 TB": ("m.npz", claiming((1000, 10**9)), "claims 8000000000000 bytes and has"),
    "beyond 64 bits": ("m.npz", claiming((10**15, 10**15)), "claims"),
    "entries that are text": ("m.npz", npz(z=np.array([["1", "2"]])), "does not hold numbers"),
    "dates": ("m.npz", npz(z=np.array([["2020-01-01"]], "M8[D]")), "does not hold numbers"),
    "names in two dimensions": ("m.npz", npz(z=Z, tasks=np.array([["a", "b"]])), "2-dimensional"),
    "names that are fractions": ("m.npz", npz(z=Z, tasks=np.array([0.5, 1.5])), "float64"),
    "three dimensions": ("m.npz", npz(z=np.ones((2, 2, 2))), "must have tasks as rows"),
    "a folder": ("m.npz/", b"", "cannot be read"),
}  # fmt: skip


@pytest.mark.fault("matrix files", "one line")
@pytest.mark.parametrize(("name", "content", "said"), WRONG.values(), ids=WRONG)
def test_one_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.mkdir() if name.endswith("/") else path.write_bytes(content)
    with pytest.raises(UserError) as e:
        matrix.load(path)
    assert said in str(e.value) and str(path) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.fault("matrix files", "one line")
@pytest.mark.parametrize("name", ["a\0b.csv", "a" * 5000 + ".csv"])
def test_a_path_that_cannot_be(name):
    with pytest.raises(UserError):
        matrix.load(name)


@pytest.mark.fault("matrix files", "one line")
def test_damaged_chunks_of_a_store(tmp_path):
    """Every file of the store, cut short or overwritten: a line, or the same matrix."""
    z = np.random.default_rng(0).normal(size=(4, 50))
    names = [tuple(f"{kind}{i}" for i in range(n)) for kind, n in (("t", 4), ("e", 50))]
    path = tmp_path / "m.zarr"
    matrix.save(path, matrix.Matrix(z, *names))
    tried = 0
    for file in sorted(f for f in path.rglob("*") if f.is_file()):
        whole = file.read_bytes()
        for damaged in (whole[: len(whole) // 2], b"\xff" * len(whole), b""):
            file.write_bytes(damaged)
            tried += 1
            try:
                matrix.load(path)
            except UserError as e:
                assert str(path) in str(e)
        file.write_bytes(whole)
    np.testing.assert_array_equal(matrix.load(path).z_MxN, z)
    assert tried > 10
