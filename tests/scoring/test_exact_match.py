"""F1 of answers, as SQuAD counts shared words, and where an answer is cut."""

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax.scoring.exact_match import f1, is_correct, squad


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
