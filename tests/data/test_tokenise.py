"""Which tokens are targets, what is cut and counted, and what is refused."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

from forget_jax.data import templates
from forget_jax.data.examples import Example
from forget_jax.data.tokenise import TEMPLATES, Template, encode, prompts
from forget_jax.errors import UserError
from forget_jax.lm.hf import tokenizer as tokenizers

CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}[/]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.train(["the cat sat on the mat", "def f(x): return x", "12 + 30 = 42"], 280)


@pytest.fixture
def chat_tokenizer(tokenizer):
    tokenizer.chat_template = CHAT
    yield tokenizer
    tokenizer.chat_template = None


def one(example, tokenizer, template=TEMPLATES["plain"], context=500, **kwargs):
    (found,) = encode([example], tokenizer, template, context, **kwargs)
    return found


def target_text(encoded, tokenizer):
    return tokenizer.decode(encoded.ids[encoded.is_target])


PAIR = Example("p#0", "p", prompt=" 12 + 30 = ", completion=" 42\n")
TEXT = Example("t#0", "t", text="the cat sat on the mat")
TALK = Example(
    "m#0",
    "m",
    messages=(
        ("system", "be kind"),
        ("user", "the cat"),
        ("assistant", "sat"),
        ("user", "on"),
        ("assistant", "the mat"),
    ),
)


def test_raw_joins_what_is_there(tokenizer):
    found = one(PAIR, tokenizer, TEMPLATES["raw"])
    assert target_text(found, tokenizer) == f"{PAIR.completion}{tokenizer.eos_token}"
    assert tokenizer.decode(found.ids[1:-1]) == PAIR.prompt + PAIR.completion
    ids, _ = prompts([PAIR], tokenizer, TEMPLATES["raw"], 50)
    assert tokenizer.decode(ids[0][1:]) == PAIR.prompt


def test_a_text_is_a_template(tokenizer):
    chosen = templates.of(r"{{Q}}: {prompt}\nA\\n: {completion}." + "\t")
    found = one(PAIR, tokenizer, chosen)
    assert tokenizer.decode(found.ids[~found.is_target][1:]) == "{Q}: 12 + 30 =\nA\\n: "
    assert target_text(found, tokenizer) == f"42.\t{tokenizer.eos_token}"
    wild = dataclasses.replace(PAIR, prompt="{completion} {x.y} {", completion="}{prompt}")
    found = one(wild, tokenizer, chosen)  # braces of a row are text
    assert tokenizer.decode(found.ids[1:-1]) == "{Q}: {completion} {x.y} {\nA\\n: }{prompt}.\t"
    for named in ("plain", "raw", "tulu"):
        assert templates.of(named) is TEMPLATES[named] and not templates.is_text(named)


def test_bos_follows_the_tokenizers_habit():
    tokenizer = tokenizers.train(["the cat sat on the mat"], 270)
    habit = Template(bos=None)
    for adds in (True, False):
        if not adds:
            tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        assert tokenizers.special_tokens(tokenizer).adds_bos == adds
        for example in (TEXT, PAIR):
            ids = one(example, tokenizer, habit).ids
            np.testing.assert_array_equal(ids, one(example, tokenizer, Template(bos=adds)).ids)
        found, _ = prompts([PAIR], tokenizer, habit, 50)
        assert (found[0][0] == tokenizer.bos_token_id) == adds
    with pytest.raises(UserError, match="p#0 has an empty prompt"):
        empty = Template(prompt="{prompt}", bos=None)
        prompts([dataclasses.replace(PAIR, prompt="")], tokenizer, empty, 50)


@given(prompt=st.text(max_size=20), completion=st.text(min_size=1, max_size=20))
def test_targets_are_completion_and_eos_only(tokenizer, prompt, completion):
    found = one(Example("x", "x", prompt=prompt, completion=completion), tokenizer)
    wanted = completion.strip()
    assert found.ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(found.ids[found.is_target][:-1]) == wanted
    assert tokenizer.decode(found.ids[~found.is_target][1:]) == prompt.strip() + "\n"
    assert found.ids[0] == tokenizer.bos_token_id
    assert found.tokens == found.is_target.sum() and found.is_target[-found.tokens :].all()


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"chat", "raw"}))
def test_templates_put_the_prompt_where_they_say(tokenizer, name):
    found = one(PAIR, tokenizer, TEMPLATES[name])
    before = tokenizer.decode(found.ids[~found.is_target][1:])
    assert before == TEMPLATES[name].prompt.format(prompt="12 + 30 =")
    assert target_text(found, tokenizer) == "42</s>"


def test_braces_in_data_are_not_format_fields(tokenizer):
    found = one(Example("x", "x", prompt="{0} {prompt}", completion="{y}"), tokenizer)
    assert target_text(found, tokenizer) == "{y}</s>"
    assert "{0} {prompt}" in tokenizer.decode(found.ids)


def test_the_boundary_does_not_depend_on_what_follows(tokenizer):
    short, long = (
        one(Example("x", "x", prompt="the c", completion=c), tokenizer) for c in ("a", "at sat")
    )
    prompt = ~short.is_target
    assert (short.ids[prompt] == long.ids[~long.is_target]).all()


def test_every_token_of_a_text_is_a_target(tokenizer):
    found = one(TEXT, tokenizer)
    assert found.is_target.tolist() == [False] + [True] * (len(found.ids) - 1)
    assert target_text(found, tokenizer) == TEXT.text  # and no EOS
    pretraining = one(TEXT, tokenizer, dataclasses.replace(Template(), eos_text=True))
    assert pretraining.ids[-1] == tokenizer.eos_token_id and pretraining.is_target[-1]


def test_without_bos_the_first_token_is_no_target(tokenizer):
    found = one(TEXT, tokenizer, Template(bos=False))
    assert found.ids[0] != tokenizer.bos_token_id
    assert found.is_target.tolist() == [False] + [True] * (len(found.ids) - 1)


def test_long_texts_keep_their_beginning_and_pairs_their_end(tokenizer):
    whole_text, whole_pair = one(TEXT, tokenizer), one(PAIR, tokenizer)
    text, pair = one(TEXT, tokenizer, context=6), one(PAIR, tokenizer, context=6)
    assert (text.ids == whole_text.ids[:6]).all() and text.cut == len(whole_text.ids) - 6
    assert (pair.ids == whole_pair.ids[-6:]).all() and pair.cut == len(whole_pair.ids) - 6
    assert not pair.is_target[0] and target_text(pair, tokenizer).endswith("42</s>")
    assert whole_text.cut == whole_pair.cut == 0


@pytest.mark.parametrize("example", [PAIR, TEXT, TALK])
def test_left_keeps_the_end_of_every_example(tokenizer, example):
    whole, kept = one(example, tokenizer), one(example, tokenizer, context=5, too_long="left")
    assert (kept.ids == whole.ids[-5:]).all() and kept.cut == len(whole.ids) - 5
    assert (kept.is_target[1:] == whole.is_target[-4:]).all() and not kept.is_target[0]


@pytest.mark.parametrize("targets", ["completion", "all"])
@pytest.mark.parametrize("example", [PAIR, TEXT, TALK])
def test_windows_hold_every_target_once(tokenizer, example, targets):
    whole = one(example, tokenizer, targets=targets)
    rows = encode([example], tokenizer, TEMPLATES["plain"], 6, "windows", targets, stride=2)
    assert len(rows) > 1 and [r.window for r in rows] == list(range(1, len(rows) + 1))
    assert {(r.name, r.source, r.cut) for r in rows} == {(example.name, example.source, 0)}
    assert sum(r.tokens for r in rows) == whole.tokens
    assert all(len(r.ids) <= 6 and r.tokens and not r.is_target[0] for r in rows)
    found = np.concatenate([r.ids[r.is_target] for r in rows])
    assert (found == whole.ids[whole.is_target]).all()
    for r in rows[1:]:
        assert np.flatnonzero(r.is_target)[0] >= 6 - 2


def test_windows_leave_short_examples_whole(tokenizer):
    (found,) = encode([TEXT], tokenizer, Template(), 500, "windows")
    assert found.window == 0 and (found.ids == one(TEXT, tokenizer).ids).all()


def test_what_is_over_the_context_can_be_dropped_or_refused(tokenizer):
    short = Example("s#0", "s", text="cat")
    kept = encode([TEXT, short], tokenizer, Template(), 6, "drop")
    assert [e.name for e in kept] == ["s#0"]
    with pytest.raises(UserError, match=r"t#0 has \d+ tokens, over the context of 6"):
        encode([short, TEXT], tokenizer, Template(), 6, "error")
    with pytest.raises(UserError, match="too_long is 'cut'; it must be one of truncate"):
        encode([short], tokenizer, Template(), 6, "cut")
    with pytest.raises(UserError, match="targets is 'some'; it must be one of completion"):
        encode([short], tokenizer, Template(), 6, targets="some")
    with pytest.raises(UserError, match=r"data\.stride is 6, but a window holds 6 tokens"):
        encode([short], tokenizer, Template(), 6, "windows", stride=6)
    with pytest.raises(UserError, match="context is 1; it takes 2 tokens"):
        encode([short], tokenizer, Template(), 1)


def test_a_chat_template_renders_and_only_assistant_turns_are_targets(chat_tokenizer):
    found = one(TALK, chat_tokenizer)
    assert chat_tokenizer.decode(found.ids) == (
        "[system]be kind[/][user]the cat[/][assistant]sat[/][user]on[/][assistant]the mat[/]"
    )
    assert target_text(found, chat_tokenizer) == "sat[/]the mat[/]"


def test_messages_without_a_chat_template(tokenizer):
    """arXiv 2411.07175: tags before every turn; EOS and the newline after it are targets too."""
    found = one(TALK, tokenizer)
    assert tokenizer.decode(found.ids) == (
        "<s><|system|>\nbe kind\n<|user|>\nthe cat\n<|assistant|>\nsat</s>\n<|user|>\non\n"
        "<|assistant|>\nthe mat</s>"
    )
    assert target_text(found, tokenizer) == "sat</s>\nthe mat</s>"


@pytest.mark.parametrize("chat", [False, True])
def test_the_last_turn_alone(tokenizer, chat):
    """arXiv 2406.14026: the answer after the last assistant tag; a turn after it is nothing."""
    tokenizer.chat_template = CHAT if chat else None
    try:
        asked = dataclasses.replace(TALK, messages=(*TALK.messages, ("user", "the cat")))
        wanted = one(TALK, tokenizer, targets="last")
        assert target_text(wanted, tokenizer) == ("the mat[/]" if chat else "the mat</s>")
        assert (wanted.ids == one(TALK, tokenizer).ids).all()
        found = one(asked, tokenizer, targets="last")
        assert target_text(found, tokenizer).startswith("the mat")
    finally:
        tokenizer.chat_template = None
    for example in (PAIR, TEXT):
        whole, last = one(example, tokenizer), one(example, tokenizer, targets="last")
        assert (whole.is_target == last.is_target).all()


@pytest.mark.parametrize("example", [PAIR, TEXT, TALK])
def test_all_tokens_but_the_first_are_targets(tokenizer, example):
    found = one(example, tokenizer, targets="all")
    assert found.is_target.tolist() == [False] + [True] * (len(found.ids) - 1)
    assert (found.ids == one(example, tokenizer).ids).all()
    bare = one(example, tokenizer, Template(bos=False), targets="all")
    assert bare.tokens == len(bare.ids) - 1


def test_an_eos_that_is_not_counted_is_seen_but_never_a_target(tokenizer):
    scored = Template(eos_target=False)
    for targets in ("completion", "all"):
        found = one(PAIR, tokenizer, scored, targets=targets)
        counted = one(PAIR, tokenizer, targets=targets)
        assert found.tokens == counted.tokens - 1
        assert (found.ids == counted.ids[:-1]).all()  # nothing is predicted from the last one
    assert target_text(one(PAIR, tokenizer, scored), tokenizer) == "42"
    talk = one(TALK, tokenizer, scored)
    assert talk.ids[talk.is_target].tolist().count(tokenizer.eos_token_id) == 0
    assert talk.ids.tolist().count(tokenizer.eos_token_id) == 1  # after the first answer
    assert (one(TEXT, tokenizer, scored).ids == one(TEXT, tokenizer).ids).all()


def test_prompts_are_what_the_completion_follows(tokenizer):
    whole = one(PAIR, tokenizer, TEMPLATES["tulu_answer"])
    (ids,), cut = prompts([PAIR], tokenizer, TEMPLATES["tulu_answer"], 500)
    assert ids == whole.ids[~whole.is_target].tolist() and cut == 0
    assert tokenizer.decode(ids).endswith("<|user|>\n12 + 30 =\nThe answer is:\n<|assistant|>\n")
    (end,), cut = prompts([PAIR], tokenizer, TEMPLATES["tulu_answer"], 7)
    assert end == ids[-7:] and cut == 1


def test_a_chat_template_that_rewrites_turns_is_refused(tokenizer):
    tokenizer.chat_template = "{{ messages | length }}" + CHAT
    try:
        with pytest.raises(UserError, match="m#0: the tokenizer's chat template rewrites"):
            one(TALK, tokenizer)
    finally:
        tokenizer.chat_template = None


def test_an_example_without_a_target_is_refused(tokenizer):
    with pytest.raises(UserError, match="t#7 has no token to predict"):
        one(Example("t#7", "t", text="c"), tokenizer, Template(bos=False))


def test_a_tokenizer_without_eos_is_refused(tokenizer):
    import copy

    lacking = copy.deepcopy(tokenizer)
    lacking.eos_token = None
    with pytest.raises(UserError, match=r"no end-of-sequence token; set data\.eos=false"):
        one(PAIR, lacking)
    assert one(TEXT, lacking, Template(eos=False)).tokens > 0


def test_nothing_in_gives_nothing_out(tokenizer):
    assert encode([], tokenizer, Template(), 10) == []


def test_arrays_are_what_batches_want(tokenizer):
    found = one(PAIR, tokenizer)
    assert found.ids.dtype == np.int32 and found.is_target.dtype == bool


@pytest.mark.fault("texts that a tokenizer cannot read", "one line")
def test_a_text_that_the_tokenizer_cannot_read_is_named():
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"a": 0, "b": 1, "</s>": 2}))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")
    rows = [Example(f"r#{i}", "r", text=text) for i, text in enumerate(["a b", "b a", "a word"])]
    with pytest.raises(UserError, match=r"^r#2: the tokenizer cannot read the text 'a word'"):
        encode(rows, words, TEMPLATES["plain"], 50)
