"""Any bytes are rows or one line, whatever the ending of the file says."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forget_jax.data import sources
from forget_jax.errors import UserError
from tests.fuzz import parquets

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
KEYS = st.sampled_from(
    [
        *("text", "prompt", "completion", "messages", "conversations", "name", "source", "answers"),
        *("role", "content", "from", "value", "data"),
    ]
)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
    | st.sampled_from(["user", "assistant", "human", "gpt", '["a"]', "[", "[1]"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
NAMES = ["text", "prompt", "completion", "messages", "conversations", "answers", "source"]
ROW = st.dictionaries(KEYS, VALUE, max_size=4)
LINES = st.lists(ROW.map(json.dumps), min_size=1, max_size=3).map("\n".join).map(str.encode)
CELL = st.text(max_size=5) | st.sampled_from(['"', '"a', ";", "\t", "\0", "text", "prompt"])
CSV = st.lists(st.lists(CELL, max_size=4).map(",".join), max_size=4).map("\n".join)


@st.composite
def torn(draw):
    data = draw(LINES | CSV.map(lambda text: text.encode("utf-8", "surrogatepass")))
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(max_size=3)) + data[at:]


@pytest.mark.fault("fuzzed rows", "one line")
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet", "txt", "jsonl.gz"])
def test_rows(ending, tmp_path, tried):
    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(torn() | LINES | st.binary(max_size=100))
    def one(data):
        path = tmp_path / f"set.{ending}"
        path.write_bytes(data)
        try:
            sources.load(str(path))
        except UserError as e:
            assert "\n" not in str(e) or "\n" in repr(data)

    one()
    tried(EXAMPLES)


@pytest.mark.fault("fuzzed parquet files", "one line")
def test_parquet_files(tmp_path, tried):
    path = tmp_path / "set.parquet"

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(parquets.files(NAMES))
    def one(data):
        path.write_bytes(data)
        try:
            assert sources.load(str(path))
        except UserError as e:
            assert "\n" not in str(e) and str(path) in str(e)

    one()
    tried(EXAMPLES)
