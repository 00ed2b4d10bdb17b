"""What `check` writes: check.json for machines, check.md for a pull request, and its last line."""

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from forget_jax.commands.summaries import AnswersChanged, Check, CheckedSet, Flipped, Share
from forget_jax.commands.summaries.codec import encode
from forget_jax.errors import one_line
from forget_jax.report.section import count, number, percent

Sets = Mapping[str, Mapping[str, CheckedSet]]


def over(sets: Sets) -> Iterator[str]:
    """Every limit that is passed, in words."""
    for model, of in sets.items():
        for name, found in of.items():
            if "z" in found.over and found.limit is not None:
                yield (
                    f"{model} on {name}: mean z {number(found.z, sign=True)} is over "
                    f"{number(found.limit)}"
                )
            if "lost" in found.over and found.flips and found.limit_lost is not None:
                yield (
                    f"{model} on {name}: {found.flips.lost} of {found.flips.answers} answers lost "
                    f"is over {percent(found.limit_lost)}"
                )


def over_refusals(behaviour: Mapping[str, Mapping[str, AnswersChanged]]) -> Iterator[str]:
    """Every limit on refusals that is passed, in words."""
    for model, of in behaviour.items():
        for name, found in of.items():
            if found.over and found.refused and found.limit is not None:
                yield (
                    f"{model} on {name}: {found.refused.lost} of {held(found.refused, 'before')} "
                    f"refusals lost is over {percent(found.limit)}"
                )


def held(flips: Flipped, when: Literal["before", "after"]) -> int:
    """How many answers were right (or refusals) before or after."""
    return round(getattr(flips, when) * flips.answers)


def line(summary: Check) -> str:
    """The verdict in a line."""
    sets = [len(of) for of in summary.sets.values()][:1]
    prompts = [len(of) for of in summary.behaviour.values()][:1]
    counts = [count(n, "set") for n in sets] + [count(n, "prompt set") for n in prompts]
    models = len(summary.sets or summary.behaviour)
    what = f"{count(models, 'fine-tune')} on {' and '.join(counts)}"
    if summary.over:
        more = f" (and {len(summary.over) - 1} more)" if len(summary.over) > 1 else ""
        return f"over its limit: {summary.over[0]}{more}"
    return f"{what}: {_limits(summary)}"


def _limits(summary: Check) -> str:
    """What there is to say where no limit is passed."""
    found = [f for of in summary.sets.values() for f in of.values()]
    limited = any(f.limit is not None or f.limit_lost is not None for f in found)
    limited |= any(f.limit is not None for of in summary.behaviour.values() for f in of.values())
    return "within all limits" if limited else "no limits were given"


def as_json(summary: Check) -> dict[str, Any]:
    """A flat list of verdicts, one for every fine-tune and set."""
    return {
        "ok": not summary.over,
        "unit": summary.unit,
        "level": summary.level,
        "before": summary.before,
        "over": list(summary.over),
        "checks": [
            {"model": model, "set": name, "ok": not found.over, **encode(found)}
            for model, of in summary.sets.items()
            for name, found in of.items()
        ],
        "behaviour": [
            {"model": model, "set": name, "ok": not found.over, **encode(found)}
            for model, of in summary.behaviour.items()
            for name, found in of.items()
        ],
    }


def verdict(found: CheckedSet) -> str:
    """One word on a set, and whether it is sure."""
    if found.limit is None and found.limit_lost is None:
        return "no limit"
    return ("over" if found.over else "within") + ("" if found.sure else ", not sure")


def interval(found: CheckedSet) -> str:
    """The interval of mean z."""
    if found.low is None or found.high is None:
        return "–"
    return f"{number(found.low, sign=True)} to {number(found.high, sign=True)}"


def answers(found: CheckedSet) -> tuple[str, str, str]:
    """Answers lost, gained, and the test's p, as texts."""
    flips = found.flips
    if flips is None:
        return "–", "–", "–"
    lost, gained = f"{flips.lost} of {flips.answers}", str(flips.gained)
    if flips.adjusted is not None:
        lost += f" ({percent_signed(flips.adjusted.lost)} less chance)"
        gained += f" ({percent_signed(flips.adjusted.gained)})"
    return lost, gained, number(flips.p)


