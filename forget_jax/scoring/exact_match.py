"""Exact match of generated answers, strict or with SQuAD's normalisation."""

import re
import string
from collections.abc import Sequence


def strict(text: str) -> str:
    """Whitespace at the ends and case are ignored, nothing else (remix.md §4)."""
    return text.strip().lower()


def squad(text: str) -> str:
    """Lower case, without punctuation, articles and repeated spaces (Rajpurkar et al. 2016)."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


NORMALISERS = {"strict": strict, "squad": squad}


def is_correct(prediction: str, accepted: Sequence[str], normaliser: str = "strict") -> bool:
    """Whether a prediction equals any accepted answer after normalisation."""
    normal = NORMALISERS[normaliser]
    return normal(prediction) in {normal(a) for a in accepted}
