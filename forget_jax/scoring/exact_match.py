"""Exact match and F1 of generated answers, strict or with SQuAD's normalisation."""

import collections
import re
import string
from collections.abc import Sequence
from typing import Any

from forget_jax.lm.hf import tokenizer as tokenizers

# Where an answer ends, beside EOS and the most tokens (arXiv 2406.14026: at the first blank line).
CUTS: dict[str, tuple[str, ...]] = {"blank_line": ("\n\n",), "newline": ("\n",), "none": ()}


def strict(text: str) -> str:
    """Whitespace at the ends and case are ignored, nothing else (arXiv 2411.07175)."""
    return text.strip().lower()


def squad(text: str) -> str:
    """Lower case, without punctuation, articles and repeated spaces (Rajpurkar et al. 2016)."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def triviaqa(text: str) -> str:
    """As the evaluation of TriviaQA has it (Joshi et al. 2017): punctuation becomes a space."""
    text = text.replace("_", " ").lower()
    text = "".join(" " if c in TRIVIA_PUNCTUATION else c for c in text)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


TRIVIA_PUNCTUATION = frozenset(string.punctuation + "‘’´`")
NORMALISERS = {"strict": strict, "squad": squad, "triviaqa": triviaqa}


def spoken(tokenizer: Any, accepted: Sequence[str]) -> tuple[str, ...]:
    """Accepted answers, and each as the tokenizer would say it: what a model can say at all.

    A tokenizer that normalises (NFC, NFKC) never gives back another form of a character, and
    special tokens inside an answer are dropped from what is said.
    """
    ids = tokenizers.encode(tokenizer, accepted)["input_ids"]
    said = [tokenizer.decode(x, skip_special_tokens=True) for x in ids]
    return tuple(dict.fromkeys((*accepted, *said)))


def is_correct(prediction: str, accepted: Sequence[str], normaliser: str = "strict") -> bool:
    """Whether a prediction equals any accepted answer after normalisation."""
    normal = NORMALISERS[normaliser]
    return normal(prediction) in {normal(a) for a in accepted}


def f1(prediction: str, accepted: Sequence[str], normaliser: str = "squad") -> float:
    """Words that a prediction shares with an answer, as F1, over the best answer accepted.

    As in SQuAD (Rajpurkar et al. 2016): bags of words after normalisation; where either has no
    word, 1 if both have none and else 0.
    """
    normal = NORMALISERS[normaliser]
    predicted = normal(prediction).split()
    return max((_f1(predicted, normal(answer).split()) for answer in accepted), default=0.0)


def _f1(predicted: list[str], wanted: list[str]) -> float:
    if not predicted or not wanted:
        return float(predicted == wanted)
    common = (collections.Counter(predicted) & collections.Counter(wanted)).total()
    return 2 * common / (len(predicted) + len(wanted))
