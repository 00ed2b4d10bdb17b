"""The section about a predicted row: what a task will make the model forget."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forget_jax.report.plots import Row, row_plot
from forget_jax.report.reliability import Reliability, reliability_figure, reliability_table
from forget_jax.report.section import Figure, Section, Table, Text, count, number, percent, shorten

_ROWS = 40  # of the picture


@dataclass(frozen=True)
class PredictedMean:
    """Mean z of a group of examples, with its interval; how many they are, how many measured.

    `robust` is the estimate that random probes correct, with both ends of its interval.
    """

    z: float
    low: float
    high: float
    examples: int
    measured: int
    robust: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class PredictedExample:
    """One example of a row: its z with the interval, or as it was measured; and its beginning.

    In a matrix of zeros and ones, `probability` is that of being 1.
    """

    name: str
    source: str
    z: float
    low: float
    high: float
    measured: bool
    text: str
    probability: float | None = None


@dataclass(frozen=True)
class PredictedProbabilities:
    """How probabilities of held-out tasks came true: Brier score, that of one for all, by parts."""

    brier: float
    brier_base: float
    reliability: Sequence[Reliability]


@dataclass(frozen=True)
class Learned:
    """How a row was predicted.

    Attributes:
      rmse: of an entry, from held-out tasks.
      side: by what is known of the examples beside, its share of the weight.
      losses: whether the losses of its training helped.
    """

    rmse: float
    side: Mapping[str, float]
    losses: bool


def predicted_section(
    task: str,
    means: Mapping[str, PredictedMean],
    most: Sequence[PredictedExample],
    coverage: float,
    learned: Learned,
    likely: PredictedProbabilities | None = None,
) -> Section:
    """What will be forgotten: means by source, and the examples of the largest z.

    Args:
      task: whose row it is.
      means: by source; of all examples first.
      most: the most forgotten first.
      coverage: share of the entries that intervals are to hold.
      learned: how it was predicted.
      likely: of a matrix of zeros and ones, how good its probabilities are.
    """
    (_, whole), *_ = means.items()
    key = f"predicted-{hashlib.sha256(task.encode()).hexdigest()[:8]}"
    groups = list(means.items())[:_ROWS]
    rows = [Row(shorten(n, 60), m.z, m.low, m.high) for n, m in groups]
    level = percent(coverage)
    alt = "Mean z: " + ", ".join(f"{shorten(n, 60)} {number(m.z, sign=True)}" for n, m in groups)
    figure = Figure(
        "Mean z by source",
        f"Dots are means over examples, measured ones as they were; lines {level} intervals, as "
        "wide as held-out tasks needed. Right of zero is forgotten.",
        alt + ".",
        row_plot(key, rows, "mean z", alt),
    )
    table = Table(
        "Mean z by source",
        (
            *("source", "mean z", f"{level} from", "to", "examples", "measured"),
            *("corrected", f"{level} from", "to"),
        ),
        tuple(
            (n, m.z, m.low, m.high, m.examples, m.measured, *(m.robust or (None, None, None)))
            for n, m in means.items()
        ),
        note="Corrected means add the mean error at the measured examples, each predicted without "
        "it (doubly robust). Where these were drawn at random they are right on average for any "
        "task; the others are more precise for a task like those learned from.",
    )
    lead = (
        f"Of {count(whole.examples, 'upstream example')} {whole.measured:,} were measured and the "
        f"others predicted from these and from other tasks. On average the loss changes by "
        f"{number(whole.z, sign=True)} [{number(whole.low, sign=True)}, "
        f"{number(whole.high, sign=True)}]; of a single example the prediction is "
        f"off by {number(learned.rmse)} (root mean square over held-out tasks)."
    )
    sources = list(means)[1:]
    if len(sources) > 1:
        worst = sources[int(np.argmax([means[n].z for n in sources]))]
        lead += f" Forgotten most is {shorten(worst, 60)}."
    if learned.side:
        shares = ", ".join(f"{percent(share)} by {kind}" for kind, share in learned.side.items())
        lead += f" What is known of the examples beside was weighed on held-out tasks: {shares}."
    if learned.losses:
        lead += " With its losses in training, held-out tasks were predicted better than without."
    figures, tables = [figure], [table]
    if likely is not None:
        lead += (
            " Entries are zeros and ones (1: lost). predicted.parquet has the probability of each; "
            f"over held-out tasks their Brier score was {number(likely.brier)}, against "
            f"{number(likely.brier_base)} of one probability for all."
        )
        figures.append(
            reliability_figure(
                f"{key}-likely",
                {"held-out tasks": likely.reliability},
                "Entries of other tasks, each task held out and predicted from as many of its own, "
                "in parts of equal size; on the dashed line probabilities are right. One seed.",
            )
        )
        tables.append(reliability_table(likely.reliability, "held-out tasks"))
    return Section(
        key=key,
        title=f"What {shorten(task, 60)} makes the model forget",
        lead=lead,
        figures=tuple(figures),
        tables=tuple(tables),
        texts=tuple(_text(e) for e in most),
        texts_title="What will be forgotten most",
    )


def _text(found: PredictedExample) -> Text:
    how = (
        "measured"
        if found.measured
        else f"lost with probability {number(found.probability)}, predicted"
        if found.probability is not None
        else f"from {number(found.low, sign=True)} to {number(found.high, sign=True)}, predicted"
    )
    where = f"{shorten(found.source, 60)} · " if found.source else ""
    facts = f"{where}z {number(found.z, sign=True)}, {how}"
    return Text(shorten(found.name, 120), facts, found.text.strip())
