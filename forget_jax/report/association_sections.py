"""Sections about the matrix's structure: how low its rank is, and how it was predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forget_jax.report.paired import PairedTest, paired_table
from forget_jax.report.plots import SERIES, Line, Row, legend, row_plot, xy_plot
from forget_jax.report.reliability import Reliability, reliability_figure, reliability_table
from forget_jax.report.section import Figure, Section, Table, count, floats, number, shorten


def rank_section(
    r2_rank: Sequence[float | None],
    r2_additive: float | None,
    r2_row: float | None,
    r2_column: float | None,
    seeds: int = 1,
    f1_rank: Sequence[float] = (),
) -> Section:
    """How much of the matrix few components explain.

    Args:
      r2_rank: R² of the truncated SVD of ranks 1, 2, …; None or NaN where there is none, here and
        below.
      r2_additive, r2_row, r2_column: R² of a mean per task plus a mean per example, of the former
        and of the latter alone.
      seeds: how many seeds were averaged in every entry.
      f1_rank: for a matrix of zeros and ones, F1 of logistic factors of ranks 1, 2, …
    """
    by_rank = floats(r2_rank)
    additive, row, column = floats((r2_additive, r2_row, r2_column))
    ranks = list(range(1, len(by_rank) + 1))
    lines = [
        Line(ranks, by_rank, SERIES[0], "truncated SVD", "line+dot"),
        *(
            Line([0.8, max(len(ranks), 1) + 0.2], [r2, r2], colour, name, "dash")
            for r2, colour, name in (
                (additive, SERIES[1], "task mean + example mean"),
                (row, SERIES[3], "task mean only"),
                (column, SERIES[2], "example mean only"),
            )
        ),
    ]
    explained = ", ".join(f"rank {k}: {number(r2)}" for k, r2 in zip(ranks, by_rank, strict=True))
    alt = f"R² by rank ({explained}); additive model {number(additive)}."
    lowest = min([0.0, *(v for v in (*by_rank, additive, row, column) if np.isfinite(v))])
    lead = (
        "Each point is the share of the matrix's variance (R²) that a table of this rank "
        f"reproduces. A mean per task plus a mean per example reaches {number(additive)}"
    )
    above = [k for k, r2 in zip(ranks, by_rank, strict=True) if r2 >= additive]
    if above:
        lead += f"; rank {above[0]} reaches {number(by_rank[above[0] - 1])}"
    lead += (
        ". What lies above the additive line is association: which task makes the model forget "
        "which example. These are fits to the measured matrix itself, seed noise included, not "
        "predictions."
    )
    figure = Figure(
        "R² by rank",
        f"In-sample fits to one matrix, {count(seeds, 'seed')} an entry.",
        alt,
        xy_plot(
            "r2-by-rank",
            lines,
            "rank",
            "R²",
            alt,
            y_limits=(lowest * 1.05, 1.03),
            x_ticks=ranks if len(ranks) <= 12 else None,
        ),
        legend(lines),
    )
    fits = [(f"rank {k}", float(r2)) for k, r2 in zip(ranks, by_rank, strict=True)]
    fits += [("task mean + example mean", additive), ("task mean only", row)]
    fits += [("example mean only", column)]
    table = Table("R² of each fit", ("fit", "R²"), tuple(fits))
    tables = [table]
    if f1_rank:
        rows = [(f"rank {k + 1}", f1) for k, f1 in enumerate(floats(f1_rank))]
        note = "Forgotten is what the fitted probability puts above 0.5; fits to the matrix itself."
        tables.append(Table("F1 of logistic factors", ("fit", "F1"), tuple(rows), note=note))
    return Section("rank", "How low its rank is", lead, (figure,), tuple(tables))


@dataclass(frozen=True)
class Completed:
    """How well a method completed rows; None or NaN where a figure is missing.

    Attributes:
      rmse, rmse_std: over the entries that were not observed, nats: mean and standard deviation
        over seeds.
      f1: of predicting which entries are forgotten.
      seconds: wall time.
      top, top_low, top_high: precision at k, with its 95 % interval over test tasks.
      brier, brier_clipped, brier_base: of calibrated probabilities, of the estimates themselves,
        and of the share of ones; in a matrix of zeros and ones.
      reliability: of the probabilities.
    """

    rmse: float | None
    rmse_std: float | None = None
    f1: float | None = None
    seconds: float | None = None
    top: float | None = None
    top_low: float | None = None
    top_high: float | None = None
    brier: float | None = None
    brier_clipped: float | None = None
    brier_base: float | None = None
    reliability: Sequence[Reliability] = ()


def methods_section(
    methods: Mapping[str, Completed],
    observed: int,
    seeds: int,
    paired: Mapping[str, PairedTest] | None = None,
    k: int = 50,
) -> Section:
    """Completion methods side by side, best first.

    Args:
      methods: by name.
      observed: entries known of each new row.
      seeds: draws of these entries.
      paired: the best method's RMSE less each other one's, by `best − other`.
      k: of the precision.
    """
    rmse = dict(zip(methods, floats(m.rmse for m in methods.values()), strict=True))
    spread = dict(zip(methods, floats(m.rmse_std for m in methods.values()), strict=True))
    order = sorted(methods, key=lambda name: np.nan_to_num(rmse[name], nan=np.inf))
    rows = [Row(n, rmse[n], rmse[n] - spread[n], rmse[n] + spread[n]) for n in order]
    alt = "RMSE: " + ", ".join(f"{shorten(r.name, 60)} {number(r.value)}" for r in rows) + "."
    drawn = (
        f"{count(observed, 'observed entry').replace('entrys', 'entries')} of each new task's row"
    )
    figure = Figure(
        "RMSE of the entries not observed",
        f"Dots are means over {count(seeds, 'seed')}"
        + (", lines one standard deviation over seeds" if seeds > 1 else "")
        + f"; each seed draws other {drawn}. Further left is better.",
        alt,
        row_plot("rmse-by-method", rows, "RMSE (nats)", alt),
    )
    table = Table(
        "All figures",
        ("method", "RMSE", "± sd", "F1", f"precision at {k}", "95 % from", "to", "seconds"),
        tuple(
            (n, m.rmse, m.rmse_std, m.f1, m.top, m.top_low, m.top_high, m.seconds)
            for n, m in ((n, methods[n]) for n in order)
        ),
        note="F1 is that of predicting which entries are forgotten; precision the share of a "
        f"task's {k} highest predictions that are among its {k} most forgotten (of zeros and ones: "
        "that are ones), its interval over test tasks; seconds are of one run here.",
    )
    lead = f"From {drawn}, each method fills in the rest. "
    if len(order) > 1:
        best, next_best = order[:2]
        gap = rmse[next_best] - rmse[best]
        lead += f"The lowest mean RMSE is {number(rmse[best])} ({best})"
        if seeds > 1 and gap > max(spread[best], spread[next_best]):
            lead += (
                f", {number(gap)} below the next ({next_best}): more than one standard deviation "
                f"over {seeds} seeds."
            )
        elif seeds > 1:
            lead += (
                f"; the next ({next_best}) lies within one standard deviation over {seeds} seeds, "
                "so their order is not settled."
            )
        else:
            lead += "; with one seed the order of close methods is not settled."
    tables = [table]
    if paired:
        note = "Paired t tests over seeds, which draw what is observed; tasks are the same."
        tables.append(paired_table(paired, "RMSE", note))
    likely = {n: methods[n] for n in order if methods[n].brier is not None}
    if not likely:
        return Section(
            "methods", "What was predicted", lead, (figure,) if rows else (), tuple(tables)
        )
    sharpest = min(likely, key=lambda n: floats([likely[n].brier])[0])
    m = likely[sharpest]
    lead += (
        f" Entries are zeros and ones: as probabilities, those of {sharpest} are off by "
        f"{number(m.brier)} (Brier score); one probability for all would be by "
        f"{number(m.brier_base)}."
    )
    scores = Table(
        "Probabilities",
        ("method", "Brier score", "uncalibrated", "one for all"),
        tuple((n, m.brier, m.brier_clipped, m.brier_base) for n, m in likely.items()),
        note="The mean squared difference of probability and outcome. Probabilities are calibrated "
        "on train tasks, each left out in turn.",
    )
    came_true = reliability_figure(
        "reliability",
        {sharpest: m.reliability},
        f"Entries not observed of the test tasks over {count(seeds, 'seed')}, in parts of equal "
        "size from the least probable to the most. On the dashed line probabilities are right.",
    )
    tables += [scores, reliability_table(m.reliability, sharpest)]
    return Section("methods", "What was predicted", lead, (figure, came_true), tuple(tables))
