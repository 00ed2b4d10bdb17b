"""JSON from outside: a value, or one line that says what is wrong and where."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax import foreign
from forget_jax.errors import UserError

DOCUMENTS = {
    "nested deep": b"[" * 100_000,
    "objects nested deep": b'{"a":' * 100_000,
    "a number of 5,000 digits": b"[" + b"9" * 5000 + b"]",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-32": '{"a": 1}'.encode("utf-32"),
    "Latin-1": '{"a": "é"}'.encode("latin-1"),
    "cut short": b'{"a": 1',
    "nothing": b"",
    "two documents": b"{} {}",
    "a single quote": b"{'a': 1}",
}


@pytest.mark.fault("JSON from outside", "one line")
@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_what_is_no_json_is_one_line(document: bytes) -> None:
    with pytest.raises(UserError, match=r"^a\.json") as e:
        foreign.parse(document, "a.json")
    assert "\n" not in str(e.value)


def test_lines_are_counted_from_where_the_text_begins() -> None:
    with pytest.raises(UserError, match=r"a\.json, line 12: not valid JSON"):
        foreign.parse('{"a":\n1,}', "a.json", 11)
    with pytest.raises(UserError, match=r"a\.json, line 3: not UTF-8 text \(byte 0xe9\)"):
        foreign.parse('\n{"a":\n "é"}'.encode("latin-1"), "a.json")


@pytest.mark.fault("JSON from outside", "one line")
@pytest.mark.parametrize("value", [[], 1, "x", True, 1.5, 10**5000], ids=foreign.in_words)
def test_what_is_no_object(value: object) -> None:
    with pytest.raises(UserError, match=r"^a\.json: holds .*, not a JSON object$"):
        foreign.record(value, "a.json")


WRONG = {
    int: [None, 8.5, "8", True, [], {}, float("nan"), float("inf"), 10**30, 10**5000],
    float: [None, "1", False, [], {}, float("nan"), float("-inf"), 10**5000],
    bool: [None, 0, 1, "true", []],
    str: [None, 1, [], {}, True],
    list: [None, "a,b", {}, 1],
    dict: [None, "a", [], 1],
}


@pytest.mark.fault("fields of JSON from outside", "one line")
@pytest.mark.parametrize(
    ("kind", "value"),
    [(kind, value) for kind, values in WRONG.items() for value in values],
    ids=lambda x: x.__name__ if isinstance(x, type) else foreign.in_words(x),
)
def test_a_field_of_another_type(kind: type, value: object) -> None:
    with pytest.raises(UserError, match=r"^a\.json: r is "):
        foreign.field({"r": value}, "r", kind, "a.json")


def test_a_name_with_the_end_of_a_line_is_still_one_line() -> None:
    with pytest.raises(UserError, match=r"p\.json: +is false") as found:
        foreign.field({"\n": False}, "\n", list, "p.json")
    assert len(str(found.value).splitlines()) == 1


def test_a_field_that_fits() -> None:
    held = {"n": 8, "x": 1, "whole": 8.0, "null": None, "ok": False, "word": "b"}
    assert foreign.field(held, "n", int, "a") == 8
    assert foreign.field(held, "whole", int, "a") == 8
    assert type(foreign.field(held, "x", float, "a")) is float
    assert foreign.field(held, "null", int, "a", 3) == foreign.field(held, "gone", int, "a", 3) == 3
    assert foreign.field(held, "ok", bool, "a") is False
    assert foreign.field(held, "word", str, "a") == "b"


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"least": 9}, "9 or more"),
        ({"most": 7}, "7 or less"),
    ],
)
def test_a_field_out_of_its_bounds(bounds: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=rf"^a: n is a number \(8\); it must be {said}$"):
        foreign.field({"n": 8}, "n", int, "a", **bounds)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_value_or_one_line(data: bytes) -> None:
    try:
        json.dumps(foreign.parse(data, "a.json"))
    except UserError as e:
        assert str(e).startswith("a.json")
