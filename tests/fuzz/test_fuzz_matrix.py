"""Any bytes are a matrix or one line, whatever their ending says."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forget_jax.associations import matrix
from forget_jax.errors import UserError
from forget_jax.scaling import tables
from tests.fuzz import parquets

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
CELL = st.sampled_from(
    ["", "1", "-2.5", "nan", "NA", "inf", "1e400", "x", "007", '"', '"a', "é", "\0", "1_0", "0x1"]
) | st.text(max_size=4)
CSV = st.lists(st.lists(CELL, max_size=5).map(",".join), max_size=6).map("\n".join).map(str.encode)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(["arr", "tasks", "ocl_tasks", "pt_tasks", "examples", "sources", "P", "l_f"])


@st.composite
def documents(draw):
    import json

    held = draw(st.dictionaries(KEYS, VALUE, max_size=4) | VALUE)
    text = json.dumps(held).encode()
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=3)) + text[at:]
    return text


BYTES = CSV | documents() | st.binary(max_size=200)


@pytest.mark.fault("fuzzed matrix files", "one line")
@pytest.mark.parametrize("ending", ["csv", "json", "npz"])
def test_matrices(ending, tmp_path, tried):
    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(BYTES)
    def one(data):
        path = tmp_path / f"m.{ending}"
        path.write_bytes(data)
        try:
            matrix.load(path)
        except UserError as e:
            assert "\n" not in str(e) and str(path) in str(e)

    one()
    tried(EXAMPLES)


@pytest.mark.fault("fuzzed tables of points", "one line")
@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "parquet"])
def test_points(ending, tmp_path, tried):
    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(BYTES)
    def one(data):
        path = tmp_path / f"p.{ending}"
        path.write_bytes(data)
        try:
            tables.read(path)
        except UserError as e:
            assert "\n" not in str(e) and str(path) in str(e)

    one()
    tried(EXAMPLES)


@pytest.mark.fault("fuzzed tables of points", "one line")
def test_points_in_parquet(tmp_path, tried):
    path = tmp_path / "p.parquet"

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(parquets.files(["P", "steps", "l_ft", "l_f", "kl", "run"]))
    def one(data):
        path.write_bytes(data)
        try:
            tables.read(path)
        except UserError as e:
            assert "\n" not in str(e)

    one()
    tried(EXAMPLES)
