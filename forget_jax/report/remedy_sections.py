"""Sections about remedies: what replay saved, and which facts outlived a second training."""

from collections.abc import Mapping, Sequence
from typing import Any

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

Values = float | Sequence[float] | np.ndarray


def replay_section(
    strategies: Mapping[str, Mapping[str, Values]],
    paired_test: Mapping[str, object],
    seeds: int = 1,
) -> Section:
    """Strategies of replay side by side.

    Args:
      strategies: by name, `upstream_nll` and `task_loss` (means, nats per token) and `z`, the
        forgetting of held-out upstream examples, one value for each pair of seed and task.
      paired_test: figures of one comparison, or such figures by the comparison's name. All are
        shown; `mean` (of the differences in z) and `p` are also put into words.
      seeds: how many seeds the pairs hold.
    """
    z = {n: np.atleast_1d(np.asarray(s.get("z", ()), float)) for n, s in strategies.items()}
    mean = {n: float(finite_mean(v)) for n, v in z.items()}
    order = sorted(strategies, key=lambda n: np.nan_to_num(mean[n], nan=np.inf))
    rows = [Row(n, mean[n], points=tuple(z[n]) if z[n].size > 1 else ()) for n in order]
    pairs = max((v.size for v in z.values()), default=0)
    basis = f"{count(pairs, 'run')} a strategy (seed × task pairs), {count(seeds, 'seed')}"
    alt = "Mean z: " + ", ".join(f"{r.name} {number(r.value, sign=True)}" for r in rows) + "."
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
            [_mean(strategies[n], "task_loss")],
            [_mean(strategies[n], "upstream_nll")],
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
    table = tuple(
        (n, mean[n], _mean(strategies[n], "upstream_nll"), _mean(strategies[n], "task_loss"))
        for n in order
    )
    tests: dict[str, Any] = {}
    if paired_test:
        named = all(isinstance(t, Mapping) for t in paired_test.values())
        tests = dict(paired_test) if named else {"": paired_test}
    tables = [Table("All figures", columns, table)]
    for name, test in tests.items():
        facts = tuple((str(k), _cell(v)) for k, v in test.items())
        tables.append(Table(f"Paired test {name}".strip(), ("", ""), facts))
    return Section(
        "replay",
        "What replay saved",
        _replay_lead(order, mean, tests, seeds),
        tuple(figures),
        tuple(tables),
    )


def _replay_lead(
    order: Sequence[str], mean: Mapping[str, float], tests: Mapping[str, Any], seeds: int
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
    for name, test in tests.items():
        p = test.get("p")
        if isinstance(p, int | float) and np.isfinite(p):
            shown = "more than chance would explain" if p < 0.05 else "not told apart from chance"
            lead += (
                f" Paired test{' ' + name if name else ''}: a mean difference of "
                f"{number(test.get('mean'), sign=True)} nats, p = {number(p)}, {shown} at the 5 % "
                "level."
            )
    if seeds == 1:
        lead += " All runs share one seed: other seeds may order the strategies differently."
    return lead


def factoids_section(arms: Mapping[str, Mapping[str, Values]], seeds: int) -> Section:
    """Facts kept: accuracy on A after stage A and after stage B, and on B, for each arm.

    Every figure is one number or a list of one number a seed.
    """
    by_arm = {
        arm: {k: np.atleast_1d(np.asarray(v, float)) for k, v in figures.items()}
        for arm, figures in arms.items()
    }
    rows = []
    for arm, figures in by_arm.items():
        after = figures.get("accuracy_a_after_b", np.full(1, np.nan))
        rows.append(
            Row(arm, float(finite_mean(after)), points=tuple(after) if after.size > 1 else ())
        )
    alt = "Accuracy on A after B: " + ", ".join(f"{r.name} {number(r.value)}" for r in rows) + "."
    figure = Figure(
        "Facts of A still known after training on B",
        f"Share of A's facts recited exactly; {count(seeds, 'seed')} an arm"
        + (", small dots are single seeds" if any(r.points for r in rows) else "")
        + ". Further right is better.",
        alt,
        row_plot("factoids-kept", rows, "accuracy on A after B", alt, zero=True),
    )
    keys = ("accuracy_a_after_a", "accuracy_a_after_b", "accuracy_b")
    table = Table(
        "All figures",
        ("arm", "A after A", "A after B", "B after B"),
        tuple((arm, *(_mean(f, k) for k in keys)) for arm, f in by_arm.items()),
    )
    nll = tuple(key.replace("accuracy", "answer_nll") for key in keys)
    tables = [table]
    if any(key in f for f in by_arm.values() for key in nll):
        tables.append(
            Table(
                "NLL of the answers (nats per token)",
                ("arm", "A after A", "A after B", "B after B"),
                tuple((arm, *(_mean(f, k) for k in nll)) for arm, f in by_arm.items()),
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


def _mean(figures: Mapping[str, Values], key: str) -> float:
    return float(finite_mean(np.atleast_1d(np.asarray(figures.get(key, np.nan), float))))


def _cell(value: object) -> str:
    """A figure, or a list of them such as an interval, in words."""
    if isinstance(value, bool) or not isinstance(value, int | float | list | tuple):
        return str(value)
    return number(value) if isinstance(value, int | float) else ", ".join(_cell(v) for v in value)
