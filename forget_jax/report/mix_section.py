"""The section of `mix`: what to replay, what it is expected to save, and how to train on it."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forget_jax.report.plots import SERIES, Line, legend, xy_plot
from forget_jax.report.section import Figure, Section, Table, number, percent


@dataclass(frozen=True)
class MixedRow:
    """A row that is replayed: what it is, how likely it was drawn, why, and how it begins."""

    name: str
    weight: float
    why: str
    text: str


@dataclass(frozen=True)
class CurvePoint:
    """One ratio of a measured curve: means over tasks and half their intervals, nats a token."""

    ratio: float
    z: float
    z_half: float | None
    loss: float
    loss_half: float | None


@dataclass(frozen=True)
class Expected:
    """What is expected to be forgotten.

    Attributes:
      z: mean forgetting of the candidates without replay, nats a token; None where nothing says.
      by_source: the same by source.
      saved: share of forgetting that the chosen ratio took away where the curve was measured.
    """

    z: float | None = None
    by_source: Mapping[str, float] = field(default_factory=dict)
    saved: float | None = None


def mix_section(
    rows: Sequence[MixedRow],
    counts: tuple[int, int, int],
    expected: Expected,
    curve: Sequence[CurvePoint],
    trainers: Mapping[str, str],
) -> Section:
    """What to replay for one task.

    Args:
      rows: the first of those that are replayed.
      counts: rows of the task, replayed rows, candidates.
      trainers: by trainer, what to paste.
    """
    task, replayed, candidates = counts
    lead = f"Train on {task:,} rows of the task and {replayed:,} of {candidates:,} candidates."
    if expected.z is not None:
        lead += (
            f" Without replay the candidates are expected to lose {number(expected.z, sign=True)} "
            "nats a token on average"
        )
        if expected.by_source:
            worst = max(expected.by_source, key=lambda s: expected.by_source[s])
            lead += f", those of {worst} most ({number(expected.by_source[worst], sign=True)})"
        lead += "."
    if expected.saved is not None:
        lead += (
            f" At this ratio replay took away {percent(expected.saved)} of forgetting where the "
            "curve was measured."
        )
    elif not curve:
        lead += " How much this ratio saves was not measured on this model."
    tables = [
        Table(
            "What is replayed",
            ("example", "weight", "why", "text"),
            tuple((r.name, r.weight, r.why, r.text) for r in rows),
            note=f"The first {len(rows)} of {replayed:,}; all stand in train.jsonl.",
        )
    ]
    if expected.by_source:
        tables.append(
            Table(
                "Expected forgetting by source, without replay",
                ("source", "mean z"),
                tuple(sorted(expected.by_source.items(), key=operator.itemgetter(1), reverse=True)),
            )
        )
    tables.append(Table("Training on it", ("trainer", "what to paste"), tuple(trainers.items())))
    figures = (_curve(curve),) if len(curve) > 1 else ()
    return Section("mix", "What to replay", lead, figures, tuple(tables))


def _curve(curve: Sequence[CurvePoint]) -> Figure:
    """Forgetting and task loss against the ratio."""
    x = [p.ratio for p in curve]
    forgetting = Line(x, [p.z for p in curve], SERIES[0], "mean z", "line+dot")
    loss = Line(
        x, [p.loss - curve[0].loss for p in curve], SERIES[1], "task loss, change", "line+dot"
    )
    bars = [
        Line([p.ratio] * 2, [p.z - p.z_half, p.z + p.z_half], SERIES[0], "", "line", 1.0)
        for p in curve
        if p.z_half is not None
    ]
    lines = [forgetting, loss, *bars]
    alt = "Mean z by ratio: " + ", ".join(f"{p.ratio:.3g} {number(p.z, sign=True)}" for p in curve)
    return Figure(
        "Forgetting and task loss against the ratio",
        "Measured by `replay` on this model; means over tasks with 95 % intervals. 0 is no replay.",
        alt + ".",
        xy_plot("mix-curve", lines, "replayed rows per task row", "nats a token", alt),
        legend(lines),
    )
