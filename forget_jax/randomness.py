"""Named randomness: every stream is derived from (seed, purpose, ...), and no two share one.

A seed alone is no name: two uses of one seed draw the same numbers, and a counter beside it meets
every other counter. Here seed, purpose and whatever else tells streams apart are hashed
together (SHA-256), so streams of different names are independent for all that is known.
"""

import hashlib
import json
import operator
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    import jax

Purpose = Literal[
    "initial parameters",  # of a model trained from scratch
    "initial adapter",
    "dropout",  # by step and microbatch
    "order of rows",  # by epoch
    "held-out split",
    "mixing",  # where mixed examples stand in a task's stream
    "replay pool",  # which upstream examples may be replayed, and which are measured
    "replay draw",  # which of the pool are replayed, by refresh
    "influence",  # directions and signs of sketched gradients
    "generated text",  # what the base writes
    "random probes",  # which examples are measured where none is preferred
    "task",  # a fine-tune's own seed, by name and repeat
]
PURPOSES = frozenset(get_args(Purpose))


def generator(seed: int, purpose: Purpose, *more: int | str) -> np.random.Generator:
    """A NumPy generator (Philox with a key of 128 bits) of one stream.

    Args:
      seed: any integer, of the run or of a task.
      purpose: what the numbers are for: one of PURPOSES.
      more: what else tells streams of the purpose apart, such as an epoch or a name. `1` and `"1"`
        differ, and so do ("ab", "c") and ("a", "bc").

    Raises:
      ValueError: a purpose that is not in PURPOSES.
      TypeError: something that is neither a whole number nor a string.
    """
    bits = int.from_bytes(_digest(seed, purpose, more)[:16], "little")
    return np.random.Generator(np.random.Philox(key=bits))


def key(seed: int, purpose: Purpose, *more: int | str) -> "jax.Array":
    """A jax key (of the default implementation, 64 bits of it) of one stream; as `generator`."""
    return as_key(words(seed, purpose, *more))


def words(seed: int, purpose: Purpose, *more: int | str) -> np.ndarray:
    """What `as_key` makes the key of a stream of, uint32 (2,); as `generator`.

    For keys of many streams inside a compiled function.
    """
    return np.frombuffer(_digest(seed, purpose, more)[16:24], "<u4")


def as_key(words: "np.ndarray | jax.Array") -> "jax.Array":
    """The jax key of two words."""
    import jax

    return jax.random.fold_in(jax.random.key(words[0]), words[1])


def seed_of(seed: int, purpose: Purpose, *more: int | str) -> int:
    """A seed of 32 bits, where a plain number is stored or asked for; as `generator`.

    Among n of them two are equal with a probability of about n² / 2³³.
    """
    return int.from_bytes(_digest(seed, purpose, more)[24:28], "little")


def _digest(seed: int, purpose: Purpose, more: tuple[int | str, ...]) -> bytes:
    """32 bytes of which generators, keys and seeds each use their own.

    The text hashed is a JSON array, whose quotes and commas keep the parts apart.
    """
    if purpose not in PURPOSES:
        raise ValueError(f"{purpose!r} is no purpose of randomness; there are {sorted(PURPOSES)}")
    parts = [x if isinstance(x, str) else int(operator.index(x)) for x in more]
    return hashlib.sha256(json.dumps([operator.index(seed), purpose, *parts]).encode()).digest()
