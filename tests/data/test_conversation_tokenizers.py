"""Conversations and prompts under tokenizers of every kind: their own ids, or one clear line."""

import pytest
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from forget_jax.data.examples import Example
from forget_jax.data.tokenise import Template, encode
from forget_jax.errors import UserError
from tests.data.test_conversations import CHATML, INST, TALK

GLUED = (
    "{% for m in messages %}{% if m.role == 'user' %}Q{{ m.content }}{% else %}"
    "{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}"
)
TEMPLATES = {"INST": INST, "CHATML": CHATML, "nothing between": GLUED}
WORDS = ["the", "cat", "on", "a", "mat", "b", "##at", "##t", "s", "##m", "12", "[", "]", "/", "e"]


def fast(made, **special):
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "[UNK]"} | special
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special)


def word_piece(**options):
    """As BERT's: lower case, without accents, words cut into pieces."""
    letters = [chr(c) for c in range(97, 123)]
    known = ["[UNK]", "<s>", "</s>", *WORDS, *letters, *(f"##{c}" for c in letters)]
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys(known))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(**options)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return fast(made)


def byte_level(prefix, trim=True, split=True):
    """BPE over bytes, as GPT-2's and, with a space in front of every text, as RoBERTa's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "t"), ("Ġ", "a"), ("Ġ", "m"), ("Ġm", "at"), ("o", "n"), ("Ġ", "on")]
    merges += [("t", "h"), ("th", "e"), ("Ġ", "the"), ("c", "at"), ("Ġ", "Ġ")]
    known = ["<s>", "</s>", "[UNK]", *alphabet, *("".join(pair) for pair in merges)]
    made = Tokenizer(models.BPE({w: i for i, w in enumerate(dict.fromkeys(known))}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=prefix, trim_offsets=trim, use_regex=split
    )
    made.decoder = decoders.ByteLevel()
    return fast(made)


def special_turns(**options):
    """Byte-level, with the marks of turns as tokens of their own."""
    made = byte_level(True)
    marks = [AddedToken(name, special=True, **options) for name in ("<|im_start|>", "<|im_end|>")]
    made.add_tokens(marks, special_tokens=True)
    return made


def composed():
    """A character of the text becomes several, and several one (NFKC)."""
    made = byte_level(False)
    made.backend_tokenizer.normalizer = normalizers.NFKC()
    return made


def word_level():
    known = ["[UNK]", "<s>", "</s>", "the", "cat", "on", "a", "mat", "b", "12"]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return fast(made)


def unigram():
    """As T5's: SentencePiece's Unigram, a space in front and spaces joined."""
    letters = [(c, -4.0) for c in "▁abcdefghijklmnopqrstuvwxyzINSTQ[]/<|>_é12"]
    words = [("▁the", -2.0), ("▁a", -2.0), ("▁mat", -2.5), ("at", -3.0), ("▁on", -2.5)]
    known = [("[UNK]", 0.0), ("<s>", 0.0), ("</s>", 0.0), *letters, *words]
    made = Tokenizer(models.Unigram(known, unk_id=0))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return fast(made)


KINDS = {
    "WordPiece": lambda: word_piece(lowercase=True),
    "WordPiece, cased": lambda: word_piece(lowercase=False, strip_accents=False),
    "WordLevel": word_level,
    "Unigram": unigram,
    "byte-level": lambda: byte_level(False),
    "byte-level, prefix": lambda: byte_level(True),
    "byte-level, prefix, whole offsets": lambda: byte_level(True, trim=False),
    "byte-level, prefix, unsplit": lambda: byte_level(True, split=False),
    "special turns": special_turns,
    "special turns that strip": lambda: special_turns(lstrip=True, rstrip=True),
    "NFKC": composed,
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def tokenizer(request):
    return request.param()


def own(tokenizer, turns):
    ids = tokenizer.apply_chat_template(turns, tokenize=True)
    return ids if isinstance(ids, list) else ids["input_ids"]


@pytest.mark.fault("conversations", "as it should be")
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("targets", ["completion", "last"])
def test_ids_are_the_tokenizers_own(tokenizer, template, targets):
    tokenizer.chat_template = template
    (row,) = encode([TALK], tokenizer, Template(), 500, targets=targets)
    turns = [{"role": role, "content": text} for role, text in TALK.messages]
    whole = own(tokenizer, turns)
    assert row.ids.tolist() == whole[: len(row.ids)]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    said = [text[a:b] for a, b in coded["offset_mapping"][: len(row.ids)]]
    learned = "".join(s for s, t in zip(said, row.is_target, strict=True) if t)
    assert learned.replace(" ", "").count("onamat") == (targets == "completion")
    assert "ab" in learned.replace(" ", "")
    assert "cat" not in learned and "12" not in learned


@pytest.mark.fault("conversations", "as it should be")
def test_prompt_and_completion(tokenizer):
    """The whole is what the tokenizer makes of it, or of both stretches apart."""
    pair = Example("p#0", "p", prompt="the cat", completion="a mat")
    (row,) = encode([pair], tokenizer, Template(bos=False, eos=False), 100)
    both = tokenizer("the cat\na mat", add_special_tokens=False)["input_ids"]
    assert row.ids.tolist() == both[: len(row.ids)]
    kept = tokenizer.decode(row.ids[row.is_target])
    assert kept.replace(" ", "") == "amat"


@pytest.mark.fault("tokenizers that fail", "one line")
def test_a_conversation_that_cannot_be_read():
    made = Tokenizer(models.WordPiece({"a": 0, "</s>": 1, "<s>": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = fast(made, unk_token=None)
    tokenizer.chat_template = INST
    with pytest.raises(UserError, match=r"cannot read the text '<s>\[INST\] the cat .*UNK"):
        encode([TALK], tokenizer, Template(), 500)
