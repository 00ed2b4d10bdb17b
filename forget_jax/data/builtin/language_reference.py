"""The Python language reference as it ships with every CPython (`pydoc_data.topics`)."""

import functools
import re
from collections.abc import Iterator

from forget_jax.data.examples import Example
from forget_jax.data.passages import is_heading, split_passages

LONGEST = 900  # characters of a passage; most have more than half of that
SHORTEST = 100  # shorter leftovers, such as a bare heading, are left out

# Topics by what they are about, for pictures and statistics; a topic not listed is "other".
_GROUPS = {
    "simple_statements": "assert assignment augassign break continue del exprlists global nonlocal "
    "pass raise return",
    "compound_statements": "async class compound else for function if try while with",
    "imports": "import typesmodules",
    "debugger": "debugger",
    "execution": "dynamic-features exceptions execmodel naming",
    "expressions": "atom-identifiers atom-literals attribute-references await binary bitwise "
    "booleans calls comparisons conversions in lambda operator-summary power shifting slicings "
    "subscriptions truth unary yield",
    "lexical": "floating id-classes identifiers imaginary integers numbers strings",
    "data_model": "attribute-access bltin-code-objects bltin-ellipsis-object bltin-null-object "
    "bltin-type-objects callable-types context-managers customization numeric-types objects "
    "sequence-types specialattrs specialnames types typesfunctions typesmethods",
    "containers": "dict lists typesmapping typesseq typesseq-mutable",
    "formatting": "formatstrings",
    "string_methods": "string-methods",
}
_GROUP_OF = {topic: group for group, topics in _GROUPS.items() for topic in topics.split()}


@functools.cache
def _examples() -> tuple[Example, ...]:
    from pydoc_data.topics import topics

    examples = []
    for topic, paragraphs in _without_repeats(topics):
        passages = split_passages("\n\n".join(paragraphs), LONGEST)
        passages = [p for p in passages if len(p) >= SHORTEST]
        source = f"language_reference/{_GROUP_OF.get(topic, 'other')}"
        for n, passage in enumerate(passages, 1):
            name = f"language_reference/{topic}" + (f" ({n})" if len(passages) > 1 else "")
            examples.append(Example(name, source, text=passage))
    return tuple(examples)


def language_reference() -> list[Example]:
    """The reference's topics as passages of at most 900 characters, most of them of over 450.

    Larger topics contain smaller ones word for word; each paragraph is kept once, in the smallest
    topic that has it. The source is the group of the topic, such as `language_reference/imports`.
    """
    return list(_examples())


def _without_repeats(topics: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Every topic, in alphabetical order, with the paragraphs that no smaller topic has.

    Left out are tables, and headings whose first paragraph is.
    """
    seen: set[str] = set()
    kept: dict[str, list[str]] = {}
    for topic in sorted(topics, key=lambda t: (len(topics[t]), t)):
        backwards: list[str] = []
        next_is_kept = False
        for paragraph in reversed(re.split(r"\n\n+", topics[topic].strip("\n"))):
            key = "".join(paragraph.split())
            keep = key not in seen and not key.startswith(("+--", "|"))
            if is_heading(paragraph):
                keep = keep and next_is_kept
            if keep:
                backwards.append(paragraph)
            next_is_kept = keep
            seen.add(key)
        kept[topic] = backwards[::-1]
    return iter(sorted(kept.items()))
