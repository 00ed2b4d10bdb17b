"""Generated skills: small rules a tiny model can learn, as prompt and completion.

`SKILLS` maps a name onto a rule in `skill_rules`, which makes one row from a random generator.
"""

import random
from collections.abc import Callable, Sequence

from forget_jax.data.builtin import skill_rules
from forget_jax.data.examples import Example
from forget_jax.errors import UserError, nearest

ROWS = 2000
_TRIES = 20  # draws for a new row before the rule counts as exhausted

SKILLS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    rule.__name__: rule
    for rule in (
        skill_rules.addition,
        skill_rules.subtraction,
        skill_rules.comparison,
        skill_rules.parity,
        skill_rules.sequence,
        skill_rules.roman_numerals,
        skill_rules.copying,
        skill_rules.reversal,
        skill_rules.sorting,
        skill_rules.counting,
        skill_rules.letter_position,
        skill_rules.successor,
        skill_rules.uppercase,
        skill_rules.brackets,
        skill_rules.palindromes,
        skill_rules.lookup,
        skill_rules.calendar,
        skill_rules.analogies,
        skill_rules.odd_one_out,
        skill_rules.categories,
    )
}


def skill(name: str, *, rows: int = ROWS, seed: int = 0) -> list[Example]:
    """Up to `rows` rows `skill/<name>#<n>` of different prompts; more rows extend fewer ones.

    Raises UserError for an unknown skill.
    """
    if name not in SKILLS:
        raise UserError(
            f"builtin:skill/{name}: no such skill{nearest(name, SKILLS)}; there are "
            f"{', '.join(SKILLS)}"
        )
    rng = random.Random(f"skill {name} {seed}")
    completion_of: dict[str, str] = {}
    misses = 0
    while len(completion_of) < rows and misses < _TRIES:
        prompt, completion = SKILLS[name](rng)
        misses = misses + 1 if prompt in completion_of else 0
        completion_of.setdefault(prompt, completion)
    source = f"skill/{name}"
    return [
        Example(f"{source}#{i}", source, prompt=p, completion=c)
        for i, (p, c) in enumerate(completion_of.items())
    ]


def skills(chosen: Sequence[str] = (), *, rows: int = 500, seed: int = 0) -> list[Example]:
    """The first `rows` of every skill, one of each in turn; the source is `skill/<name>`.

    Args:
      chosen: skills to take; or, each with a leading `-`, to leave out; none is all.
    """
    for name in chosen:
        if name.removeprefix("-") not in SKILLS:
            raise UserError(f"builtin:skills: no skill {name!r}; there are {', '.join(SKILLS)}")
    out = {name.removeprefix("-") for name in chosen if name.startswith("-")}
    if out and len(out) < len(set(chosen)):
        raise UserError("builtin:skills: name skills to take or, with -, to leave out; not both")
    taken = [name for name in SKILLS if name not in out] if out else chosen or list(SKILLS)
    columns = [skill(name, rows=rows, seed=seed) for name in taken]
    return [column[i] for i in range(rows) for column in columns if i < len(column)]
