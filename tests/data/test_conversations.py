"""Conversations: the tokenizer's own ids, a template's own words, and none without an end."""

import numpy as np
import pytest

from forget_jax.data import rendering
from forget_jax.data.examples import Example
from forget_jax.data.tokenise import TEMPLATES, Template, adds_prefix, encode, prompts
from forget_jax.errors import UserError

INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}[/]{% endgeneration %}{% else %}{{ m.content }}[/]{% endif %}{% endfor %}"
)
REASONING = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and loop.last %}"
    "<think>{{ 'why' }}</think>{% endif %}{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>{% endif %}"
)
TALK = Example(
    "talk#3",
    "talk",
    messages=(
        ("user", "the cat  sat"),
        ("assistant", "on a mat"),
        ("user", "é 12"),
        ("assistant", " a b"),
    ),
)
TEXTS = ["the cat sat on a mat", "[INST] a b [/INST]", "<|im_start|>user assistant", "12 é"]


def sentencepiece(prepend):
    """BPE over ▁ with bytes to fall back on, as Llama 2's tokenizer is."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted({c for text in TEXTS for c in text.replace(" ", "▁")} | {"▁"})
    vocabulary = ["<s>", "</s>", "<unk>", *(f"<0x{b:02X}>" for b in range(256)), *alphabet]
    merges = [("▁", "a"), ("▁", "t"), ("o", "n"), ("▁", "on"), ("▁t", "h"), ("▁th", "e")]
    vocabulary += ["".join(pair) for pair in merges]
    made = Tokenizer(
        models.BPE({t: i for i, t in enumerate(vocabulary)}, merges, byte_fallback=True)
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
    made.decoder = decoders.Metaspace(prepend_scheme=prepend)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def byte_level():
    from forget_jax.lm.hf.tokenizer import train

    return train([*TEXTS, *TEXTS], 300)


KINDS = {
    "byte-level": byte_level,
    "SentencePiece, first": lambda: sentencepiece("first"),
    "SentencePiece, always": lambda: sentencepiece("always"),
    "SentencePiece, never": lambda: sentencepiece("never"),
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def tokenizer(request):
    return request.param()


@pytest.mark.fault("conversations", "as it should be")
@pytest.mark.parametrize("template", [INST, CHATML, MARKED, REASONING])
@pytest.mark.parametrize("targets", ["completion", "last"])
def test_ids_are_the_tokenizers_own(tokenizer, template, targets):
    tokenizer.chat_template = template
    if template == REASONING and targets == "completion":
        with pytest.raises(UserError, match=r"talk#3: .* rewrites .* data\.targets=last"):
            encode([TALK], tokenizer, Template(), 500)
        return
    (row,) = encode([TALK], tokenizer, Template(), 500, targets=targets)
    turns = [{"role": role, "content": text} for role, text in TALK.messages]
    whole = tokenizer.apply_chat_template(turns, tokenize=True)
    whole = whole["input_ids"] if not isinstance(whole, list) else whole
    assert row.ids.tolist() == whole[: len(row.ids)]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    said = [text[a:b] for a, b in offsets["offset_mapping"][: len(row.ids)]]
    learned = "".join(s for s, t in zip(said, row.is_target, strict=True) if t)
    assert "a b" in learned and ("on a mat" in learned) == (targets == "completion")
    assert "cat" not in learned and "é" not in learned


@pytest.mark.fault("conversations", "as it should be")
@pytest.mark.parametrize("prompt", ["the cat", "a", "12 é"])
def test_prompt_and_completion_get_no_space_between(tokenizer, prompt):
    """What the tokenizer gives for the whole text, with the boundary where it lies."""
    pair = Example("p#0", "p", prompt=prompt, completion="a mat")
    (row,) = encode([pair], tokenizer, Template(bos=False, eos=False), 100)
    text = f"{prompt}\na mat"
    own = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(row.ids) == tokenizer.decode(own)
    if adds_prefix(tokenizer):
        assert row.ids.tolist() == own
    kept = tokenizer.decode(row.ids[row.is_target])
    assert kept.strip() == "a mat"


FAILING = {
    "syntax": ("{% for m in messages %}", "endfor"),
    "an unknown tag": ("{% foo %}", "foo"),
    "an undefined name": ("{{ nobody.content }}", "nobody"),
    "its own words": ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
    "a forbidden attribute": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "another file": ("{% include '/etc/passwd' %}", "no loader"),
    "an import": ("{% import 'os' as os %}", "no loader"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself"),
    "division": ("{{ 1 // 0 }}", "division"),
    "memory": ("{{ 'a' * 5000000000 }}", "1 GiB"),
    "a long text": ("{{ 'a' * 9000000 }}", "makes 9000000 characters"),
    "memory by and by": (
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}"
        "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "1 GiB",
    ),
}


@pytest.fixture(scope="module")
def plain():
    return byte_level()


@pytest.mark.fault("chat templates", "one line")
@pytest.mark.parametrize(("template", "said"), FAILING.values(), ids=FAILING)
def test_a_template_that_fails(plain, template, said):
    plain.chat_template = template
    with pytest.raises(UserError, match=rf"talk#3: the tokenizer's chat template .*{said}") as e:
        encode([TALK], plain, Template(), 100)
    assert "\n" not in str(e.value)


@pytest.mark.fault("chat templates", "one line")
@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'x'.join(range(99999)|map('string')) * 1 }}"
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_without_end(plain, template, monkeypatch):
    monkeypatch.setattr(rendering, "SECONDS", 0.3)
    plain.chat_template = template
    with pytest.raises(UserError, match=r"talk#3: .* chat template (takes over|fails)"):
        encode([TALK], plain, Template(), 100)
    plain.chat_template = CHATML  # another process answers
    assert encode([TALK], plain, Template(), 500)[0].tokens > 0


@pytest.mark.fault("chat templates", "one line")
@pytest.mark.parametrize("template", [{"tool_use": "x"}, {"a": "b", "c": "d"}, 7])
def test_templates_without_a_default(plain, template):
    plain.chat_template = template
    with pytest.raises(UserError, match="chat template cannot be used"):
        encode([TALK], plain, Template(), 100)


def test_a_tokenizer_that_cannot_say_where_tokens_lie(plain):
    class Slow:
        is_fast = False
        chat_template = CHATML
        eos_token_id = bos_token_id = 1

        def __init__(self):
            self.special_tokens_map = {}

        def get_chat_template(self):
            return CHATML

        def __call__(self, texts, **options):
            return {"input_ids": [list(np.frombuffer(t.encode(), np.uint8)) for t in texts]}

    with pytest.raises(UserError, match="no fast one"):
        encode([TALK], Slow(), Template(), 500)


@pytest.mark.fault("pairs through a chat template", "as it should be")
@pytest.mark.parametrize("template", [INST, CHATML, MARKED])
def test_a_pair_becomes_two_turns(tokenizer, template):
    tokenizer.chat_template = template
    pair = Example("p#0", "p", prompt=" the cat\n", completion=" on a mat ")
    (row,) = encode([pair], tokenizer, TEMPLATES["chat"], 500)
    talk = (("user", "the cat"), ("assistant", "on a mat"))
    (same,) = encode([Example("p#0", "p", messages=talk)], tokenizer, Template(), 500)
    assert row.ids.tolist() == same.ids.tolist()
    assert row.is_target.tolist() == same.is_target.tolist()
    turns = [{"role": "user", "content": "the cat"}]
    start = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    (prompt,), cut = prompts([pair], tokenizer, TEMPLATES["chat"], 500)
    assert prompt == tokenizer(start, add_special_tokens=False)["input_ids"] and not cut


def test_a_pair_without_a_prompt_is_one_turn(tokenizer):
    tokenizer.chat_template = CHATML
    (row,) = encode(
        [Example("p#0", "p", prompt="", completion="a")], tokenizer, TEMPLATES["chat"], 500
    )
    assert tokenizer.decode(row.ids).count("<|im_start|>") == 1


@pytest.mark.fault("pairs through a chat template", "one line")
def test_a_tokenizer_without_a_chat_template(tokenizer):
    tokenizer.chat_template = None
    pair = Example("p#0", "p", prompt="a", completion="b")
    with pytest.raises(UserError, match=r"no chat template; set data\.template=plain"):
        encode([pair], tokenizer, TEMPLATES["chat"], 100)
    with pytest.raises(UserError, match="no chat template"):
        prompts([pair], tokenizer, TEMPLATES["chat"], 100)
