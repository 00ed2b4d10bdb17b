"""Tokenizers that fail: at loading or at a text, in one line that names both."""

import json

import pytest

from forget_jax.data.examples import Example
from forget_jax.data.tokenise import Template, encode
from forget_jax.errors import UserError
from forget_jax.lm.hf import tokenizer as tk
from forget_jax.scoring.exact_match import spoken

WORDS = {"a": 0, "cat": 1, "</s>": 2}
PIECES = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
}
SPACES = {"type": "Whitespace"}
SLOW = {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated", "invert": False}
LETTERS = {"type": "BPE", "vocab": {"a": 0, "b": 1, "</s>": 2}, "merges": []}
FAILING = {
    "WordPiece": (PIECES | {"vocab": WORDS}, SPACES, "UNK"),
    "WordLevel": ({"type": "WordLevel", "vocab": WORDS, "unk_token": "[UNK]"}, SPACES, "UNK"),
    "Unigram": (
        {"type": "Unigram", "vocab": [["a", -1.0], ["</s>", -9.0]], "unk_id": None},
        None,
        "unk_id",
    ),
    "BPE": (LETTERS | {"unk_token": "[UNK]"}, None, "UNK"),
    "an expression without an end": (LETTERS, SLOW, "retry-limit"),
}
READ, UNREAD = "a", "a" * 60 + "zq"


def saved(folder, model, before=None, **more):
    """A tokenizer's folder, as people have it."""
    special = {"id": 2, "content": "</s>", "special": True, "normalized": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    raw = {"version": "1.0", "model": model, "pre_tokenizer": before, "normalizer": None}
    raw |= {"added_tokens": [special | flags], "post_processor": None, "decoder": None}
    raw |= {"truncation": None, "padding": None}
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(raw | more))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    return folder


@pytest.mark.fault("tokenizers that fail", "one line")
@pytest.mark.parametrize(("model", "before", "says"), FAILING.values(), ids=FAILING)
def test_a_text_that_cannot_be_read(tmp_path, model, before, says, capfd):
    tokenizer = tk.load(saved(tmp_path / "m", model, before))
    assert tk.encode(tokenizer, [READ])["input_ids"] == [[0]]
    line = rf"the tokenizer of {tmp_path}/m cannot read the text '{UNREAD[:60]}'…: .*{says}"
    with pytest.raises(tk.Unreadable, match=line) as e:
        tk.encode(tokenizer, [READ, UNREAD, READ])
    assert str(e.value).isprintable() and e.value.text == UNREAD
    rows = [Example(f"r#{i}", "r", text=text) for i, text in enumerate((READ, UNREAD))]
    with pytest.raises(UserError, match=line):
        encode(rows, tokenizer, Template(bos=False), 100)
    with pytest.raises(UserError, match=line):
        spoken(tokenizer, [READ, UNREAD])
    assert capfd.readouterr().err == ""  # nor is a panic of Rust's printed


@pytest.mark.fault("tokenizers that fail", "one line")
def test_texts_that_are_none(tmp_path):
    tokenizer = tk.load(saved(tmp_path / "m", LETTERS))
    with pytest.raises(tk.Unreadable, match=r"cannot read the text 'a\\ud800'"):
        tk.encode(tokenizer, ["a", "a\ud800"])


@pytest.mark.fault("tokenizers that fail", "one line")
@pytest.mark.parametrize(
    ("model", "more", "says"),
    [
        (LETTERS, {"pre_tokenizer": SLOW | {"pattern": {"Regex": "(a"}}}, "parenthesis"),
        (LETTERS, {"pre_tokenizer": SLOW | {"pattern": {"Regex": "[b-a]"}}}, "range"),
        (
            LETTERS,
            {"normalizer": {"type": "Replace", "pattern": {"Regex": "*"}, "content": ""}},
            "",
        ),
        (LETTERS, {"pre_tokenizer": {"type": "Nobody"}}, "PreTokenizer"),
        (LETTERS | {"merges": [["a", "zq"]]}, {}, "zq"),
        (LETTERS | {"vocab": {}}, {}, "is empty: no text has tokens"),
        (LETTERS | {"vocab": {"</s>": 2}}, {}, "is empty: no text has tokens"),
        ({"type": "WordLevel", "vocab": {}, "unk_token": "[UNK]"}, {}, "m"),
        (PIECES | {"vocab": {}}, {}, "m"),
        ({"type": "Unigram", "vocab": [], "unk_id": None}, {}, "m"),
        ({"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": 7}, {}, "UnkId"),
    ],
)
def test_a_tokenizer_that_is_none(tmp_path, model, more, says, capfd):
    with pytest.raises(UserError, match=rf"{tmp_path}/m.*{says}") as e:
        tk.load(saved(tmp_path / "m", model, **more))
    assert str(e.value).isprintable() and len(str(e.value)) < 500
    assert capfd.readouterr().err == ""


@pytest.mark.fault("tokenizers that fail", "one line")
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"chat_template": 7}, "a chat template is a number"),
        ({"chat_template": [{"name": "default", "template": ["x"]}]}, "a chat template is a list"),
        ({"chat_template": "\ud800"}, r"hold half a character \(\\ud800\)"),
        ({"\ud800": None}, r"hold half a character \(\\ud800\)"),
    ],
)
def test_settings_that_could_not_be_saved(tmp_path, more, says):
    file = saved(tmp_path / "m", LETTERS) / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    with pytest.raises(UserError, match=rf"{tmp_path}/m: .*{says}"):
        tk.load(tmp_path / "m")


def test_what_is_no_fault_of_a_text_is_raised_as_it_is():
    class Busy:
        def __call__(self, texts, **options):
            if len(texts) > 1:
                raise RuntimeError("already borrowed")

    with pytest.raises(RuntimeError, match="already borrowed"):
        tk.encode(Busy(), ["a", "b"])


@pytest.mark.fault("a resumed run's tokenizer", "as it should be")
def test_saved_again_it_has_the_same_bytes(tmp_path):
    """As a run saves what it has trained, and its resumed start what it has loaded."""
    tk.save(tk.train(["the cat sat on a mat"] * 9, 280), tmp_path / "0")
    first = {f.name: f.read_bytes() for f in (tmp_path / "0").iterdir()}
    for i in range(2):
        tk.save(tk.load(tmp_path / f"{i}"), tmp_path / f"{i + 1}")
        again = {f.name: f.read_bytes() for f in (tmp_path / f"{i + 1}").iterdir()}
        assert again == first
    made = saved(tmp_path / "m", LETTERS)
    tk.save(tk.load(made), tmp_path / "once")
    tk.save(tk.load(tmp_path / "once"), tmp_path / "twice")
    for file in (tmp_path / "once").iterdir():
        assert file.read_bytes() == (tmp_path / "twice" / file.name).read_bytes()
