"""Unrelated rows that arms mix in: random word sequences, and passages of text to complete."""

import re
from collections.abc import Mapping, Sequence

from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader, split_slice, whole
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.factoids.mitigations import Mix
from forget_jax.factoids.settings import Facts as Settings
from forget_jax.randomness import generator

ASKED = "Complete the following partial passage:\n\n"
RANDOM = "builtin:random_words"


def generic(texts: Sequence[Example], words: int, seed: int) -> list[Example]:
    """Passages in two parts of so many words, in random order (arXiv 2411.07175).

    A text of less than twice as many is left out; of a longer one only its beginning is used.
    """
    found = []
    for e in texts:
        held = whole(e).split()
        if len(held) >= 2 * words:
            first, rest = " ".join(held[:words]), " ".join(held[words : 2 * words])
            found.append(Example(e.name, "generic", prompt=ASKED + first, completion=rest))
    order = generator(seed, "mixing", "generic").permutation(len(found))
    return [found[i] for i in order]


def rows(
    reader: Reader, settings: Settings, wanted: Mapping[Mix, int], seed: int
) -> dict[Mix, list[Encoded]]:
    """The rows of every mix that arms name, as many as each needs.

    Args:
      wanted: by mix, how many rows.

    Raises:
      UserError: a source that is not given or has no length of its own, or one of fewer rows.
    """
    found = {}
    for mix, count in wanted.items():
        examples, named = _examples(reader, settings, mix, seed)
        if len(examples) < count:
            raise UserError(
                f"{named} has {len(examples)} rows to mix in, and a ratio of {mix.ratio:g} needs "
                f"{count}; lower the ratio, or give more"
            )
        found[mix] = reader.encode(examples[:count], scored=False)[0] if count else []
    return found


def _examples(reader: Reader, settings: Settings, mix: Mix, seed: int) -> tuple[list[Example], str]:
    """All rows of a source, and its name."""
    spec = settings.mix if mix.source == "random" else settings.generic
    if not spec:
        field = "mix" if mix.source == "random" else "generic"
        raise UserError(f"config.{field} names no data set, and an arm mixes it in")
    if mix.source == "generic":
        texts = reader.read((spec,)).examples
        return generic(texts, mix.length or settings.generic_words, seed), f"generic ({spec})"
    if mix.length:
        name = split_slice(spec)[0]
        if re.fullmatch(rf"{RANDOM}(/\d+)?", name) is None:
            raise UserError(
                f"an arm asks for random/{mix.length}, but {spec} has rows of its own length: set "
                f"mix={RANDOM}"
            )
        spec = f"{RANDOM}/{mix.length}"
    return reader.read((spec,)).examples, spec
