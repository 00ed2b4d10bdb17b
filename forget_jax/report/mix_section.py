"""The section of `mix`: what to replay, what it is expected to save, and how to train on it."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from forget_jax.report.plots import SERIES, Line, legend, xy_plot
from forget_jax.report.section import Figure, Section, Table, number, percent


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
    rows: Sequence[tuple[str, float, str, str]],
    counts: tuple[int, int, int],
    expected: Expected,
    curve_Kx4: np.ndarray,
    trainers: Mapping[str, str],
) -> Section:
    """What to replay for one task.

    Args:
      rows: the first of those that are replayed: name, weight, why, and how the text begins.
      counts: rows of the task, replayed rows, candidates.
      curve_Kx4: of a measured curve by row ratio, mean z, half its interval (NaN for none) and task
        loss; nats a token.
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
    elif not len(curve_Kx4):
        lead += " How much this ratio saves was not measured on this model."
    tables = [
        Table(
            "What is replayed",
            ("example", "weight", "why", "text"),
            tuple(rows),
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
    figures = (_curve(*curve_Kx4.T),) if len(curve_Kx4) > 1 else ()
    return Section("mix", "What to replay", lead, figures, tuple(tables))


def _curve(x_K: np.ndarray, z_K: np.ndarray, half_K: np.ndarray, loss_K: np.ndarray) -> Figure:
    """Forgetting and task loss against the ratio."""
    x = x_K.tolist()
    forgetting = Line(x, z_K.tolist(), SERIES[0], "mean z", "line+dot")
    loss = Line(x, (loss_K - loss_K[0]).tolist(), SERIES[1], "task loss, change", "line+dot")
    bars = [
        Line([ratio] * 2, [z - half, z + half], SERIES[0], "", "line", 1.0)
        for ratio, z, half in zip(x, z_K.tolist(), half_K.tolist(), strict=True)
        if np.isfinite(half)
    ]
    lines = [forgetting, loss, *bars]
    said = ", ".join(f"{r:.3g} {number(z, sign=True)}" for r, z in zip(x, z_K, strict=True))
    alt = f"Mean z by ratio: {said}."
    return Figure(
        "Forgetting and task loss against the ratio",
        "Measured by `replay` on this model: means over tasks, each of its seeds, with 95 % "
        "intervals over tasks. 0 is no replay.",
        alt,
        xy_plot("mix-curve", lines, "replayed rows per task row", "nats a token", alt),
        legend(lines),
    )
