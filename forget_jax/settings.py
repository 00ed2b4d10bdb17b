"""Tables of settings: a frozen dataclass with a line for every field, and the check of its values.

A line reads `steps: int = setting(100, "optimizer steps", least=1)`; a group of fields is a field
whose default is a table itself.
"""

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import Any, Literal

from forget_jax.errors import UserError, nearest

Choices = Collection[str] | Callable[[], Collection[str]]
Input = Literal["", "rows", "named rows", "named prompts", "model", "adapter", "file"]
WHOLE = 2**63 - 1  # the largest whole number that every array and every reader of JSON holds


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a field means and which values it may have.

    Attributes:
      meaning: one line for people.
      least, most: the smallest and the largest value.
      above, below: what the value must be above or below.
      choices: the words that a text may be, or a function that gives them where they lie in a
        module that is slow to import.
      allows_text: whether a text may stand though it is none of the choices; raises UserError
        where it is meant so and wrong.
      free: whether it may change when a run starts again: nothing that is kept depends on it.
      input: what a text names, of which a run remembers what it held: rows of data (also as
        NAME=DATASET, and those that are only asked), a model, an adapter, or a file (or folder) of
        another kind.
    """

    meaning: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Choices | None = None
    allows_text: Callable[[str], bool] | None = None
    free: bool = False
    input: Input = ""

    def allows(self, x: float) -> bool:
        """Whether a number is finite, of at most 63 bits and within the bounds."""
        return (
            (abs(x) <= WHOLE if isinstance(x, int) else math.isfinite(x))
            and (self.least is None or x >= self.least)
            and (self.most is None or x <= self.most)
            and (self.above is None or x > self.above)
            and (self.below is None or x < self.below)
        )

    def bounds(self) -> str:
        """The bounds in words, such as `0 or more and below 1`; empty where there are none."""
        said = {
            f"{self.least} or more": self.least,
            f"above {self.above}": self.above,
            f"{self.most} or less": self.most,
            f"below {self.below}": self.below,
        }
        words = [words for words, bound in said.items() if bound is not None]
        return " and ".join(words) or "a number of at most 63 bits"

    def words(self) -> Collection[str]:
        """The words that a text may be; none where every text may stand."""
        return (self.choices() if callable(self.choices) else self.choices) or ()


def setting(
    default: Any,
    meaning: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Choices | None = None,
) -> Any:
    """A field of a table; of a tuple the bounds and choices are its elements' (see `Rule`)."""
    rule = Rule(meaning, least, most, above, below, choices)
    return dataclasses.field(default=default, metadata={"rule": rule})


def free(field: Any) -> Any:
    """A field of `setting` that may change when a run starts again."""
    return _marked(field, free=True)


def or_text(allows: Callable[[str], bool], field: Any) -> Any:
    """A field of `setting` that also takes texts beside its choices (see `Rule`)."""
    return _marked(field, allows_text=allows)


def names(what: Input, field: Any) -> Any:
    """A field of `setting` whose text, or texts, name an input of the run (see `Rule`)."""
    return _marked(field, input=what)


def _marked(field: Any, **marks: Any) -> Any:
    rule = dataclasses.replace(field.metadata["rule"], **marks)
    return dataclasses.field(default=field.default, metadata={"rule": rule})


def without(group: Any, *names: str) -> Any:
    """A group of fields in a table whose configs do not have those of these names.

    What the group holds under them stays its default and is not used.
    """
    return dataclasses.field(default=group, metadata={"without": names})


def leaves(table: Any, prefix: str = "", left_out: Collection[str] = ()) -> dict[str, Any]:
    """A table's fields (`dataclasses.Field`) in order, those of its groups under dotted keys."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(table):
        if field.name in left_out:
            continue
        key = prefix + field.name
        if dataclasses.is_dataclass(field.type):
            found |= leaves(field.type, f"{key}.", field.metadata.get("without", ()))
        else:
            found[key] = field
    return found


def rule(table: Any, key: str) -> Rule:
    """The rule of a field by its dotted key.

    Raises:
      KeyError: the table has no such field.
    """
    found: Rule = leaves(table)[key].metadata["rule"]
    return found


def shown(value: Any, most: int = 80) -> str:
    """A value as Python writes it, cut where it is long, for the line of an error."""
    try:
        text = repr(value)
    except Exception:  # a number of thousands of digits, or an object's own mistake
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def is_text(value: str) -> bool:
    """Whether a text can be written to files and be part of a path: UTF-8, without NUL."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8
        return False


def check(settings: Any, prefix: str = "config") -> None:
    """Refuses values that the table does not allow.

    Raises:
      UserError: a number out of its bounds, or a text that is none of the field's choices.
    """
    for field in dataclasses.fields(settings):
        key, value = f"{prefix}.{field.name}", getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            check(value, key)
        else:
            several = isinstance(value, tuple)
            for x in value if several else (value,):
                _check(key, x, field.metadata["rule"], several)


def _check(key: str, x: Any, rule: Rule, several: bool) -> None:
    if isinstance(x, str):
        words = rule.words()
        if words and x not in words and not (rule.allows_text and rule.allows_text(x)):
            known, near = ", ".join(word for word in words if word), nearest(x, words)
            raise UserError(
                f"{key} names {shown(x)}{near}; there are {known}"
                if several
                else f"{key} is {shown(x)}{near}; it must be one of {known}"
            )
    elif not isinstance(x, bool) and not rule.allows(x):
        raise UserError(f"{key} is {shown(x)}; it must be {rule.bounds()}")
