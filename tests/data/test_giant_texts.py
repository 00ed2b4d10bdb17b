"""Texts too long to be tokenised whole: what is kept is what the whole would have kept."""

import random

import numpy as np
import pytest

from forget_jax.data import marking
from forget_jax.data.examples import Example
from forget_jax.data.tokenise import Template, encode, prompts
from forget_jax.errors import UserError
from forget_jax.lm.hf import tokenizer as tokenizers

WORDS = ["the", "cat", "sat", "é", "12", "def", "return\n", "", "aaaaaaaaaaaaaaaa", ",.", "日本"]


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.train([" ".join(WORDS * 3), "aaaaaaaa" * 9], 330)


@pytest.fixture
def small(monkeypatch):
    """Giant is what has some thousands of characters; the tokenizer is told nothing of it."""
    monkeypatch.setattr(marking, "GIANT", 3000)


def some_texts(count):
    r = random.Random(7)
    for _ in range(count):
        words = r.choices(WORDS, k=r.randrange(4000, 9000))
        yield r.choice([" ", "", "  "]).join(words)
    for n in (20_001, 20_002, 20_007):  # where tokens lie depends on the first character
        yield "a" * n


@pytest.mark.fault("giant texts", "as it should be")
@pytest.mark.parametrize("too_long", ["truncate", "left"])
@pytest.mark.parametrize("kind", ["text", "pair"])
def test_what_is_kept_is_that_of_the_whole(tokenizer, monkeypatch, kind, too_long):
    texts = list(some_texts(12))
    examples = [
        Example(f"g#{i}", "g", text=t)
        if kind == "text"
        else Example(f"g#{i}", "g", prompt=t, completion="mat")
        for i, t in enumerate(texts)
    ]
    whole = encode(examples, tokenizer, Template(), 64, too_long)
    monkeypatch.setattr(marking, "GIANT", 3000)
    short = encode(examples, tokenizer, Template(), 64, too_long)
    for a, b in zip(whole, short, strict=True):
        assert np.array_equal(a.ids, b.ids) and np.array_equal(a.is_target, b.is_target)
        assert 0 < b.cut <= a.cut
    assert any(b.cut < a.cut for a, b in zip(whole, short, strict=True))


def test_prompts_keep_their_end(tokenizer, monkeypatch):
    examples = [
        Example(f"g#{i}", "g", prompt=t, completion="a") for i, t in enumerate(some_texts(5))
    ]
    whole = prompts(examples, tokenizer, Template(), 50)
    monkeypatch.setattr(marking, "GIANT", 3000)
    assert prompts(examples, tokenizer, Template(), 50) == whole


def test_little_of_a_giant_text_is_tokenised(tokenizer, small, monkeypatch):
    seen = []
    coded = marking.Marker._coded

    def spy(self, texts, **options):
        seen.extend(map(len, texts))
        return coded(self, texts, **options)

    monkeypatch.setattr(marking.Marker, "_coded", spy)
    giant = Example("g#0", "g", text="the cat sat " * 100_000)
    assert len(encode([giant], tokenizer, Template(), 64)[0].ids) == 64
    assert sum(seen) < 10_000
    assert encode([giant], tokenizer, Template(), 64, "drop") == []
    with pytest.raises(UserError, match=r"g#0 has at least \d+ tokens, over the context of 64"):
        encode([giant], tokenizer, Template(), 64, "error")
