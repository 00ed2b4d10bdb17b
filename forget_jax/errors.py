"""The one error a user's mistake raises: its text is the single line the command line prints."""

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: says what is wrong, where, and what to do about it.

    The command line prints it as one line and exits with status 2; library users catch it as a
    ValueError. Names and values of foreign files may hold ends of lines: a space stands for each.
    """

    def __init__(self, text: str = ""):
        super().__init__(" ".join(str(text).splitlines()))


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for a misspelt word, or nothing where no known one is near."""
    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return f" (did you mean {by_lower[found[0]]}?)" if found else ""


# What steers a terminal, turns the direction of all text after it, or is no character at all.
_WILD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    """The text with its wild characters written as Python writes them, such as `\\x1b`."""
    return _WILD.sub(lambda found: repr(found[0])[1:-1], text)


def one_line(text: str, most: int = 2000) -> str:
    """The text on one line, for people to read; cut where it is longer than a screen."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 1]}…"
