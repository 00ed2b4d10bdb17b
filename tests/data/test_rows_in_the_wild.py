"""Data files as people have them: the common ones are read, the rest is one line."""

import datetime
import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from forget_jax.data import sources
from forget_jax.data.reading import columns, task_names
from forget_jax.data.settings import Data
from forget_jax.errors import UserError

PAIRS = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(3)]
JSONL = "".join(json.dumps(row) + "\n" for row in PAIRS).encode()
WANTED = [("p0", "c0"), ("p1", "c1"), ("p2", "c2")]
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


def load(tmp_path, name, data, **options):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return sources.load(str(path), **options)


READ = {
    "jsonl.gz": ("set.jsonl.gz", gzip.compress(JSONL, mtime=0)),
    "ndjson": ("set.ndjson", JSONL),
    "tsv": ("set.tsv", b"prompt\tcompletion\np0\tc0\np1\tc1\np2\tc2\n"),
    "csv.gz": ("set.csv.gz", gzip.compress(b"prompt,completion\np0,c0\np1,c1\np2,c2\n", mtime=0)),
    "semicolons": ("set.csv", b"prompt;completion\np0;c0\np1;c1\np2;c2\n"),
    "one object": ("set.json", json.dumps({"version": "1", "data": PAIRS}).encode()),
    "capitals": ("set.JSONL", JSONL),
}


@pytest.mark.fault("rows in the wild", "as it should be")
@pytest.mark.parametrize(("name", "data"), READ.values(), ids=READ)
def test_files_that_are_read(tmp_path, name, data, capsys):
    found = load(tmp_path, name, data)
    assert [(e.prompt, e.completion) for e in found] == WANTED
    assert [e.name for e in found] == ["set#0", "set#1", "set#2"]
    said = capsys.readouterr().err
    assert (";" in data.decode("latin-1") and name == "set.csv") == ("semicolons" in said)
    assert (name == "set.json") == ("its rows are the list 'data'" in said)


TURNS = {
    "ShareGPT": {"conversations": SHAREGPT},
    "ShareGPT's turns as messages": {"messages": SHAREGPT},
    "developer": {"messages": [{"role": "developer", "content": "s"}, *TALK]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, TALK[1]]},
    "a tool": {"messages": [{"role": "function", "content": "s"}, *TALK]},
    "TRL's pairs": {"prompt": TALK[:1], "completion": TALK[1:]},
    "a text and turns": {"prompt": "a", "completion": TALK[1:]},
    "turns and a text": {"prompt": TALK[:1], "completion": "b"},
    "column-wise": {"messages": {"role": ["user", "assistant"], "content": ["a", "b"]}},
}


@pytest.mark.fault("rows in the wild", "as it should be")
@pytest.mark.parametrize("row", TURNS.values(), ids=TURNS)
def test_conversations_that_are_read(tmp_path, row):
    (example,) = load(tmp_path, "set.jsonl", row)
    assert example.messages[-2:] == (("user", "a"), ("assistant", "b"))
    assert len(example.messages) == 2 or example.messages[0][0] in ("system", "tool")


@pytest.mark.fault("rows in the wild", "as it should be")
@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"instruction": "do", "input": "this", "output": "x"}, "do\n\nthis"),
        ({"instruction": "do", "input": "", "output": "x", "text": None}, "do"),
        ({"instruction": "do", "output": "x"}, "do"),
    ],
)
def test_rows_as_alpaca_has_them(tmp_path, row, prompt, capsys):
    (example,) = load(tmp_path, "set.jsonl", row)
    assert (example.prompt, example.completion) == (prompt, "x")
    assert "reads instruction and input as prompt, output as completion" in capsys.readouterr().err


@pytest.mark.fault("rows in the wild", "as it should be")
def test_answers_in_a_prompt_are_said(tmp_path, capsys):
    load(tmp_path, "talk.jsonl", {"prompt": [*TALK, TALK[0]], "completion": TALK[1:]})
    assert "data.targets=last" in capsys.readouterr().err


