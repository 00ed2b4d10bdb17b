"""Parquet files of any columns, whole or with some bytes changed."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT})
# Of each type the values that it holds, some of which are none that Python has.
KINDS = {
    pa.string(): TEXT,
    pa.large_string(): TEXT,
    pa.binary(): st.binary(max_size=5),
    pa.int8(): st.integers(-(2**7), 2**7 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.decimal128(20, 3): st.decimals(-(10**9), 10**9, places=3),
    pa.timestamp("ns"): st.integers(-(2**63), 2**63 - 1),
    pa.timestamp("us", "Nowhere/None"): st.integers(-(2**63), 2**63 - 1),
    pa.date32(): st.integers(-(2**31), 2**31 - 1),
    pa.time64("ns"): st.integers(0, 86_399_999_999_999),
    pa.duration("us"): st.integers(-(2**62), 2**62),
    pa.list_(pa.string()): st.lists(TEXT | st.none(), max_size=3),
    pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})): st.lists(TURN, max_size=3),
    pa.struct({"text": pa.list_(pa.string())}): st.fixed_dictionaries(
        {"text": st.lists(TEXT, max_size=2)}
    ),
    pa.map_(pa.string(), pa.int32()): st.lists(st.tuples(TEXT, st.integers(0, 9)), max_size=2),
    pa.dictionary(pa.int8(), pa.string()): TEXT,
    pa.null(): st.none(),
}
STORED = {pa.timestamp("ns"): pa.int64(), pa.timestamp("us", "Nowhere/None"): pa.int64()}
STORED |= {pa.date32(): pa.int32(), pa.time64("ns"): pa.int64(), pa.duration("us"): pa.int64()}


def _array(kind: pa.DataType, values: list) -> pa.Array:
    return (
        pa.array(values, STORED.get(kind, kind)).view(kind)
        if kind in STORED
        else pa.array(values, kind)
    )


@st.composite
def files(draw, names):
    """The bytes of a file whose columns have some of the names; most are whole."""
    count = draw(st.integers(0, 4))
    columns = {}
    for name in draw(st.lists(st.sampled_from(names) | TEXT, max_size=4)):
        kind = draw(st.sampled_from(list(KINDS)))
        values = st.none() | KINDS[kind]
        columns[name] = _array(kind, draw(st.lists(values, min_size=count, max_size=count)))
    out = io.BytesIO()
    compression = draw(st.sampled_from(["none", "snappy", "zstd"]))
    pq.write_table(pa.table(columns), out, compression=compression, row_group_size=2)
    data = out.getvalue()
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        at = draw(st.integers(0, len(data) - 1))
        new = draw(st.binary(max_size=2))
        data = data[:at] + new + data[at + draw(st.integers(0, 2)) :]
    return data
