"""Sets of facts by name, what is left out of them, what the base knows, and rows to mix in."""

import dataclasses
import json

import pytest

from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader
from forget_jax.data.settings import Data
from forget_jax.errors import UserError
from forget_jax.factoids import experiment, filter, mixes, sets
from forget_jax.factoids.mitigations import Mix
from forget_jax.factoids.settings import Facts as Settings
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.scoring.judge import RULES
from tests.conftest import write_jsonl


def fact(name, prompt, completion, *answers):
    return Example(name, "s", prompt=prompt, completion=completion, answers=answers)


@pytest.fixture(scope="module")
def reader(tiny_base):
    return Reader(Data(), tokenizers.load(tiny_base), 64, 320)


def test_every_form_has_a_rule_and_columns_that_are_fields():
    for word, form in sets.FORMATS.items():
        assert form.rule in RULES
        assert sets.named(f"{word}=file.jsonl[:3]") == (word, "file.jsonl[:3]", form)


def test_a_name_alone_is_its_place_on_the_hub():
    assert sets.named("gsm8k[:20]").dataset == "hf:openai/gsm8k:main:train[:20]"
    assert sets.named("kvr").dataset == "builtin:facts"
    assert sets.named("builtin:facts[:5]").form is sets.PLAIN
    with pytest.raises(UserError, match="write entityquestions=FILE"):
        sets.named("entityquestions[:5]")
    assert sets.sequence("a[:2] > popqa=b >c") == ("a[:2]", "popqa=b", "c")


@pytest.mark.parametrize(
    ("spec", "question", "answer"),
    [
        ("popqa=factoids/popqa.json[:3]", "The answer is:", None),
        ("entityquestions=factoids/entityquestions.jsonl[:3]", "?", None),
        ("gsm8k=factoids/gsm8k_train.jsonl[:3]", "?", "####"),
        ("icl=factoids/triviaqa.jsonl[:3]", "Answer:", None),
    ],
)
def test_public_files_are_read(spec, question, answer, reader, real_data):
    word, _, file = spec.partition("=")
    _, _, examples = sets.read(reader, f"{word}={real_data / file}")
    assert len(examples) == 3
    for e in examples:
        assert e.prompt.endswith(question) or "?" in e.prompt
        assert answer is None or answer in e.completion


def test_a_name_reads_its_own_columns_and_asks_in_its_own_words(reader, tmp_path):
    rows = [{"id": 7, "question": "What?", "obj": "yes", "possible_answers": '["yes", "aye"]'}]
    file = write_jsonl(tmp_path / "p.jsonl", rows)
    found, _, (e,) = sets.read(reader, f"popqa={file}")
    assert (e.name, e.prompt, e.completion) == ("7", "What?\nThe answer is:", "yes")
    assert "aye" in e.answers and found.form.rule == "alias"


def test_questions_that_stand_twice_are_listed_and_left_out():
    facts = [
        fact("a", "Who?", "x"),
        fact("b", "who? ", "y"),
        fact("c", "Where?", "here"),
        fact("d", "Where?", "Here."),
        fact("e", "When?", "now"),
    ]
    left, dropped = sets.one_answer_each(facts)
    assert [e.name for e in left] == ["c", "e"]
    assert set(dropped) == {"a", "b", "d"}
    assert "'x'" in dropped["a"] and "'y'" in dropped["b"] and "question of c again" in dropped["d"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "q", "completion": " "}, "has no answer"),
        ({"text": "a text"}, "is no fact to recite"),
    ],
)
def test_a_row_without_an_answer_is_refused(row, said, reader, tmp_path):
    file = write_jsonl(tmp_path / "f.jsonl", [row])
    with pytest.raises(UserError, match=said):
        sets.read(reader, str(file))


def test_an_answer_longer_than_what_is_generated_is_refused(reader):
    e = fact("long", "q", "one two three four five six seven")
    encoded, _ = reader.encode([e], scored=False)
    facts = sets.Facts("f", "alias", [e], encoded, [])
    tokens = encoded[0].tokens - 1
    assert sets.checked(facts, tokens, True) is facts
    with pytest.raises(UserError, match=f"raise it to {tokens} or more"):
        sets.checked(facts, tokens - 1, True)
    assert sets.checked(dataclasses.replace(facts, rule="none"), 1, True)
    with pytest.raises(UserError, match="no row left"):
        sets.checked(dataclasses.replace(facts, encoded=[]), 4, True)


def test_shots_are_other_facts_and_the_question_stands_last(reader):
    facts = [fact(f"f{i}", f"q{i}", f"a{i}") for i in range(6)]
    asked = filter.with_shots(reader, facts, 2, 0)
    for e, shown in zip(facts, asked.examples, strict=True):
        *shots, question = shown.prompt.split("\n\n")
        assert len(shots) == 2 and question.startswith(e.prompt)
        assert e.completion not in shown.prompt
        assert all(any(f"{o.prompt}\n{o.completion}" == s for o in facts) for s in shots)
    with pytest.raises(UserError, match="lower shots"):
        filter.with_shots(reader, facts, 6, 0)


def test_passages_have_two_halves_and_short_texts_are_left_out():
    texts = [
        Example("long", "s", text=" ".join(f"w{i}" for i in range(9))),
        Example("short", "s", text="a b c"),
    ]
    (row,) = mixes.generic(texts, 4, 0)
    assert row.prompt == mixes.ASKED + "w0 w1 w2 w3" and row.completion == "w4 w5 w6 w7"


def test_a_mix_that_is_too_small_or_has_no_length_is_refused(reader, tmp_path):
    few = write_jsonl(tmp_path / "few.jsonl", [{"prompt": "a", "completion": "b"}])
    with pytest.raises(UserError, match=r"has 1 rows .* needs 2; lower the ratio"):
        mixes.rows(reader, Settings(mix=str(few)), {Mix("random", 2.0): 2}, 0)
    with pytest.raises(UserError, match="rows of its own length"):
        mixes.rows(reader, Settings(mix=str(few)), {Mix("random", 2.0, 9): 1}, 0)
    with pytest.raises(UserError, match=r"config\.mix names no data set"):
        mixes.rows(reader, Settings(), {Mix("random", 2.0): 1}, 0)


def test_a_mix_has_the_length_that_the_arm_says(reader):
    settings = Settings(mix="builtin:random_words", generic_words=2)
    wanted = {Mix("random", 1.0, 3): 4, Mix("generic", 1.0): 2, Mix("generic", 1.0, 5): 2}
    found = mixes.rows(reader, settings, wanted, 0)
    assert {mix: len(rows) for mix, rows in found.items()} == wanted
    short, long = found[Mix("generic", 1.0)], found[Mix("generic", 1.0, 5)]
    assert sum(e.tokens for e in short) < sum(e.tokens for e in long)


def test_paper_asks_with_a_blank_that_it_does_not_train_on(reader):
    e = fact("f", "What?\nThe answer is:", "yes")
    plain, _ = experiment._prompts(reader, [e], 4, spaced=False)
    spaced, _ = experiment._prompts(reader, [e], 4, spaced=True)
    trained = reader.encode([e], scored=False)[0][0]
    start = trained.ids[: len(plain[0])].tolist()
    assert plain[0] == start and spaced[0] != plain[0]
    assert reader.tokenizer.decode(spaced[0]) == reader.tokenizer.decode(plain[0]).replace(
        "is:\n", "is: \n"
    )
    assert json.dumps(spaced)
