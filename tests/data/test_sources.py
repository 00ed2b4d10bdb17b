"""Files of every kind become the same examples, and every mistake in one is a clear line."""

import csv
import dataclasses
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forget_jax.data import sources
from forget_jax.data.examples import Example
from forget_jax.data.rows import row_of
from forget_jax.errors import UserError


def write(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def jsonl(folder, rows, name="set.jsonl"):
    return write(folder, name, "".join(json.dumps(row) + "\n" for row in rows))


def fails(spec, *needles, **options):
    with pytest.raises(UserError) as caught:
        sources.load(spec, **options)
    message = str(caught.value)
    assert "\n" not in message
    for needle in needles:
        assert needle in message, message


ROWS = [{"prompt": f"p {i}", "completion": f"c, {i}", "source": f"s{i % 2}"} for i in range(9)]


def test_every_file_kind_gives_the_same_examples(tmp_path):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROWS[0]))
    writer.writeheader()
    writer.writerows(ROWS)
    write(tmp_path, "set.csv", "\ufeff" + text.getvalue())
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "set.parquet")
    write(tmp_path, "set.json", json.dumps(ROWS, indent=1))
    jsonl(tmp_path, ROWS)
    (tmp_path / "lines").mkdir()
    jsonl(tmp_path / "lines", ROWS, "set.json")  # JSON lines under a .json name
    wanted = [
        Example(f"set#{i}", row["source"], prompt=row["prompt"], completion=row["completion"])
        for i, row in enumerate(ROWS)
    ]
    for name in ("set.jsonl", "set.json", "set.csv", "set.parquet", "lines/set.json"):
        assert sources.load(str(tmp_path / name)) == wanted, name


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(words, words, st.lists(words, max_size=3)), min_size=1, max_size=5))
def test_jsonl_round_trip(tmp_path, rows):
    path = jsonl(tmp_path, [dict(zip("pca", row, strict=True)) for row in rows])
    columns = {"prompt": "p", "completion": "c", "answers": "a"}
    loaded = sources.load(path, columns=columns)
    assert [(e.prompt, e.completion, list(e.answers)) for e in loaded] == rows


def test_text_messages_and_names(tmp_path):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    path = jsonl(
        tmp_path,
        [
            {"name": "first", "text": " a "},
            {"messages": turns},
            {"messages": json.dumps(turns), "text": None},
            {"id": 7, "text": "b"},
        ],
    )
    first, second, third, fourth = sources.load(path)
    assert first == Example("first", "set", text=" a ")
    assert second == Example("set#1", "set", messages=(("user", "hi"), ("assistant", "yes")))
    assert third.messages == second.messages
    assert fourth.name == "set#3"


def test_columns_reach_into_objects_and_take_lists_of_answers(tmp_path):
    path = jsonl(
        tmp_path,
        [
            {"q": "Who?", "answer": {"value": "me", "aliases": ["I", "me"]}, "text": "unused"},
            {"q": "Who?", "answer": {"value": ["you", "thou"], "aliases": '["ye", "you"]'}},
        ],
    )
    columns = {"prompt": "q", "completion": "answer.value", "answers": "answer.aliases"}
    one, two = sources.load(path, columns=columns)
    assert (one.completion, one.answers, one.text) == ("me", ("I", "me"), None)
    assert (two.completion, two.answers) == ("you", ("you", "thou", "ye"))


def test_blank_text_is_passed_over_and_empty_completions_are_kept(tmp_path):
    path = jsonl(tmp_path, [{"text": ""}, {"text": "a"}, {"text": " \n"}, {"text": "b"}])
    assert [e.name for e in sources.load(path, skip=1)] == ["set#3"]
    assert sources.load(jsonl(tmp_path, [{"prompt": "p", "completion": ""}]))[0].completion == ""
    fails(jsonl(tmp_path, [{"text": " "}]), "is empty", "blank")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 30), st.integers(0, 30), st.integers(1, 30), st.none() | st.integers(0, 9))
def test_skip_and_limit_give_disjoint_slices(tmp_path, count, skip, limit, seed):
    path = jsonl(tmp_path, [{"text": str(i)} for i in range(count)])
    everything = sources.load(path, seed=seed)
    assert sorted(int(e.text) for e in everything) == list(range(count))
    assert all(e.name == f"set#{e.text}" for e in everything)
    if skip >= count:
        fails(path, f"skip={skip} leaves nothing of its {count} examples", skip=skip, seed=seed)
        return
    assert sources.load(path, skip=skip, limit=limit, seed=seed) == everything[skip : skip + limit]


def test_shuffle_depends_on_the_seed_alone(tmp_path):
    path = jsonl(tmp_path, [{"text": str(i)} for i in range(50)])
    order = [e.text for e in sources.load(path, seed=3)]
    assert order == [e.text for e in sources.load(path, seed=3)]
    assert order != [e.text for e in sources.load(path, seed=4)]
    assert order != sorted(order, key=int)


def test_a_bad_limit_or_skip(tmp_path):
    path = jsonl(tmp_path, ROWS)
    fails(path, "limit is 0", limit=0)
    fails(path, "skip is -1", skip=-1)


def test_missing_files_name_the_nearest(tmp_path):
    jsonl(tmp_path, ROWS, "train.jsonl")
    fails(str(tmp_path / "trian.jsonl"), "does not exist", "did you mean train.jsonl?")
    fails(str(tmp_path / "no" / "train.jsonl"), "does not exist", "there is no folder")
    fails(str(tmp_path), "is a folder", "hf:")
    fails("wikitext", "wikitext", ".jsonl", "hf:NAME", "builtin:NAME")
    fails(write(tmp_path, "set.xml", "a\tb\n"), ".csv")


