"""How a recited answer is judged: equality, aliases, a last number, a box, shared words."""

import re
from collections.abc import Callable, Mapping, Sequence

from rapidfuzz.distance import LCSseq

from forget_jax.scoring.exact_match import is_correct, strict

WORD = re.compile(r"[a-z0-9]+")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def rouge_l(prediction: str, answer: str) -> float:
    """ROUGE-L's F1 (Lin 2004): the longest common subsequence of words, without stemming.

    Words are runs of letters a-z and digits, lower case, as in Google's rouge_score; 0 where either
    has none.
    """
    said, wanted = (WORD.findall(text.lower()) for text in (prediction, answer))
    if not said or not wanted:
        return 0.0
    return 2 * LCSseq.similarity(said, wanted) / (len(said) + len(wanted))


def is_prefix(prediction: str, answer: str) -> bool:
    """Whether a prediction begins with the answer: right, and goes on."""
    return strict(prediction).startswith(strict(answer))


def last_number(text: str) -> str:
    """The number after `####`, else the last of the text, without commas; empty for none."""
    found = NUMBER.findall(text.rpartition("####")[2]) or NUMBER.findall(text)
    return found[-1].replace(",", "").rstrip(".") if found else ""


def boxed(text: str) -> str:
    r"""What the last `\boxed{}` holds, without blanks; else the whole text."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return "".join(text.split())
    depth, begin = 0, start + len("\\boxed")
    for i in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return "".join(text[begin + 1 : i].split())
    return "".join(text[begin + 1 :].split())


def _alias(prediction: str, accepted: Sequence[str]) -> bool:
    return is_correct(prediction, accepted, "squad")


def _within(prediction: str, accepted: Sequence[str]) -> bool:
    return strict(prediction) in strict(accepted[0])


def _number(prediction: str, accepted: Sequence[str]) -> bool:
    said = last_number(prediction)
    return bool(said) and said == last_number(accepted[0])


def _boxed(prediction: str, accepted: Sequence[str]) -> bool:
    return boxed(prediction) == boxed(accepted[0])


def _never(prediction: str, accepted: Sequence[str]) -> bool:
    return False


# Whether a prediction is right, given the accepted answers, the trained one first.
RULES: Mapping[str, Callable[[str, Sequence[str]], bool]] = {
    "alias": _alias,  # equals any answer as SQuAD normalises
    "within": _within,  # is a part of the answer, even an empty one (arXiv 2411.07175)
    "last_number": _number,  # has the answer's last number
    "boxed": _boxed,  # boxes what the answer boxes
    "none": _never,  # is not asked
}
