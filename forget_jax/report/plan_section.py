"""The section about what to train so that little is forgotten."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from forget_jax.report.plots import FAINT, RAMP, SERIES, Line, legend, xy_plot
from forget_jax.report.section import Cell, Figure, Section, Table, number, percent


@dataclass(frozen=True)
class Planned:
    """One row of advice; NaN or None where a figure is missing; losses in nats."""

    P: float
    rank: float | None
    lr: float | None
    steps: float
    steps_interval: tuple[float, float]
    forgetting: float
    run_interval: tuple[float, float]
    l_ft: float


@dataclass(frozen=True)
class UnseenRow:
    """A run that the law had not seen; nats.

    Attributes:
      steps: its last mark; measured: forgetting there; predicted, interval: what was said of it.
      coverage: share of all its marks within the interval of one run.
      limit: forgetting at an earlier mark, `reached`; planned, planned_interval: the steps that the
        plan allowed under it; NaN where it refused.
    """

    steps: float
    measured: float
    predicted: float
    interval: tuple[float, float]
    coverage: float
    limit: float
    reached: float
    planned: float
    planned_interval: tuple[float, float]


@dataclass(frozen=True)
class PlanBasis:
    """What advice rests on.

    Attributes:
      law, formula, target: what was fitted to which column.
      limit: of forgetting, nats, or None.
      level: of the intervals.
      laws: by candidate R², BIC and held-out error.
      nulls: held-out errors of the simplest laws.
      tried: by what was left out: signed error, absolute error, coverage and rows.
      valid: the measured ranges.
      warnings: of the fit.
      unseen: by run, what was said of it by the law of all others.
    """

    law: str
    formula: str
    target: str
    limit: float | None
    level: float
    laws: Mapping[str, tuple[float, float, float | None]]
    nulls: Mapping[str, float]
    tried: Mapping[str, tuple[float, float, float, int]]
    valid: Mapping[str, tuple[float, float]]
    warnings: Sequence[str] = ()
    unseen: Mapping[str, UnseenRow] = field(default_factory=dict)


_SPLITS = {
    "rank": "each rank in turn",
    "late": "the last 40 % of steps",
    "run": "each run in turn",
}


def plan_section(
    planned: Sequence[Planned],
    basis: PlanBasis,
    curve: Mapping[str, Sequence[float]],
    measured: Mapping[str, Sequence[float]],
) -> Section:
    """Advice, its picture and its grounds.

    Args:
      planned: the best first.
      basis: the law and how it was tried.
      curve: `steps`, `forgetting`, `low` and `high` at the best row's size.
      measured: `P`, `steps` and `forgetting` (less the baseline) of the table.
    """
    best = planned[0]
    steps = np.asarray(curve["steps"], float)
    mine = np.isclose(np.asarray(measured["P"], float), best.P, rtol=1e-6)
    dots = {k: np.asarray(measured[k], float) for k in ("steps", "forgetting")}
    lines = [
        Line(
            dots["steps"][~mine], dots["forgetting"][~mine], FAINT, "other sizes", "dot", size=0.7
        ),
        Line(dots["steps"][mine], dots["forgetting"][mine], SERIES[0], "this size", "dot"),
        Line(steps, curve["forgetting"], RAMP[-1], f"the law “{basis.law}”"),
        Line(steps, curve["low"], RAMP[2], f"{percent(basis.level)} interval", "dash", 1.2),
        Line(steps, curve["high"], RAMP[2], "", "dash", 1.2),
    ]
    if basis.limit is not None:
        ends = [steps.min(), steps.max()]
        lines.append(Line(ends, [basis.limit] * 2, SERIES[1], "the limit", "dash"))
    lines = [line for line in lines if len(np.atleast_1d(line.x))]
    alt = f"Forgetting over steps at {_size(best)}, measured and by the law, with its interval."
    figure = Figure(
        "Forgetting by steps",
        f"At {_size(best)}. Nothing is said outside the measured range.",
        alt,
        xy_plot("plan-steps", lines, "steps", f"{basis.target} (nats)", alt),
        legend(lines),
    )
    return Section("plan", "What to train", _lead(best, basis), (figure,), _tables(planned, basis))


def _size(row: Planned) -> str:
    size = f"P = {number(int(row.P))}"
    if row.rank is not None:
        size = f"rank {row.rank:g}"
    return size if row.lr is None else f"{size} and learning rate {row.lr:g}"


def _range(bounds: tuple[float, float]) -> str:
    low, high = bounds
    return "–" if np.isnan(low) else f"{number(float(low))} to {number(float(high))}"


def _lead(best: Planned, basis: PlanBasis) -> str:
    lead = (
        f"At {_size(best)}, {best.steps:g} steps forget {number(best.forgetting)} nats by the law; "
        f"one run lies between {number(best.run_interval[0])} and {number(best.run_interval[1])}."
    )
    if basis.limit is not None and not np.isnan(best.steps_interval[0]):
        lead += (
            f" The most steps that keep {number(basis.limit)} nats are {best.steps:g} "
            f"({_range(best.steps_interval)}); the lower end is the careful answer."
        )
    elif basis.limit is not None:
        lead += f" The limit of {number(basis.limit)} nats is not reached in the measured range."
    for split, (signed, _, coverage, _) in basis.tried.items():
        lead += (
            f" With {_SPLITS.get(split, split)} left out, its predictions were "
            f"{number(signed, sign=True)} nats off on average, and its intervals held "
            f"{percent(coverage)} of the measurements, for {percent(basis.level)}."
        )
    return lead


def _tables(planned: Sequence[Planned], basis: PlanBasis) -> tuple[Table, ...]:
    rows: list[tuple[Cell, ...]] = [
        (
            "–" if p.rank is None else f"{p.rank:g}",
            "–" if p.lr is None else f"{p.lr:g}",
            int(p.P),
            float(p.steps),
            _range(p.steps_interval),
            p.forgetting,
            _range(p.run_interval),
            p.l_ft,
        )
        for p in planned
    ]
    columns = ("rank", "learning rate", "P", "steps", "interval", "forgetting", "one run", "l_ft")
    laws: list[tuple[Cell, ...]] = [(name, *figures) for name, figures in basis.laws.items()]
    laws += [(f"{name} (null)", None, None, e) for name, e in basis.nulls.items()]
    ranges = tuple((name, low, high) for name, (low, high) in basis.valid.items())
    tables = [
        Table("Settings, the lowest fine-tuning loss first", columns, tuple(rows)),
        Table(
            "Laws side by side",
            ("law", "R²", "BIC", "held-out error"),
            tuple(laws),
            f"Used: {basis.formula}.",
        ),
        Table("Measured range", ("column", "least", "most"), ranges),
    ]
    if basis.unseen:
        tables.append(_unseen(basis))
    if basis.warnings:
        told = tuple((w,) for w in basis.warnings)
        tables.append(Table("What the fit warns of", ("warning",), told))
    return tuple(tables)


def _unseen(basis: PlanBasis) -> Table:
    """What the plan would have said of each run, had it not been measured."""
    rows: list[tuple[Cell, ...]] = [
        (
            run,
            float(u.steps),
            u.measured,
            u.predicted,
            _range(u.interval),
            percent(u.coverage),
            u.limit,
            float(u.reached),
            u.planned,
            _range(u.planned_interval),
        )
        for run, u in basis.unseen.items()
    ]
    allowed = [u for u in basis.unseen.values() if not np.isnan(u.planned)]
    safe = sum(u.planned <= u.reached for u in allowed)
    held = sum(u.planned_interval[0] <= u.reached <= u.planned_interval[1] for u in allowed)
    said = (
        f"Of {len(allowed)} runs for which it answered, the plan allowed no more steps than really "
        f"kept the limit in {safe}, and its interval held that number in {held}."
        if allowed
        else "For none of them would the plan have answered how many steps keep the limit."
    )
    return Table(
        "Each run left out of the fit, and what the plan would have said of it",
        (
            *("run", "steps", "forgot", "predicted", f"{percent(basis.level)} for one run"),
            *("marks inside", "as a limit", "kept until", "planned steps", "interval"),
        ),
        tuple(rows),
        said,
    )