def percent_signed(share: float) -> str:
    """A share that may be below zero."""
    return percent(share) if share >= 0 else f"−{percent(-share)}"


def _cell(text: str) -> str:
    """A text that ends no cell of a table and begins no markup."""
    plain = html.escape(one_line(text), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)


def changed(flips: Flipped | None) -> str:
    """How many there were and are, how many were lost and gained, and the test's p."""
    if flips is None:
        return "–"
    before, after = held(flips, "before"), held(flips, "after")
    return f"{before} to {after} ({flips.lost} lost, {flips.gained} gained, p {number(flips.p)})"


def refusals(found: AnswersChanged) -> str:
    """One word on the limit on refusals."""
    return "no limit" if found.limit is None else "over" if found.over else "within"


def as_markdown(summary: Check) -> str:
    """A comment for a pull request."""
    head = "over its limit" if summary.over else _limits(summary)
    lines = [f"## What was forgotten: {head}", ""]
    lines += [f"- {_cell(said)}" for said in summary.over] + [""] * bool(summary.over)
    if summary.sets:
        lines += _sets_as_markdown(summary)
    if summary.behaviour:
        lines += _behaviour_as_markdown(summary)
    lines += ["", f"Base: {_cell(summary.before)}. z is the loss after less the loss before."]
    for model, of in summary.sets.items():
        for name, found in of.items():
            if found.worst:
                said = [
                    f"- {_cell(w.example)}: z {number(w.z, sign=True)}"
                    f"{', answer lost' if w.lost else ''}: {_cell(w.text)}"
                    for w in found.worst
                ]
                lines += _details(f"{_cell(model)} on {_cell(name)}: forgotten most", said)
    for model, answered in summary.behaviour.items():
        for name, prompts in answered.items():
            if prompts.changed:
                said = [
                    f"- {_cell(c.example)}, {c.fate}: {_cell(c.prompt)} → before: "
                    f"{_cell(c.before)} → after: {_cell(c.after)}"
                    for c in prompts.changed
                ]
                lines += _details(f"{_cell(model)} on {_cell(name)}: answers that changed", said)
    return "\n".join(lines) + "\n"


def _details(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"<details><summary>{title}</summary>", "", *lines, "", "</details>"]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    head = [" | ".join(("", *columns, "")).strip(), "|" + "---|" * len(columns)]
    return head + ["| " + " | ".join(row) + " |" for row in rows]


def _sets_as_markdown(summary: Check) -> list[str]:
    columns = (
        *("fine-tune", "set", "examples", f"mean z ({summary.unit})"),
        *(f"{percent(summary.level)} interval", "noise floor", "lost", "gained", "p (McNemar)"),
        *("limit", "verdict"),
    )
    rows = (
        (
            *(_cell(model), _cell(name), f"{found.examples:,}", number(found.z, sign=True)),
            *(interval(found), number(found.noise), *answers(found), number(found.limit)),
            f"**{verdict(found)}**" if found.over else verdict(found),
        )
        for model, of in summary.sets.items()
        for name, found in of.items()
    )
    return _table(columns, rows)


def _behaviour_as_markdown(summary: Check) -> list[str]:
    columns = (
        *("fine-tune", "prompts", "asked", "answers as the base's", "the same but for form"),
        *("right answers", "refusals", "limit", "verdict"),
    )
    rows = (
        (
            *(_cell(model), _cell(name), f"{found.prompts:,}", share(found.same)),
            *(share(found.alike), changed(found.right), changed(found.refused)),
            "–" if found.limit is None else percent(found.limit),
            f"**{refusals(found)}**" if found.over else refusals(found),
        )
        for model, of in summary.behaviour.items()
        for name, found in of.items()
    )
    return [""] * bool(summary.sets) + _table(columns, rows)


def share(found: Share) -> str:
    """A share with its interval."""
    return f"{percent(found.share)} ({percent(found.low)} to {percent(found.high)})"
