"""The figure and table of how probabilities came true: shares of ones by predicted probability."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forget_jax.report.plots import MUTED, SERIES, Line, legend, xy_plot
from forget_jax.report.section import Figure, Table, number, shorten


@dataclass(frozen=True)
class Reliability:
    """Entries of about one probability: its mean, the share of them that are 1, their number."""

    predicted: float
    observed: float
    entries: int


def reliability_figure(
    key: str, found: Mapping[str, Sequence[Reliability]], caption: str
) -> Figure:
    """Observed shares over probabilities, with the diagonal on which they agree.

    Args:
      key: begins the ids of the picture's parts; one a page.
      found: by name, from the least probable entries to the most; as many as there are colours.
      caption: what was predicted from what.
    """
    shown = dict(list(found.items())[: len(SERIES)])
    lines = [Line([0, 1], [0, 1], MUTED, "as predicted", "dash")]
    lines += [
        Line(
            [b.predicted for b in bins],
            [b.observed for b in bins],
            colour,
            shorten(name, 60),
            "line+dot",
        )
        for colour, (name, bins) in zip(SERIES, shown.items(), strict=False)
    ]
    alt = "Share of ones by predicted probability: " + "; ".join(
        f"{shorten(name, 60)} "
        + ", ".join(f"{number(b.predicted)} {number(b.observed)}" for b in bins)
        for name, bins in shown.items()
    )
    return Figure(
        "Predicted probability and what came of it",
        caption,
        f"{alt}.",
        xy_plot(
            key,
            lines,
            "predicted probability",
            "share of ones",
            f"{alt}.",
            y_limits=(-0.03, 1.03),
        ),
        legend(lines),
    )


def reliability_table(bins: Sequence[Reliability], name: str) -> Table:
    """The figures behind one line."""
    return Table(
        f"Probabilities of {shorten(name, 60)}",
        ("mean probability", "share of ones", "entries"),
        tuple((b.predicted, b.observed, b.entries) for b in bins),
    )