@pytest.mark.fault("rows in the wild", "as it should be")
def test_calls_of_tools_are_said(tmp_path, capsys):
    calls = {"role": "assistant", "content": "b", "tool_calls": [{"function": {"name": "f"}}]}
    (example,) = load(tmp_path, "calls.jsonl", {"messages": [TALK[0], calls]})
    assert example.messages[1] == ("assistant", "b")
    assert "tool_calls in 1 row, which are not read" in capsys.readouterr().err


WRONG_TURNS = {
    "one turn": {"role": "user", "content": "a"},
    "uneven columns": {"role": ["user"], "content": ["a", "b"]},
    "null columns": {"role": None, "content": ["a"]},
    "nested parts": [{"role": "assistant", "content": [[{"text": "a"}]]}],
    "parts of numbers": [{"role": "assistant", "content": [1]}],
    "no parts": [{"role": "assistant", "content": []}],
    "a role that is a list": [{"role": ["user"], "content": "a"}],
    "an unknown role": [{"role": "robot", "content": "a"}],
    "a turn that is text": ["a"],
    "calls alone": [{"role": "assistant", "content": None, "tool_calls": [{}]}],
    "nothing": [],
    "a number": 7,
}


@pytest.mark.fault("rows in the wild", "one line")
@pytest.mark.parametrize("turns", WRONG_TURNS.values(), ids=WRONG_TURNS)
def test_conversations_that_are_none(tmp_path, turns):
    with pytest.raises(UserError, match=r"set\.jsonl, line 1") as e:
        load(tmp_path, "set.jsonl", {"messages": turns})
    assert "\n" not in str(e.value)


@pytest.mark.fault("rows in the wild", "as it should be")
def test_answers_that_are_a_list_in_json_text(tmp_path, capsys):
    """As in PopQA's own column; a question without an answer has an empty one."""
    row = {"prompt": "q", "completion": '["politician", "political leader"]'}
    (example,) = load(tmp_path, "set.jsonl", row)
    assert "empty" not in capsys.readouterr().err
    assert example.completion == "politician"
    assert example.answers == ("politician", "political leader")
    (kept,) = load(tmp_path, "set.jsonl", {"prompt": "q", "completion": "[1, 2"})
    assert kept.completion == "[1, 2"
    squad = {"question": "q", "answers": {"text": [], "answer_start": []}}
    mapped = {"prompt": "question", "completion": "answers.text", "answers": "answers.text"}
    (none,) = load(tmp_path, "set.jsonl", squad, columns=mapped)
    assert none.completion == "" and none.answers == ()
    assert "an empty list in 1 row:" in capsys.readouterr().err


@pytest.mark.fault("rows in the wild", "as it should be")
@pytest.mark.parametrize("source", [{"url": "x"}, ["a"], 1.5, True, None])
def test_a_column_that_means_something_else_is_left(tmp_path, source):
    (example,) = load(tmp_path, "set.jsonl", {"text": "a b", "source": source})
    assert example.source == "set"
    if source is not None:
        with pytest.raises(UserError, match="source is"):
            load(
                tmp_path, "set.jsonl", {"text": "a", "source": source}, columns={"source": "source"}
            )


@pytest.mark.fault("rows in the wild", "as it should be")
def test_a_field_can_be_switched_off(tmp_path):
    switched = columns(Data(columns=("source=", "prompt=question")))
    assert switched == {"source": "", "prompt": "question"}
    row = {"text": "a", "source": "web"}
    assert load(tmp_path, "set.jsonl", row)[0].source == "web"
    assert load(tmp_path, "set.jsonl", row, columns={"source": ""})[0].source == "set"


def parquet(path, **arrays):
    pyarrow.parquet.write_table(pa.table(arrays), path)
    return str(path)


