"""Chat templates of any kind over conversations: a rendering, or one line, in a limited time."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forget_jax.data import rendering
from forget_jax.data.examples import Example
from forget_jax.data.tokenise import Template, encode
from forget_jax.errors import UserError
from forget_jax.lm.hf import tokenizer as tokenizers

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 60))
PARTS = [
    "{% for m in messages %}", "{% endfor %}", "{{ m.role }}", "{{ m.content }}", "{% endif %}",
    "{% if m.role == 'user' %}", "{% else %}", "{{ m['content'] | trim }}", "{% generation %}",
    "{% endgeneration %}", "{{ bos_token }}", "{{ eos_token }}", "<|im_start|>", "\n", "{%- ",
    "{% if add_generation_prompt %}", "{{ raise_exception('no\nsuch role') }}", "{{ messages[9] }}",
    "{{ messages | length }}", "{% set x = namespace(n=0) %}", "{% macro f() %}", "{% endmacro %}",
    "{{ f() }}", "{{ ''.__class__ }}", "{% include 'x' %}", "{{ range(9) | list }}", "{{ 1 / 0 }}",
    "{{ 'a' * 99999999 }}", "{{ strftime_now('%Y') }}", "{% break %}", "}}", "{#", "{{ m.content }",
    "{{ messages[0].content.split('a')[-1] }}", "{{ loop.last }}", "{{ tools }}", "assistant",
]  # fmt: skip
templates = st.lists(st.sampled_from(PARTS), max_size=12).map("".join) | st.text(max_size=30)
wrapped = templates.map(lambda t: "{% for m in messages %}" + t + "{{ m.content }}{% endfor %}")
turns = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=8)), max_size=5
).map(lambda some: (*some, ("assistant", "a b")))


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.train(["the cat sat on a mat"] * 5, 300)


@pytest.mark.fault("chat templates", "one line")
def test_a_rendering_or_one_line(tokenizer, monkeypatch, tried):
    monkeypatch.setattr(rendering, "SECONDS", 2.0)

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(templates | wrapped, turns, st.sampled_from(["completion", "last", "all"]))
    def target(template, messages, targets):
        tokenizer.chat_template = template or None
        try:
            rows = encode(
                [Example("t#0", "t", messages=messages)], tokenizer, Template(), 64, targets=targets
            )
            assert rows and all(row.tokens for row in rows)
        except UserError as e:
            assert "\n" not in str(e) and str(e)

    target()
    tried(EXAMPLES)
