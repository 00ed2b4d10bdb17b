"""Special tokens that stand in texts: counted, said, and read either way."""

import pytest

from forget_jax.data import reading, special_tokens
from forget_jax.data.examples import Example
from forget_jax.data.settings import Data
from forget_jax.data.tokenise import Template, encode
from forget_jax.errors import UserError
from forget_jax.lm.hf import tokenizer as tokenizers

HTML = Example("h#0", "h", text="a <s>struck</s> word")
PLAIN = Example("h#1", "h", text="a word")


@pytest.fixture
def tokenizer():
    return tokenizers.train(["a struck word <s", "the cat"], 300)


@pytest.mark.fault("special tokens in texts", "as it should be")
def test_both_readings(tokenizer):
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    parsed, text = (
        encode([HTML], tokenizer, Template(bos=False, literal=literal), 99)[0]
        for literal in (False, True)
    )
    assert special <= set(parsed.ids.tolist()) and not special & set(text.ids.tolist())
    assert tokenizer.decode(text.ids) == tokenizer.decode(parsed.ids) == HTML.text


@pytest.mark.parametrize(("reading_", "said"), [("parse", "become"), ("text", "are read as text")])
def test_they_are_counted_and_said(tokenizer, capsys, reading_, said):
    data = Data(special_tokens=reading_)
    reading.encode([HTML, PLAIN], tokenizer, reading.template(data), data, 99)
    err = capsys.readouterr().err
    assert err.startswith("2 special tokens (<s>, </s>) in 1 of 2 examples") and said in err
    assert err.count("\n") == 1


def test_nothing_is_said_of_none(tokenizer):
    assert special_tokens.line([PLAIN], tokenizer, "parse") == ""


@pytest.mark.fault("special tokens in texts", "one line")
def test_a_chat_template_cannot_hold_them_as_text(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    talk = Example("m#4", "m", messages=(("user", "a </s> word"), ("assistant", "the cat")))
    with pytest.raises(UserError, match=r"m#4 holds </s>.*data\.special_tokens=parse"):
        encode([talk], tokenizer, Template(literal=True), 99)
    assert encode([talk], tokenizer, Template(), 99)[0].tokens > 0
