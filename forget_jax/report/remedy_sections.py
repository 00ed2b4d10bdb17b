"""Sections about remedies: what replay saved, and which facts outlived a second training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forget_jax.report.plots import SERIES, Line, Row, legend, row_plot, xy_plot
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
class Replayed:
    """What a strategy of replay comes to; None or NaN where a figure is missing.

    Attributes:
      upstream_nll, task_loss: means, nats per token.
      z: forgetting of held-out upstream examples, one value for each pair of seed and task.
    """

    upstream_nll: float | None = None
    task_loss: float | None = None
    z: Sequence[float] = ()


@dataclass(frozen=True)
class PairedTest:
    """Forgetting z under one strategy less another's, pair by pair, nats per token.

    Attributes:
      pairs: one is a task under a seed.
      mean, low, high: of the differences, with their interval.
      p: of the test that the mean is zero.
    """

    pairs: int
    mean: float
    low: float
    high: float
    p: float


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


def replay_section(
    strategies: Mapping[str, Replayed],
    paired_tests: Mapping[str, PairedTest],
    seeds: int = 1,
) -> Section:
    """Strategies of replay side by side.

    Args:
      strategies: by name.
      paired_tests: comparisons of two strategies, by name; `mean` and `p` are also put into words.
      seeds: how many seeds the pairs hold.
    """
    z = {n: np.asarray(s.z, float) for n, s in strategies.items()}
    mean = {n: float(finite_mean(v)) for n, v in z.items()}
    order = sorted(strategies, key=lambda n: np.nan_to_num(mean[n], nan=np.inf))
    rows = [Row(n, mean[n], points=tuple(z[n]) if z[n].size > 1 else ()) for n in order]
    pairs = max((v.size for v in z.values()), default=0)
    basis = f"{count(pairs, 'run')} a strategy (seed × task pairs), {count(seeds, 'seed')}"
    alt = (
        "Mean z: "
        + ", ".join(f"{shorten(r.name, 60)} {number(r.value, sign=True)}" for r in rows)
        + "."
    )
    figures = []
    if np.isfinite(list(mean.values())).any():
        plot = row_plot("replay-z", rows, "mean z (nats)", alt, zero=True)
        figures.append(
            Figure(
                "Forgetting of held-out upstream examples",
                f"Large dots are means, small dots single runs: {basis}. Further left is better.",
                alt,
                plot,
            )
        )
    dots = [
        Line(
            [strategies[n].task_loss],
            [strategies[n].upstream_nll],
            c,
            shorten(n, 60),
            "dot",
        )
        for n, c in zip(order, SERIES, strict=False)
    ]
    if 0 < len(order) <= len(SERIES):
        alt = "Upstream loss against task loss, one dot a strategy; the figures stand in the table."
        figures.append(
            Figure(
                "What it costs the task",
                f"Means over {basis}. Down is less forgetting, left is a better learned task.",
                alt,
                xy_plot("replay-cost", dots, "task loss (nats)", "upstream NLL (nats)", alt),
                legend(dots),
            )
        )
    columns = ("strategy", "mean z", "upstream NLL", "task loss")
    table = tuple((n, mean[n], strategies[n].upstream_nll, strategies[n].task_loss) for n in order)
    tables = [Table("All figures", columns, table)]
    for name, test in paired_tests.items():
        facts = (
            ("pairs", number(test.pairs)),
            ("mean", number(test.mean)),
            ("low", number(test.low)),
            ("high", number(test.high)),
            ("p", number(test.p)),
        )
        tables.append(Table(f"Paired test {name}", ("", ""), facts))
    return Section(
        "replay",
        "What replay saved",
        _replay_lead(order, mean, paired_tests, seeds),
        tuple(figures),
        tuple(tables),
    )


def _replay_lead(
    order: Sequence[str],
    mean: Mapping[str, float],
    paired_tests: Mapping[str, PairedTest],
    seeds: int,
) -> str:
    lead = (
        "Each strategy mixes other upstream examples into fine-tuning; z is measured on examples "
        "that none of them replays."
    )
    if order and np.isfinite(mean[order[0]]):
        low, high = order[0], [n for n in order if np.isfinite(mean[n])][-1]
        lead += (
            f" Mean z runs from {number(mean[low], sign=True)} ({low}) to "
            f"{number(mean[high], sign=True)} ({high})."
        )
    for name, test in paired_tests.items():
        if np.isfinite(test.p):
            chance = (
                "more than chance would explain" if test.p < 0.05 else "not told apart from chance"
            )
            lead += (
                f" Paired test {name}: a mean difference of {number(test.mean, sign=True)} nats, "
                f"p = {number(test.p)}, {chance} at the 5 % level."
            )
    if seeds == 1:
        lead += " All runs share one seed: other seeds may order the strategies differently."
    return lead


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
