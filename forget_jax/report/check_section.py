"""The section of `check`: what fine-tunes lost of named sets, against limits and noise."""

from collections.abc import Sequence
from dataclasses import dataclass

from forget_jax.report.plots import SERIES, Row, row_plot
from forget_jax.report.section import (
    Cell,
    Figure,
    Section,
    Table,
    Text,
    count,
    number,
    percent,
    shorten,
)

_ROWS = 40  # of the picture


@dataclass(frozen=True)
class Checked:
    """One fine-tune on one set; None where a figure is missing.

    Attributes:
      z, low, high: mean z over examples and its interval.
      z_tokens: mean over tokens.
      noise: the |mean z| that no forgetting can give.
      lost, gained, p: answers, as texts.
      limit: of z.
      verdict: in words; `over` where a limit is passed.
      worst: (example, z, whether its answer was lost, text).
    """

    model: str
    set: str
    examples: int
    z: float | None
    low: float | None
    high: float | None
    z_tokens: float | None
    noise: float | None
    lost: str
    gained: str
    p: str
    limit: float | None
    verdict: str
    over: bool
    worst: Sequence[tuple[str, float, bool, str]]


def check_section(
    found: Sequence[Checked], over: Sequence[str], unit: str, level: float
) -> Section:
    """The verdict, and what it rests on.

    Args:
      found: every fine-tune on every set.
      over: every limit that is passed, in words.
      unit: of z.
      level: of the intervals.
    """
    models = list(dict.fromkeys(c.model for c in found))
    several = len(models) > 1
    shown = [c for c in found if c.z is not None][:_ROWS]
    names = [f"{shorten(c.set, 30)}, {shorten(c.model, 30)}" if several else c.set for c in shown]
    alt = "Mean z: " + ", ".join(
        f"{shorten(n, 60)} {number(c.z, sign=True)}" for n, c in zip(names, shown, strict=True)
    )
    alt += "."
    figures: tuple[Figure, ...] = ()
    if shown:
        rows = [
            Row(n, c.z or 0.0, _number(c.low), _number(c.high), colour=SERIES[1 if c.over else 0])
            for n, c in zip(names, shown, strict=True)
        ]
        caption = (
            f"Dots are means over examples, lines {percent(level)} intervals over examples. Right "
            "of zero is forgotten. One fine-tune is one training run, so one seed."
        )
        plot = row_plot("check-z", rows, f"mean z ({unit})", alt, zero=True)
        figures = (Figure("Mean z by set", caption, alt, plot),)
    return Section(
        "check",
        "What was lost",
        _lead(found, over, unit),
        figures,
        (_table(found, unit, level),),
        tuple(_text(c, several, *w) for c in found for w in c.worst),
        "Forgotten most in each set",
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _lead(found: Sequence[Checked], over: Sequence[str], unit: str) -> str:
    if over:
        lead = f"{count(len(over), 'limit')} passed: {'; '.join(over[:3])}."
    elif any(c.verdict != "no limit" for c in found):
        lead = "Everything that was checked is within its limits."
    else:
        lead = "No limit was given, so nothing is judged."
    known = [c for c in found if c.z is not None]
    if known:
        worst = max(known, key=lambda c: _number(c.z))
        lead += (
            f" Lost most is {shorten(worst.set, 60)} under {shorten(worst.model, 60)}: mean z "
            f"{number(worst.z, sign=True)} {unit}."
        )
        noises = [c.noise for c in known if c.noise is not None]
        if noises:
            lead += f" Below {number(max(noises))} a mean z is noise of this measurement."
    return lead


def _table(found: Sequence[Checked], unit: str, level: float) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            *(c.model, c.set, c.examples, c.z, c.low, c.high, c.z_tokens, c.noise),
            *(c.lost, c.gained, c.p, c.limit, c.verdict),
        )
        for c in found
    ]
    columns = (
        *("fine-tune", "set", "examples", "mean z", f"{percent(level)} from", "to"),
        *("over tokens", "noise floor", "lost", "gained", "p (McNemar)", "limit", "verdict"),
    )
    return Table(
        "Every fine-tune on every set",
        columns,
        tuple(rows),
        f"z in {unit}: the loss after less the loss before. Lost answers were right before and "
        "wrong after, gained ones the reverse.",
    )


def _text(c: Checked, several: bool, name: str, z: float, lost: bool, text: str) -> Text:
    where = f"{shorten(c.set, 60)} · " + (f"{shorten(c.model, 60)} · " if several else "")
    facts = f"{where}z {number(z, sign=True)}" + (", answer lost" if lost else "")
    return Text(shorten(name, 120), facts, text.strip())
