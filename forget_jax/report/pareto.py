"""Which setting forgets least for what it learns: the front of forgetting against task loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forget_jax.report.plots import FAINT, SERIES, Line, legend, xy_plot
from forget_jax.report.section import Figure, Table, count, number, shorten

_SETTINGS = 6  # that are drawn in colours of their own
_ROWS = 20  # of the table


@dataclass(frozen=True)
class Mark:
    """A setting after so many steps: fine-tuning loss and forgetting loss, nats, over seeds."""

    setting: str
    P: float
    steps: float
    l_ft: float
    l_f: float


def front(marks: Sequence[Mark]) -> list[Mark]:
    """Those than which none has learned as much and forgotten less, the least forgetting first."""
    known = [m for m in marks if np.isfinite(m.l_ft) and np.isfinite(m.l_f)]
    best: list[Mark] = []
    for mark in sorted(known, key=lambda m: (m.l_f, m.l_ft)):
        if not best or mark.l_ft < best[-1].l_ft:
            best.append(mark)
    return best


def front_figure(marks: Sequence[Mark]) -> list[Figure]:
    """All marks, the front through the best, and who is on it; nothing of fewer than two settings
    or two marks on the front.
    """
    best = front(marks)
    if not _is_drawn(marks, best):
        return []
    on = list(dict.fromkeys(m.setting for m in sorted(best, key=lambda m: m.P)))
    often = sorted(on, key=lambda name: -sum(m.setting == name for m in best))[:_SETTINGS]
    others = [m for m in marks if m not in best]
    lines = [
        Line(*_losses(others), FAINT, "all settings", "dot", size=0.5),
        Line(*_losses(best), FAINT, "", "line", 1.2),
        Line(*_losses([m for m in best if m.setting not in often]), FAINT, "", "dot"),
        *(
            Line(*_losses([m for m in best if m.setting == name]), colour, shorten(name, 40), "dot")
            for name, colour in zip([x for x in on if x in often], SERIES, strict=False)
        ),
    ]
    most = often[0]
    share = sum(m.setting == most for m in best)
    alt = (
        f"Forgetting loss against fine-tuning loss of {count(len(marks), 'mark')}; "
        f"{count(len(best), 'mark')} of {count(len(on), 'setting')} on the front, {share} of them "
        f"of {shorten(most, 60)}."
    )
    return [
        Figure(
            "The least forgetting for what was learned",
            f"Large dots: nothing measured learned as much and forgot less. "
            f"{count(len(on), 'setting')} of {len({m.setting for m in marks})} reach the front; "
            f"{shorten(most, 60)} holds {share} of its {len(best)} marks. Losses are means over "
            "seeds where there are several.",
            alt,
            xy_plot(
                "scaling-front", lines, "fine-tuning loss (nats)", "forgetting loss (nats)", alt
            ),
            legend(lines),
        )
    ]


def _is_drawn(marks: Sequence[Mark], best: Sequence[Mark]) -> bool:
    return len({m.setting for m in marks}) > 1 and len(best) > 1


def _losses(marks: Sequence[Mark]) -> tuple[list[float], list[float]]:
    return [m.l_ft for m in marks], [m.l_f for m in marks]


def front_table(marks: Sequence[Mark]) -> list[Table]:
    """The front mark by mark, evenly thinned; nothing where no front is drawn."""
    best = front(marks)
    if not _is_drawn(marks, best):
        return []
    kept = np.unique(np.linspace(0, len(best) - 1, _ROWS).round().astype(int))
    rows = tuple((number(best[k].l_ft), best[k].setting, best[k].steps, best[k].l_f) for k in kept)
    return [
        Table(
            "The best setting for each fine-tuning loss",
            ("fine-tuning loss", "setting", "steps", "forgetting loss"),
            rows,
            "To learn so much, this setting forgot least of those measured. Neighbours that differ "
            "by less than seeds do are as good.",
        )
    ]
