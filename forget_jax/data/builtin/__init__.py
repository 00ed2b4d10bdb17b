"""Corpora that need no network: `load(name)` for `builtin:NAME`, one file a corpus.

All are deterministic. Texts come from the running Python's own standard library, so they differ a
little between Python versions; generated rows depend on the seed alone.
"""

from collections.abc import Callable

from forget_jax.data.builtin import (
    docstrings,
    facts,
    language_reference,
    random_words,
    skills,
)
from forget_jax.data.examples import Example
from forget_jax.errors import UserError, nearest


def _half(argument: str, name: str) -> str:
    if argument not in ("", "A", "B"):
        raise UserError(f"builtin:{name}/{argument}: the halves are {name} and {name}/B")
    return argument or "A"


def _words(argument: str) -> int:
    if not argument:
        return 50
    if not argument.isascii() or not argument.isdigit() or not 1 <= int(argument) <= 1000:
        raise UserError(
            f"builtin:random_words/{argument}: the length is a number of words from 1 to 1000"
        )
    return int(argument)


def _modules(argument: str) -> list[str]:
    return [m.strip() for m in argument.split(",") if m.strip()]


# What follows the name after a slash, and the seed, make the corpus.
_LOADERS: dict[str, Callable[[str, int], list[Example]]] = {
    "language_reference": lambda argument, seed: language_reference.language_reference(),
    "docstrings": lambda argument, seed: docstrings.docstrings(_modules(argument)),
    "docstring_task": lambda argument, seed: docstrings.docstring_task(_modules(argument)),
    "skill": lambda argument, seed: skills.skill(argument, seed=seed),
    "skills": lambda argument, seed: skills.skills(_modules(argument), seed=seed),
    "facts": lambda argument, seed: facts.facts(_half(argument, "facts"), seed=seed),
    "short_facts": lambda argument, seed: facts.short_facts(
        _half(argument, "short_facts"), seed=seed
    ),
    "random_words": lambda argument, seed: random_words.random_words(_words(argument), seed=seed),
}
_TAKE_NO_ARGUMENT = ("language_reference",)


def names() -> list[str]:
    """Every name `load` takes; `docstrings`, `docstring_task` and `skills` also take `/a,-b`."""
    plain = [name for name in _LOADERS if name != "skill"]
    return [*plain, "facts/B", "short_facts/B", *(f"skill/{name}" for name in skills.SKILLS)]


def load(name: str, seed: int = 0) -> list[Example]:
    """The examples of a corpus; raises UserError for an unknown name.

    The seed makes the generated corpora (skills, facts, random_words); texts do not depend on it.
    """
    corpus, slash, argument = name.partition("/")
    if corpus not in _LOADERS or (slash and corpus in _TAKE_NO_ARGUMENT):
        known = names()
        near = nearest(name, known)
        raise UserError(f"builtin:{name} does not exist{near}; there are {', '.join(known)}")
    return _LOADERS[corpus](argument, seed)
