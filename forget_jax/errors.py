"""The one error a user's mistake raises: its text is the single line the command line prints."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: says what is wrong, where, and what to do about it.

    The command line prints it as one line and exits with status 2; library users catch it as a
    ValueError.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for a misspelt word, or nothing where no known one is near."""
    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return f" (did you mean {by_lower[found[0]]}?)" if found else ""
