"""Sections about runs: training curves, scores of models, and where the time went."""

from collections.abc import Mapping, Sequence

import numpy as np

from forget_jax.report.plots import FAINT, SERIES, Line, Row, legend, row_plot, xy_plot
from forget_jax.report.section import (
    Cell,
    Figure,
    Section,
    Table,
    bars,
    count,
    finite_mean,
    number,
    percent,
    shorten,
)
from forget_jax.runs.metrics import ends

_POINTS = 240  # a curve's points; more cannot be told apart at the plot's width
_ALL_POINTS = 6000  # of all curves: what a page opens with at once
_FEWEST = 20
_ROWS = 40


def training_section(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    facts: Mapping[str, str],
    key: str = "training",
    title: str = "Training",
) -> Section:
    """Loss by step of each run.

    Args:
      curves: by run, `step` and `loss` (nats per token) of as many steps.
      facts: about the training, as the page shows them.
      key, title: of the section.
    """
    points = min(_POINTS, max(_ALL_POINTS // max(len(curves), 1), _FEWEST))
    thinned = {
        name: _thin(np.asarray(c["step"], float), np.asarray(c["loss"], float), points)
        for name, c in curves.items()
    }
    named = len(curves) <= len(SERIES)
    if named:
        lines = [
            Line(x, y, colour, shorten(name, 60))
            for (name, (x, y, _)), colour in zip(thinned.items(), SERIES, strict=False)
        ]
    else:
        lines = [Line(x, y, FAINT, width=0.5) for x, y, _ in thinned.values()]
        lines.append(_mean_curve([(x, y) for x, y, _ in thinned.values()]))
    window = max((w for _, _, w in thinned.values()), default=1)
    rows = []
    for name, curve in curves.items():
        loss = np.asarray(curve["loss"], float)
        first, last = (float(finite_mean(part)) for part in ends(loss))
        rows.append((name, len(loss), first, last))
    fell = sum(last < first for _, _, first, last in rows)
    lead = f"Loss on the training batches of {count(len(rows), 'run')}, batch by batch."
    if len(rows) == 1:
        lead += (
            f" It went from {number(rows[0][2])} in the first tenth of the steps to "
            f"{number(rows[0][3])} in the last."
        )
    elif rows:
        lead += (
            f" {fell:,} of {len(rows):,} had a lower loss in the last tenth of the steps "
            "than in the first."
        )
    alt = f"Training loss over steps, {count(len(rows), 'run')}; the table holds first and last."
    caption = "Nats per token; one curve is one run with one seed."
    if window > 1:
        caption += f" Every point is the mean of up to {window} steps."
    if not named:
        caption += " Each thin line is a run, named in the table."
    figures: tuple[Figure, ...] = ()
    if rows:
        plot = xy_plot(f"{key}-loss", lines, "step", "training loss", alt)
        figures = (Figure("Training loss", caption, alt, plot, legend(lines)),)
    tables = [
        Table(
            "First and last loss",
            ("run", "steps logged", "first tenth", "last tenth"),
            tuple(rows),
            note="Means over steps, as loss_first and loss_last of summary.json.",
        )
    ]
    if facts:
        tables.append(Table("Facts", ("", ""), tuple(facts.items())))
    return Section(key, title, lead, figures, tuple(tables))


def _known(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _thin(step: np.ndarray, loss: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray, int]:
    """At most so many points, means of equal windows; and the window's length in steps."""
    window = -(-len(step) // points) if len(step) else 1
    cuts = range(0, len(step), window)
    x = np.asarray([step[k : k + window].mean() for k in cuts])
    y = np.asarray([float(finite_mean(loss[k : k + window])) for k in cuts])
    return x, y, window


def _mean_curve(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> Line:
    """Mean over runs where all of them have a loss."""
    filled = [(x, y) for x, y in curves if len(x)]
    low, high = max(x[0] for x, _ in filled), min(x[-1] for x, _ in filled)
    x = np.linspace(low, max(low, high), 100)
    mean = np.mean([np.interp(x, *curve) for curve in filled], axis=0)
    return Line(x, mean, SERIES[0], f"mean of {len(filled)} runs", width=2.6)


def score_section(
    nll: Mapping[str, Sequence[float | None]], tokens: Mapping[str, Sequence[int]]
) -> Section:
    """The examples' NLL under each model.

    Args:
      nll: by model, nats of each example, summed over its tokens; NaN is not scored.
      tokens: by model, how many target tokens each example has.
    """
    values, means, counts = {}, {}, {}
    for name, given in nll.items():
        sums, n = np.asarray(given, float), np.asarray(tokens[name], float)
        known = np.isfinite(sums) & (n > 0)
        values[name], counts[name] = sums[known] / n[known], int(n[known].sum())
        means[name] = float(sums[known].sum() / counts[name]) if counts[name] else np.nan
    quantiles = {
        name: np.quantile(v, (0.05, 0.5, 0.95)) if v.size else np.full(3, np.nan)
        for name, v in values.items()
    }
    plotted = [Row(n, q[1], q[0], q[2]) for n, q in list(quantiles.items())[:_ROWS]]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            name,
            int(v.size),
            counts[name],
            means[name],
            *(float(q) for q in quantiles[name]),
        )
        for name, v in values.items()
    )
    columns = ("model", "examples", "tokens", "mean", "example at 5 %", "at the median", "at 95 %")
    alt = (
        "NLL per example: "
        + ", ".join(f"{shorten(r.name, 60)} median {number(r.value)}" for r in plotted)
        + "."
    )
    caption = (
        "Dots are medians over examples, lines reach from the 5th to the 95th percentile. "
        "Scoring has no randomness; one row is one trained model, so one seed."
    )
    if len(nll) > _ROWS:
        caption += f" The first {_ROWS} of {len(nll):,} models; the table has all."
    figure = Figure(
        "NLL of the examples under each model",
        caption,
        alt,
        row_plot("nll-by-model", plotted, "NLL (nats per token)", alt),
    )
    lead = (
        "How hard each model finds the examples: negative log-likelihood (NLL) in nats a target "
        "token, its mean taken over all tokens, so long examples count for more."
    )
    if len(values) == 1:
        lead += f" It is {number(next(iter(means.values())))}."
    if len(values) > 1:
        names = list(values)
        base = means[names[0]]
        worse = sum(means[name] > base for name in names[1:])
        lead += (
            f" Against {shorten(names[0], 60)} ({number(base)}), the mean is higher under "
            f"{worse:,} of {len(names) - 1:,} other models."
        )
    note = "The mean is over all tokens; the other columns are single examples' NLL a token."
    table = Table("NLL by model, nats a token", columns, rows, note)
    return Section("scores", "Scores", lead, (figure,) if rows else (), (table,))


def timing_section(seconds: Mapping[str, float]) -> Section:
    """Where the time went.

    Args:
      seconds: wall-clock time by stage, in the order to show.
    """
    total = float(sum(seconds.values()))
    values = list(seconds.values())
    shares = [percent(v / total) if total else "–" for v in values]
    rows = zip(seconds, bars(values), shares, strict=True)
    lead = f"The stages took {number(total)} seconds together, measured once on this machine."
    if values and total:
        longest = max(seconds, key=lambda name: seconds[name])
        lead += f" The longest was {shorten(longest, 60)} with {percent(seconds[longest] / total)}."
    table = Table("Seconds by stage", ("stage", "seconds", "share"), tuple(rows))
    return Section("timing", "Where the time went", lead, tables=(table,))
