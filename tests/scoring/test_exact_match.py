"""F1 of answers, as SQuAD counts shared words, and where an answer is cut."""

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax.scoring.exact_match import f1, is_correct, spoken, squad, triviaqa


@pytest.mark.parametrize(
    ("prediction", "accepted", "score"),
    [
        ("the Paris!", ["paris"], 1.0),
        ("Paris France", ["Paris"], 2 / 3),
        ("Paris Paris", ["Paris"], 2 / 3),  # a word counts as often as both have it
        ("big red dog", ["a dog that is red"], 2 * 2 / 7),
        ("London", ["Paris"], 0.0),
        ("", ["Paris"], 0.0),
        ("the", ["a"], 1.0),  # no word is left of either
        ("Paris", ["London", "city of Paris"], 0.5),
        ("x", [], 0.0),
    ],
)
def test_f1(prediction, accepted, score):
    assert f1(prediction, accepted) == pytest.approx(score)


words = st.lists(st.sampled_from(["red", "dog", "an", "the", "Big.", "12"]), max_size=6).map(
    " ".join
)


@given(words, words)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(prediction, answer):
    p, a = (collections.Counter(squad(x).split()) for x in (prediction, answer))
    shared = sum(min(p[w], a[w]) for w in p)
    if p and a:
        precision, recall = shared / p.total(), shared / a.total()
        wanted = 2 * precision * recall / (precision + recall) if shared else 0.0
        assert f1(prediction, [answer]) == pytest.approx(wanted)
    assert f1(prediction, [answer]) == pytest.approx(f1(answer, [prediction]))
    assert not is_correct(prediction, [answer], "squad") or f1(prediction, [answer]) == 1


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("U.S._A.", "u s"),
        ("The rock-n-roll", "rock n roll"),
        ("O‘Neill’s  `an` apple", "o neill s apple"),
    ],
)
def test_triviaqa_puts_spaces_for_punctuation(text, normal):
    assert triviaqa(text) == normal
    assert triviaqa(normal) == normal  # so aliases that are normalised already still match


@pytest.fixture(scope="module")
def normalising():
    """A tokenizer that says NFKC, with a special token of its own."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


@pytest.mark.fault("answers that a tokenizer normalises", "as it should be")
@pytest.mark.parametrize("answer", ["cafe\u0301", "ﬁne", "½", "Ａ", "a<end>b", "x <end>"])
def test_an_answer_counts_as_the_tokenizer_says_it(normalising, answer):
    ids = normalising(answer, add_special_tokens=False)["input_ids"]
    said = normalising.decode(ids, skip_special_tokens=True)
    assert said != answer and not is_correct(said, [answer], "strict")
    assert is_correct(said, spoken(normalising, [answer]), "strict")
    assert is_correct(answer, spoken(normalising, [answer]), "strict")
