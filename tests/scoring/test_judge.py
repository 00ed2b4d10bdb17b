"""How recited answers are judged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax.scoring.judge import RULES, boxed, is_prefix, last_number, rouge_l


@pytest.mark.parametrize(
    ("rule", "prediction", "accepted", "right"),
    [
        ("alias", "The Beatles.", ("Beatles", "Fab Four"), True),
        ("alias", "fab four", ("Beatles", "Fab Four"), True),
        ("alias", "Beatles and others", ("Beatles",), False),
        ("within", "paris", ("Paris, France",), True),
        ("within", "", ("Paris",), True),  # as the authors have it
        ("within", "paris, france", ("Paris",), False),
        ("last_number", "so it is 1,234.", ("x = 3\n#### 1234",), True),
        ("last_number", "#### 12", ("#### 13",), False),
        ("last_number", "nothing", ("none",), False),
        ("boxed", r"hence \boxed{\frac{1}{2}}.", (r"it is $\boxed{\frac{1}{2}}$",), True),
        ("boxed", r"\boxed{2}", (r"\boxed{3}",), False),
        ("none", "a", ("a",), False),
    ],
)
def test_rules(rule, prediction, accepted, right):
    assert RULES[rule](prediction, accepted) is right


def test_a_prefix_and_what_numbers_and_boxes_hold():
    assert is_prefix(" Paris, France", "paris") and not is_prefix("Par", "Paris")
    assert last_number("no digits") == "" and last_number("-3.5 then") == "-3.5"
    assert boxed(r"\boxed{a {b} c} and more") == "a{b}c" and boxed("plain text") == "plaintext"
    assert boxed(r"\boxed{never closed") == "neverclosed"


WORDS = st.lists(st.sampled_from("abcd"), max_size=8)


def longest(a, b):
    """The length of the longest common subsequence, by its recurrence."""
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + longest(a[1:], b[1:])
    return max(longest(a[1:], b), longest(a, b[1:]))


@given(WORDS, WORDS)
def test_rouge_l_is_f1_of_the_longest_common_subsequence(said, wanted):
    found = rouge_l(" ".join(said).upper() + "!", " ".join(wanted))
    if not said or not wanted:
        assert found == 0
    else:
        common = longest(said, wanted)
        precision, recall = common / len(said), common / len(wanted)
        total = precision + recall
        assert found == pytest.approx(2 * precision * recall / total if total else 0)
