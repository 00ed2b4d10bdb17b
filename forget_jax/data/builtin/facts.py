"""Arbitrary facts that no model can know before it is trained on them: REMIX's key-value recall.

Key-value recall (KVR) follows arXiv 2411.07175: random keys and values of eight characters. The
paper's generator is not public; the alphabet and the seed are ours. `short_facts` asks for the same
kind of memory in three common words, which a model of half a million parameters can hold.
"""

import random
from collections.abc import Callable

from forget_jax.data.builtin.words import COMMON_WORDS
from forget_jax.data.examples import Example

ROWS = 4000  # half A is the first 2000, half B the rest
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def facts(half: str = "A", *, seed: int = 0) -> list[Example]:
    """2000 facts `The value of key fw2e54ad is?` -> `kc87to2e`; halves A and B share no key."""
    rng = random.Random(f"facts {seed}")

    def string() -> str:
        return "".join(rng.choice(CHARACTERS) for _ in range(8))

    pairs = _unique(lambda: (string(), string()))
    return _half_of("facts", half, [(f"The value of key {k} is?", v) for k, v in pairs])


def short_facts(half: str = "A", *, seed: int = 0) -> list[Example]:
    """2000 facts of common words, `What is the river stone?` -> `yellow`; A and B share no key."""
    rng = random.Random(f"short facts {seed}")

    def pair() -> tuple[str, str]:
        return " ".join(rng.sample(COMMON_WORDS, 2)), rng.choice(COMMON_WORDS)

    return _half_of("short_facts", half, [(f"What is the {k}?\n", v) for k, v in _unique(pair)])


def _unique(draw: Callable[[], tuple[str, str]]) -> list[tuple[str, str]]:
    """The first ROWS drawn pairs with keys not drawn before."""
    value_of: dict[str, str] = {}
    while len(value_of) < ROWS:
        key, value = draw()
        value_of.setdefault(key, value)
    return list(value_of.items())


def _half_of(corpus: str, half: str, rows: list[tuple[str, str]]) -> list[Example]:
    start = {"A": 0, "B": ROWS // 2}[half]
    source = corpus if half == "A" else f"{corpus}/{half}"
    return [
        Example(f"{corpus}#{i}", source, prompt=prompt, completion=value)
        for i, (prompt, value) in enumerate(rows[start : start + ROWS // 2], start)
    ]
