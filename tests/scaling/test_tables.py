"""Tables of points as people have them: numbers, or one line that says what is wrong."""

import json

import numpy as np
import pandas as pd
import pytest

from forget_jax import scaling
from forget_jax.errors import UserError
from forget_jax.scaling import tables

COLUMNS = {"P": [1.0, 2.0, 4.0, 8.0], "steps": [10.0, 20.0, 40.0, 80.0], "l_f": [1, 1.5, 2, 2.5]}


@pytest.mark.parametrize("suffix", ["csv", "json", "columns.json", "jsonl", "parquet"])
def test_every_format_gives_the_same_points(tmp_path, suffix):
    table, path = pd.DataFrame(COLUMNS), tmp_path / f"points.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False)
    elif suffix == "parquet":
        table.to_parquet(path)
    elif suffix == "columns.json":
        path.write_text(json.dumps(COLUMNS))
    else:
        table.to_json(path, orient="records", lines=suffix == "jsonl")
    pd.testing.assert_frame_equal(tables.read(path), table, check_dtype=False)


def test_missing_cells_are_nan_and_names_stay_text(tmp_path):
    (tmp_path / "p.csv").write_text("task,P,l_f\n007,1,\nNA,2,3\n")
    got = tables.read(tmp_path / "p.csv")
    assert np.isnan(got["l_f"][0]) and got["P"].tolist() == [1, 2]


WRONG = {
    "empty": ("p.csv", b"", "holds no points"),
    "a header only": ("p.csv", b"P,steps\n", "holds no points"),
    "Latin-1": ("p.csv", "P,é\n1,2\n".encode("latin-1"), "not UTF-8"),
    "a row too long": ("p.csv", b"P,steps\n1,2,3\n", "line 2: has 3 cells, the header 2"),
    "a row too short": ("p.csv", b"P,steps\n1,2\n1\n", "line 3: has 1 cells, the header 2"),
    "two columns of one name": ("p.csv", b"P,P\n1,2\n", "two columns are called 'P'"),
    "broken JSON": ("p.json", b"[{", "line 1: not valid JSON"),
    "a scalar": ("p.json", b"3", "holds a number (3), not a list of points"),
    "uneven columns": ("p.json", b'{"P": [1], "steps": [1, 2]}', "not of equal length"),
    "a point that is a list": ("p.json", b"[[1, 2]]", "row 0: holds a list, not a JSON object"),
    "a nested point": ("p.json", b'[{"P": [1]}]', "row 0: P is a list"),
    "beyond 64 bits": ("p.json", b'[{"P": 1' + b"0" * 30 + b"}]", "beyond 64 bits"),
    "broken JSON lines": ("p.jsonl", b'{"P": 1}\n{"P": \n', "line 2: not valid JSON"),
    "no parquet": ("p.parquet", b"PAR1xxxx", "not a readable parquet file"),
    "another ending": ("p.xlsx", b"", "a table of points is a .csv"),
    "a folder": ("p.csv/", b"", "cannot be read"),
}


@pytest.mark.fault("tables of points", "one line")
@pytest.mark.parametrize(("name", "content", "said"), WRONG.values(), ids=WRONG)
def test_one_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.mkdir() if name.endswith("/") else path.write_bytes(content)
    with pytest.raises(UserError) as e:
        tables.read(path)
    assert said in str(e.value) and str(path) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.fault("tables of points", "one line")
@pytest.mark.parametrize("law", ["constant", "linear", "power_N"])
@pytest.mark.parametrize("P", [0.0, -1.0, float("nan")])
def test_a_size_that_cannot_be_is_wrong_for_every_law(law, P):
    points = {**{k: list(v) for k, v in COLUMNS.items()}, "l_ft": [1.0, 2.0, 3.0, 4.5]}
    points["P"][2] = P
    with pytest.raises(UserError, match=r"P.*row 2"):
        scaling.fit(law, points)


@pytest.mark.fault("tables of points", "one line")
def test_text_is_named_with_its_row():
    points = pd.DataFrame({**COLUMNS, "P": ["1", "2", "many", "8"]})
    with pytest.raises(UserError, match="column 'P' is not numeric: row 2 holds 'many'"):
        scaling.fit("power_N", points)
