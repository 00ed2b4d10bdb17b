"""The section about facts: which of them outlived a second training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forget_jax.report.plots import Row, row_plot
from forget_jax.report.section import (
    Figure,
    Section,
    Table,
    count,
    finite_mean,
    number,
    percent,
    shorten,
)


@dataclass(frozen=True)
class FactsKept:
    """An arm's figures, one number a seed; empty where they were not measured.

    Attributes:
      accuracy_a_after_a, accuracy_a_after_b, accuracy_b: share of the facts recited exactly after
        stages A and B.
      answer_nll_a_after_a, answer_nll_a_after_b, answer_nll_b: of the answers, nats per token.
    """

    accuracy_a_after_a: Sequence[float] = ()
    accuracy_a_after_b: Sequence[float] = ()
    accuracy_b: Sequence[float] = ()
    answer_nll_a_after_a: Sequence[float] = ()
    answer_nll_a_after_b: Sequence[float] = ()
    answer_nll_b: Sequence[float] = ()


def factoids_section(arms: Mapping[str, FactsKept], seeds: int) -> Section:
    """Facts kept: accuracy on A after stage A and after stage B, and on B, for each arm.

    Args:
      arms: by name.
      seeds: how many seeds each arm was trained under.
    """
    after = {arm: tuple(kept.accuracy_a_after_b) for arm, kept in arms.items()}
    rows = [Row(arm, _mean(v), points=v if len(v) > 1 else ()) for arm, v in after.items()]
    alt = (
        "Accuracy on A after B: "
        + ", ".join(f"{shorten(r.name, 60)} {number(r.value)}" for r in rows)
        + "."
    )
    figure = Figure(
        "Facts of A still known after training on B",
        f"Share of A's facts recited exactly; {count(seeds, 'seed')} an arm"
        + (", small dots are single seeds" if any(r.points for r in rows) else "")
        + ". Further right is better.",
        alt,
        row_plot("factoids-kept", rows, "accuracy on A after B", alt, zero=True),
    )
    columns = ("arm", "A after A", "A after B", "B after B")
    exact = tuple(
        (arm, _mean(k.accuracy_a_after_a), _mean(k.accuracy_a_after_b), _mean(k.accuracy_b))
        for arm, k in arms.items()
    )
    tables = [Table("All figures", columns, exact)]
    nll = tuple(
        (arm, _mean(k.answer_nll_a_after_a), _mean(k.answer_nll_a_after_b), _mean(k.answer_nll_b))
        for arm, k in arms.items()
    )
    if any(np.isfinite(figures[1:]).any() for figures in nll):
        tables.append(
            Table(
                "NLL of the answers (nats per token)",
                columns,
                nll,
                note="What exact match cannot see: how far a lost answer is from being recited.",
            )
        )
    lead = (
        "A model memorises facts A, then trains on B without seeing A again. The arms differ in "
        "what is mixed into the two stages."
    )
    known = [r for r in rows if np.isfinite(r.value)]
    if len(known) > 1:
        low, high = min(known, key=lambda r: r.value), max(known, key=lambda r: r.value)
        spread = (
            f"runs from {percent(low.value)} ({low.name}) to {percent(high.value)} ({high.name})"
        )
        if low.value == high.value:
            spread = f"is {percent(low.value)} in every arm"
        lead += f" Accuracy on A after B {spread}."
    if seeds == 1:
        lead += " With one seed, the order of the arms holds for these runs only."
    return Section("factoids", "What was kept", lead, (figure,) if rows else (), tuple(tables))


def _mean(values: Sequence[float]) -> float:
    return float(finite_mean(np.asarray(values, float)))
