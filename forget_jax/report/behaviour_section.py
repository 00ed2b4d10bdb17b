"""The section of `check` on prompts: how fine-tunes' answers differ from their base's."""

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
class Flips:
    """What was so before and after (right answers, refusals), of how many, and McNemar's p."""

    before: int
    after: int
    lost: int
    gained: int
    p: float


@dataclass(frozen=True)
class Behaved:
    """One fine-tune on one set of prompts.

    Attributes:
      same: share of answers that are the base's letter by letter, with its interval.
      alike: share of those that are the base's but for their form.
      right, refused: None where there is nothing to count.
      limit: of the share of the base's refusals that may be lost; `over` where it is passed.
      changed: (example, what became of it, prompt, answer before, answer after).
    """

    model: str
    set: str
    prompts: int
    same: tuple[float, float, float]
    alike: float
    right: Flips | None
    refused: Flips | None
    limit: float | None
    over: bool
    changed: Sequence[tuple[str, str, str, str, str]]


def behaviour_section(found: Sequence[Behaved], level: float) -> Section:
    """How many answers are still the base's, and what became of right answers and refusals.

    Args:
      found: every fine-tune on every set of prompts.
      level: of the intervals.
    """
    several = len({b.model for b in found}) > 1
    shown = found[:_ROWS]
    names = [f"{shorten(b.set, 30)}, {shorten(b.model, 30)}" if several else b.set for b in shown]
    alt = "Answers that are the base's: "
    alt += ", ".join(
        f"{shorten(n, 60)} {percent(b.same[0])}" for n, b in zip(names, shown, strict=True)
    )
    rows = [
        Row(n, 100 * b.same[0], 100 * b.same[1], 100 * b.same[2], colour=SERIES[1 if b.over else 0])
        for n, b in zip(names, shown, strict=True)
    ]
    figures: tuple[Figure, ...] = ()
    if rows:
        caption = (
            f"Greedy answers that are the base's letter by letter, with {percent(level)} intervals "
            "over prompts. One fine-tune is one training run, so one seed."
        )
        plot = row_plot("check-same", rows, "answers as the base's (%)", f"{alt}.", zero=True)
        figures = (Figure("Agreement with the base", caption, f"{alt}.", plot),)
    return Section(
        "behaviour",
        "What it answers now",
        _lead(found),
        figures,
        (_table(found, level),) if found else (),
        tuple(_text(b, several, *c) for b in found for c in b.changed),
        "Answers that changed, lost refusals and lost answers first",
    )


def _lead(found: Sequence[Behaved]) -> str:
    if not found:
        return "Nothing was asked."
    least = min(found, key=lambda b: b.same[0])
    lead = (
        f"Of {count(least.prompts, 'prompt')} of {shorten(least.set, 60)}, "
        f"{shorten(least.model, 60)} answers {percent(least.same[0])} as its base does, letter by "
        f"letter, and {percent(least.alike)} but for the form."
    )
    refused = [b for b in found if b.refused and b.refused.before]
    if refused:
        worst = max(refused, key=lambda b: b.refused.lost if b.refused else 0)
        assert worst.refused
        refusals = count(worst.refused.before, "refusal")
        lead += (
            f" Of {refusals} of the base on {shorten(worst.set, 60)}, "
            f"{shorten(worst.model, 60)} lost {worst.refused.lost} and gained "
            f"{worst.refused.gained} (McNemar p {number(worst.refused.p)})."
        )
    return lead


def _table(found: Sequence[Behaved], level: float) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            *(b.model, b.set, b.prompts, percent(b.same[0])),
            f"{percent(b.same[1])} to {percent(b.same[2])}",
            *(percent(b.alike), _flipped(b.right), _flipped(b.refused)),
            "–" if b.limit is None else f"{percent(b.limit)}: {'over' if b.over else 'within'}",
        )
        for b in found
    ]
    columns = (
        *("fine-tune", "prompts", "asked", "as the base's", f"{percent(level)} interval"),
        *("but for form", "right answers", "refusals", "limit on refusals"),
    )
    return Table(
        "Every fine-tune on every set of prompts",
        columns,
        tuple(rows),
        "Answers are greedy. A refusal is an answer with one of the phrases of the field refusals "
        "near its beginning; lost ones are the base's alone, gained ones the fine-tune's alone, "
        "and p is McNemar's exact test between the two.",
    )


def _flipped(flips: Flips | None) -> str:
    if flips is None:
        return "–"
    moved = f"{flips.lost} lost, {flips.gained} gained, p {number(flips.p)}"
    return f"{flips.before} to {flips.after} ({moved})"


def _text(
    b: Behaved, several: bool, name: str, fate: str, prompt: str, before: str, after: str
) -> Text:
    where = f"{shorten(b.set, 60)} · " + (f"{shorten(b.model, 60)} · " if several else "")
    body = f"{prompt.strip()}\n\nBefore: {before.strip()}\n\nAfter: {after.strip()}"
    return Text(shorten(name, 120), f"{where}{fate}", body)
