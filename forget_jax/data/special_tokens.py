"""Special tokens that stand in the texts themselves, such as `<s>` in a page of HTML."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from forget_jax.data.examples import Example

READINGS = ("parse", "text")


def pattern(tokenizer: Any) -> re.Pattern[str] | None:
    """Finds the tokenizer's special tokens in a text; None where it has none."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    names = {str(token) for token in added if getattr(token, "special", False)}
    names |= {str(token) for token in getattr(tokenizer, "all_special_tokens", ())}
    longest_first = sorted(filter(None, names), key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def found(example: Example, finder: re.Pattern[str] | None) -> list[str]:
    """The special tokens in what an example holds; `finder` as `pattern` gives it."""
    plain = (example.text, example.prompt, example.completion)
    texts = [*(text for text in plain if text), *(text for _, text in example.messages)]
    return [name for text in texts for name in finder.findall(text)] if finder else []


def line(examples: Sequence[Example], tokenizer: Any, reading: str) -> str:
    """How many special tokens stand in the texts and how they are read; empty where none do."""
    finder = pattern(tokenizer)
    if finder is None:
        return ""
    count: Counter[str] = Counter()
    rows = 0
    for example in examples:
        here = found(example, finder)
        count.update(here)
        rows += bool(here)
    if not rows:
        return ""
    named = ", ".join(name for name, _ in count.most_common(3)) + (", …" if len(count) > 3 else "")
    how = (
        "become special tokens (data.special_tokens=text reads them as text)"
        if reading == "parse"
        else "are read as text"
    )
    return f"{count.total()} special tokens ({named}) in {rows} of {len(examples)} examples {how}"