@pytest.mark.fault("rows in the wild", "as it should be")
def test_parquet_columns_that_nobody_asked_for_stop_nothing(tmp_path):
    late = pa.array([10**15], pa.timestamp("ms"))  # beyond Python's year 9999
    torn = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    )
    path = parquet(tmp_path / "set.parquet", text=["a b"], late=late, torn=torn)
    assert sources.load(path)[0].text == "a b"
    for column in ("late", "torn"):
        with pytest.raises(UserError, match=rf"row 0: column '{column}' cannot be read"):
            sources.load(path, columns={"text": column})


@pytest.mark.fault("rows in the wild", "one line")
@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("set.csv", b"text,text\na,b\n", "two columns are called 'text'"),
        ("set.jsonl.gz", b"no gzip", r"not a readable \.gz file"),
        ("set.jsonl.gz", gzip.compress(JSONL, mtime=0)[:-9], r"not a readable \.gz file"),
        ("set.xlsx", b"", "is neither a file ending in"),
        ("set.gz", b"", "is neither a file ending in"),
        (
            "set.json",
            b'{"a": [{"text": "x"}], "b": [{"text": "y"}]}',
            "holds several lists of rows",
        ),
        ("set.jsonl", "[" * 9999, "nested too deep"),
        ("set.jsonl", '{"text": "a"}'.encode("utf-16"), "UTF-16"),
        ("set.jsonl", b'{"text": ' + b"9" * 5000 + b"}", "thousands of digits"),
        ("set.jsonl", b'{"prompt": "a", "completion": 12345678901234567890123}', "a number"),
    ],
)
def test_one_line(tmp_path, name, data, said):
    with pytest.raises(UserError, match=said) as e:
        load(tmp_path, name, data if isinstance(data, bytes) else data.encode())
    assert "\n" not in str(e.value)


@pytest.mark.fault("rows in the wild", "one line")
def test_two_parquet_columns_of_one_name(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "set.parquet")
    with pytest.raises(UserError, match="two columns are called 'text'"):
        sources.load(str(tmp_path / "set.parquet"))


@pytest.mark.fault("paths", "one line")
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("http://host/a.jsonl", "http:// is not read"),
        ("file:///a.jsonl", "file:// is not read"),
        ("a\0b.jsonl", "no path is of this kind"),
        ("a" * 9000 + ".jsonl", "no path is of this kind"),
        ("a" * 300 + ".jsonl", "cannot read|does not exist"),
        ("~nobody_at_all/a.jsonl", "does not exist|home"),
    ],
)
def test_paths_that_cannot_be(path, said):
    with pytest.raises(UserError, match=said) as e:
        sources.load(path)
    assert "\n" not in str(e.value)


@pytest.mark.fault("names of tasks", "as it should be")
@pytest.mark.parametrize(
    ("specs", "names"),
    [
        (["squad/train.jsonl", "piqa/train.jsonl"], ["squad/train", "piqa/train"]),
        (["alpaca-0.5.jsonl", "alpaca-0.9.jsonl"], ["alpaca-0.5", "alpaca-0.9"]),
        (["/a/b/train.jsonl.gz", "/c/b/train.csv[3:9]"], ["a/b/train", "c/b/train"]),
        (["x/train.jsonl", "other.v1.json"], ["train", "other.v1"]),
        (["a.jsonl", "a.jsonl"], ["a", "a"]),
        (["/x/y/a.jsonl[0:3]", "/x/y/a.jsonl[3:6]"], ["a", "a"]),
        (["/x/y/a.jsonl[:3]", "/x/z/a.jsonl", "/x/y/a.jsonl[3:]"], ["y/a", "z/a", "y/a"]),
        (["NA.jsonl", "007.csv", "builtin:facts/B"], ["NA", "007", "facts/B"]),
    ],
)
def test_names_of_tasks_take_as_much_of_the_path_as_it_takes(specs, names):
    assert task_names(specs) == names


def test_a_date_is_no_text(tmp_path):
    path = parquet(tmp_path / "set.parquet", text=[datetime.date(2020, 1, 1)])
    with pytest.raises(UserError, match="text is of type date, not text"):
        sources.load(path)
