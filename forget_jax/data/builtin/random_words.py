"""Passages of random dictionary words: the unlearnable text that REMIX mixes in (arXiv 2411.07175).

The paper samples uniformly from BSD's web2, which cannot be shipped. By default words come from the
standard library's own texts (`library_words`); a system with a words file, such as
`/usr/share/dict/words`, can give it.
"""

import random

from forget_jax.data.builtin.words import library_words
from forget_jax.data.examples import Example
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike

ROWS = 4000  # the paper's mixing ratio of 2 against 2000 facts


def random_words(
    words: int = 50, *, rows: int = ROWS, seed: int = 0, words_file: PathLike | None = None
) -> list[Example]:
    """Passages to memorise: the prompt shows `words` random words, the completion is as many more.

    The split into prompt and target is not known from the paper; it mirrors that of its generic
    rows. Words are drawn uniformly and with replacement, from `words_file` (one a line) if given.
    """
    vocabulary = _words_of(words_file) if words_file is not None else library_words()
    rng = random.Random(f"random words {words} {seed}")
    source = "random_words" if words == 50 else f"random_words/{words}"
    return [
        Example(
            f"{source}#{i}",
            source,
            prompt="Memorize the following random-string passage: "
            + " ".join(rng.choices(vocabulary, k=words))
            + "\n",
            completion=" ".join(rng.choices(vocabulary, k=words)),
        )
        for i in range(rows)
    ]


def _words_of(path: PathLike) -> tuple[str, ...]:
    try:
        words = tuple(Path(path).read_text().split())
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read the words file {path}: {e}") from e
    if not words:
        raise UserError(f"the words file {path} is empty")
    return words