def test_empty_files(tmp_path):
    for name, content in [
        ("a.jsonl", "\n\n"),
        ("a.json", "[]"),
        ("b.json", ""),
        ("a.csv", "text\n"),
        ("a.txt", " \n"),
    ]:
        fails(write(tmp_path, name, content), "is empty", name)
    pyarrow.parquet.write_table(pyarrow.table({"text": []}), tmp_path / "a.parquet")
    fails(str(tmp_path / "a.parquet"), "is empty")


def test_broken_files_name_file_and_line(tmp_path):
    good = b'{"text": "a"}\n'
    fails(write(tmp_path, "a.jsonl", good + b"\n{'text'\n"), "a.jsonl, line 3", "not valid JSON")
    fails(write(tmp_path, "a.jsonl", good + b"[1]\n"), "line 2", "not a JSON object")
    fails(write(tmp_path, "a.jsonl", good + b'{"text": "\xff"}'), "line 2", "not UTF-8", "0xff")
    fails(write(tmp_path, "a.txt", b"one\ntwo\nthr\xe9e\n"), "a.txt, line 3", "not UTF-8")
    fails(write(tmp_path, "a.json", '[{"text": "a"},\n oops]'), "a.json, line 2", "not valid JSON")
    fails(write(tmp_path, "a.json", "[1]"), "row 0", "not a JSON object")
    fails(write(tmp_path, "a.csv", "text,name\na,b,c\n"), "a.csv, line 2", "2 columns")
    fails(write(tmp_path, "a.csv", 'text\n"a"b\n'), "a.csv, line 2", "not valid CSV")
    fails(write(tmp_path, "a.parquet", "no parquet"), "a.parquet", "not a readable parquet file")


@pytest.mark.parametrize(
    ("row", "needles"),
    [
        ({"prompt": "p", "response": "r"}, ["completion is missing", "prompt, response"]),
        ({"prompt": "p", "completion": None}, ["completion is null"]),
        ({"completion": "c"}, ["prompt is missing"]),
        ({"question": "q"}, ["neither text", "question"]),
        ({"prompt": "p", "completion": 3}, ["completion is a number (3), not text"]),
        ({"prompt": "p", "completion": True}, ["completion is true"]),
        ({"text": {"a": 1}}, ["text is an object, not text"]),
        ({"text": "a\ud800"}, ["\\ud800", "no character"]),
        (
            {"text": "a", "prompt": "p", "completion": "c"},
            ["text as well as prompt and completion"],
        ),
        ({"messages": []}, ["messages is not a list"]),
        ({"messages": [{"role": "user", "content": "a"}]}, ["no assistant turn"]),
        ({"messages": [{"role": "bot", "content": "a"}]}, ["message 0", "'bot'", "assistant"]),
        ({"messages": [{"from": "user"}]}, ["message 0", "needs role and content"]),
    ],
)
def test_bad_rows_name_file_row_and_columns(tmp_path, row, needles):
    good = {"prompt": "p", "completion": "c"}
    fails(jsonl(tmp_path, [good, row]), "set.jsonl, line 2", *needles)


def test_bad_columns(tmp_path):
    path = jsonl(tmp_path, [{"question": "q", "answer": "a"}])
    fails(path, "'promt' is not a field", "did you mean prompt?", columns={"promt": "question"})
    fails(
        path,
        "no column 'qestion'",
        "question, answer",
        "did you mean question?",
        columns={"prompt": "qestion", "completion": "answer"},
    )


def test_columns_decide_between_forms(tmp_path):
    path = jsonl(tmp_path, [{"text": "a", "prompt": "p", "completion": "c"}])
    assert sources.load(path, columns={"text": "text"})[0].prompt is None
    assert sources.load(path, columns={"prompt": "prompt"})[0].text is None


def test_duplicate_names_name_both_rows(tmp_path):
    path = jsonl(tmp_path, [{"name": n, "text": "a"} for n in ("x", "y", "x")])
    for seed in (None, 0, 1):
        fails(path, "line 3", "'x'", "line 1", seed=seed)


def test_a_column_may_be_null_where_it_is_optional(tmp_path):
    table = pyarrow.table({"text": ["a", "b"], "name": ["n", None], "answers": [["x"], None]})
    pyarrow.parquet.write_table(table, tmp_path / "set.parquet")
    one, two = sources.load(str(tmp_path / "set.parquet"))
    assert (one.name, one.answers, two.name, two.answers) == ("n", ("x",), "set#1", ())


def test_long_csv_cells(tmp_path):
    path = write(tmp_path, "a.csv", "text\n" + "word " * 50_000 + "\n")
    assert len(sources.load(path)[0].text) == 250_000


@pytest.mark.parametrize(
    "example",
    [
        Example("a#1", "a", text="A line\u2028and another"),
        Example("b", "s", prompt="Q", completion="", answers=("x", "y")),
        Example("c", "s", prompt="", completion='["no list", "but text"]', answers=("z",)),
        Example("d", "s", messages=(("user", "Hi"), ("assistant", "Hello"))),
    ],
)
def test_a_kept_row_is_read_as_the_same_example(example, tmp_path):
    path = tmp_path / "kept.jsonl"
    path.write_text(json.dumps(row_of(example), ensure_ascii=False) + "\n")
    (found,) = sources.load(str(path))
    answers = found.answers if example.completion is None else example.answers
    assert dataclasses.replace(found, answers=answers) == example
