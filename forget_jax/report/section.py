"""What a page is made of: sections with figures, tables and texts, and how numbers are written."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from forget_jax.errors import printable


@dataclass(frozen=True)
class Figure:
    """One picture. `markup` is trusted HTML or SVG made by this package, never a user's text."""

    title: str
    caption: str
    alt: str
    markup: Markup
    legend: tuple[tuple[str, str, str], ...] = ()  # (CSS colour, "line" | "dash" | "dot", label)
    wide: bool = False
    interactive: bool = False  # drawn by explorer.js, which the page then holds


@dataclass(frozen=True)
class Bar:
    """A table cell with a bar from zero to its value; `left` and `width` are percentages."""

    text: str
    left: float
    width: float
    negative: bool


Cell = str | int | float | None | Bar


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns; text cells align left, numbers and bars right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Text:
    """One example shown as text: its name, what is known about it, and an excerpt ("" if none)."""

    title: str
    facts: str
    body: str


@dataclass(frozen=True)
class Section:
    """One chapter of the page.

    Attributes:
      key: its id, one a page.
      lead: what is seen and what it means, in plain words.
      opening: what of it the page opens with: a sentence or two, or nothing.
      files: what must lie in the folder `report` beside the page, by name.
    """

    key: str
    title: str
    lead: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    texts: tuple[Text, ...] = ()
    texts_title: str = ""
    opening: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def number(value: float | None, sign: bool = False, decimals: int | None = None) -> str:
    """A number as the page writes it, with a true minus sign; "–" if there is none or not finite.

    Args:
      value: the number.
      sign: put a + before positive ones.
      decimals: as many, in place of three significant digits.
    """
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int | np.integer):
        text = f"{value:,}"
    elif value == 0 and decimals is None:
        text = "0"
    else:
        places = _places(value) if decimals is None else decimals
        text = f"{value:.1e}" if places > 6 else f"{value:,.{max(places, 0)}f}"
    if sign and value > 0:
        text = "+" + text
    return text.replace("-", "−")


def _places(value: float) -> int:
    """Decimals that show three significant digits; negative for thousands and more."""
    return 2 - math.floor(math.log10(abs(value)))


def column_decimals(cells: Iterable[Cell]) -> int | None:
    """Decimals for a table's column: its largest number's, or None where scales differ a lot."""
    sizes = [abs(c) for c in cells if isinstance(c, float) and math.isfinite(c) and c]
    if not sizes or max(sizes) > 1000 * min(sizes):
        return None
    return max(0, _places(max(sizes)))


def percent(share: float) -> str:
    """A share as a whole percentage; never rounded to all or nothing."""
    if not math.isfinite(share):
        return "–"
    if 0 < share < 0.01:
        return "<1 %"
    if 0.99 < share < 1:
        return ">99 %"
    return f"{100 * share:.0f} %"


def count(n: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def bars(values: Sequence[float], texts: Sequence[str] | None = None) -> list[Bar]:
    """Cells whose bars share one scale, from the least to the greatest value and 0.

    Args:
      values: where the bars end; what is not finite has none.
      texts: written beside the bars, in place of the numbers.
    """
    clean = np.nan_to_num(np.asarray(values, float), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = min(0.0, clean.min(initial=0.0)), max(0.0, clean.max(initial=0.0))
    span = (high - low) or 1.0
    places = column_decimals(clean.tolist())
    written = texts or [number(v, sign=low < 0, decimals=places) for v in values]
    return [
        Bar(
            text,
            left=round(100 * (min(v, 0.0) - low) / span, 2),
            width=round(100 * abs(v) / span, 2),
            negative=bool(v < 0),
        )
        for v, text in zip(clean, written, strict=True)
    ]


def shorten(name: str, limit: int) -> str:
    """At most `limit` characters on one line, cut in the middle where names differ least."""
    name = printable(" ".join(name.split()))
    if len(name) <= limit:
        return name
    tail = (limit - 1) // 2
    return name[: limit - 1 - tail] + "…" + name[len(name) - tail :]


def _alike(names: Sequence[str]) -> int:
    """How many characters, whole words only, all names begin with alike; 0 if they are the same."""
    low, high = min(names), max(names)
    end = next((k for k, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), 0)
    while end and low[end - 1].isalnum():
        end -= 1
    return end


def short_names(names: Sequence[str], limit: int) -> list[str]:
    """`shorten` for a whole axis: names that would become equal lose what they begin with alike.

    Those that are still equal are numbered by their place.
    """
    first = [shorten(n, limit) for n in names]
    alike: dict[str, list[str]] = {}
    for name, s in zip(names, first, strict=True):
        alike.setdefault(s, []).append(name)
    cut = {s: _alike(group) for s, group in alike.items() if len(group) > 1}
    names = ["…" + n[cut[s] :] if s in cut else n for n, s in zip(names, first, strict=True)]
    short = [shorten(n, limit) for n in names]
    taken = {s: short.count(s) for s in set(short)}
    return [
        s if taken[s] == 1 else f"{shorten(n, limit - 5)} #{k + 1}"
        for k, (n, s) in enumerate(zip(names, short, strict=True))
    ]


def finite_mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean over the finite entries; NaN (without a warning) where there are none."""
    known = np.isfinite(values)
    counts = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def floats(values: Iterable[float | None]) -> list[float]:
    """NaN where a figure is missing, as null in a summary's JSON."""
    return [math.nan if v is None else float(v) for v in values]


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)
