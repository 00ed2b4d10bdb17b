"""The section about how forgetting grows with trained parameters and steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from forget_jax.report.law_checks import LawChecks, check_figures, check_tables, verdict
from forget_jax.report.pareto import Mark, front_figure, front_table
from forget_jax.report.plots import SERIES, Line, legend, ordered_colours, xy_plot
from forget_jax.report.section import Figure, Section, Table, count, floats, number, shorten

_SIZES = 6  # parameter counts drawn as lines of their own


@dataclass(frozen=True)
class FittedLaw:
    """What is shown of a law; None or NaN where a figure is missing.

    Attributes:
      params: by name, fitted values.
      ci: by parameter, the bounds of its interval.
      r2, bic: of the fit, in-sample.
      heldout_error: mean absolute error on runs left out of the fit, nats.
      warnings: what the fit warns of.
    """

    params: Mapping[str, float] = field(default_factory=dict)
    ci: Mapping[str, Sequence[float]] = field(default_factory=dict)
    r2: float | None = None
    bic: float | None = None
    heldout_error: float | None = None
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class LawSurface:
    """A law's prediction: K sizes `P`, S numbers of `steps`, and `l_f`, K × S, nats."""

    P: Sequence[float]
    steps: Sequence[float]
    l_f: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Part:
    """Some rows of a sweep: which, and what they have in common, in words."""

    rows: Sequence[bool]
    words: str


def scaling_section(
    points: Mapping[str, Sequence[Any]],
    laws: Mapping[str, FittedLaw],
    curves: Mapping[str, LawSurface] | None = None,
    seeds: int = 1,
    checks: LawChecks | None = None,
    part: Part | None = None,
    marks: Sequence[Mark] = (),
) -> Section:
    """Measured points, fitted laws and how they were found wanting.

    Args:
      points: columns `P` (trained parameters), `steps`, `l_ft`, `l_f` (nats per token) and `run`.
      laws: by name.
      curves: by law's name its predicted surface.
      seeds: runs under different seeds for each P.
      checks: how the laws were tried.
      part: the rows whose trajectories are drawn; None draws all.
      marks: what each setting cost and gained after so many steps; none draws no front.
    """
    p, steps, l_ft, l_f = (np.asarray(points[k], float) for k in ("P", "steps", "l_ft", "l_f"))
    runs = len(set(points["run"]))
    sizes = np.unique(p[np.isfinite(p)])
    if len(sizes) > _SIZES:
        sizes = sizes[np.linspace(0, len(sizes) - 1, _SIZES).round().astype(int)]
    basis = f"{count(len(p), 'point')} of {count(runs, 'run')}, {count(seeds, 'seed')} a setting"
    colours = ordered_colours(len(sizes))
    mine = np.ones(len(p), bool) if part is None else np.asarray(part.rows, bool)
    measured = [
        Line(steps[here], l_f[here], colour, f"P = {number(int(size))}", "dot")
        for size, colour in zip(sizes, colours, strict=True)
        if (here := mine & (p == size)).any()
    ]
    law = _drawn(laws, curves or {}) if part is None else None
    predicted = []
    if law is not None:
        surface = (curves or {})[law]
        near = np.asarray(surface.P, float)
        for size, colour in zip(sizes, colours, strict=True):
            k = int(np.argmin(np.abs(np.log(near) - np.log(size))))
            if np.isclose(near[k], size, rtol=0.01):
                predicted.append(Line(surface.steps, np.asarray(surface.l_f)[k], colour))
    alt = (
        f"Forgetting loss over steps for {count(len(sizes), 'size')} of the trained part; {basis}."
    )
    figures = []
    if not len(p) or np.isfinite(p + steps + l_f).any():
        figure = Figure(
            "Forgetting by steps",
            f"Dots are measurements: {basis}."
            + (f" Drawn is one part, {part.words}." if part else "")
            + (f" Lines are the fitted law “{law}”." if predicted else "")
            + " P counts trained parameters.",
            alt,
            xy_plot(
                "scaling-steps", [*predicted, *measured], "steps", "forgetting loss (nats)", alt
            ),
            legend(measured),
        )
        figures.append(figure)
    same = [
        Line(l_ft[p == size], l_f[p == size], colour, f"P = {number(int(size))}", "dot")
        for size, colour in zip(sizes, colours, strict=True)
    ]
    checks = checks or LawChecks()
    fit = _straight_line(l_ft, l_f)
    if checks.line is not None and fit:
        ends = np.asarray(fit[0].x)
        offset, slope = checks.line
        fit.append(Line(ends, offset + slope * ends, SERIES[2], "errors in both (ODR)"))
    alt = f"Forgetting loss against fine-tuning loss; {basis}."
    if not len(p) or np.isfinite(l_ft + l_f).any():
        figure = Figure(
            "Forgetting by fine-tuning loss",
            f"The same measurements: {basis}."
            + (" The dashed line is their least-squares line." if fit else ""),
            alt,
            xy_plot(
                "scaling-losses",
                [*fit, *same],
                "fine-tuning loss (nats)",
                "forgetting loss (nats)",
                alt,
            ),
            legend([*same, *fit]),
        )
        figures.append(figure)
    figures += front_figure(marks)
    figures += check_figures(checks, p, steps, l_f)
    tables = (*_tables(laws), *front_table(marks), *check_tables(checks))
    return Section(
        "scaling",
        "How it scales",
        _lead(laws, runs, seeds) + verdict(checks),
        tuple(figures),
        tables,
    )


def _drawn(laws: Mapping[str, FittedLaw], curves: Mapping[str, LawSurface]) -> str | None:
    """The law whose surface is drawn: the least held-out error, or the best R² without one."""

    def rank(name: str) -> tuple[float, float]:
        law = laws.get(name, FittedLaw())
        error, r2 = law.heldout_error, law.r2
        return (np.inf if error is None else error, -np.inf if r2 is None else -r2)

    return min(curves, key=rank, default=None)


def _straight_line(x: np.ndarray, y: np.ndarray) -> list[Line]:
    known = np.isfinite(x) & np.isfinite(y)
    if len(np.unique(x[known])) < 2:
        return []
    slope, offset = np.polyfit(x[known], y[known], 1)
    ends = np.asarray([x[known].min(), x[known].max()])
    return [Line(ends, slope * ends + offset, SERIES[1], "least squares", "dash")]


def _lead(laws: Mapping[str, FittedLaw], runs: int, seeds: int) -> str:
    lead = (
        "Each dot is a model after some steps with some number of trained parameters: how far its "
        "next-token predictions left the base model's (forgetting loss) and how well it learned "
        "(fine-tuning loss)."
    )
    known = zip(laws, floats(law.heldout_error for law in laws.values()), strict=True)
    errors = {n: e for n, e in known if np.isfinite(e)}
    if errors:
        best = min(errors, key=lambda n: errors[n])
        lead += (
            f" On runs kept out of the fits, “{best}” erred least ({number(errors[best])} nats"
            + (f", of {len(errors)} laws)." if len(errors) > 1 else ").")
        )
    lead += f" The fits rest on {count(runs, 'run')}"
    return lead + (
        " with one seed a setting, so small differences between laws mean little."
        if seeds == 1
        else "."
    )


def _tables(laws: Mapping[str, FittedLaw]) -> tuple[Table, ...]:
    if not laws:
        return ()
    columns = ("law", "R²", "BIC", "held-out error")
    quality = tuple((n, law.r2, law.bic, law.heldout_error) for n, law in laws.items())
    rows = []
    for name, law in laws.items():
        for parameter, value in law.params.items():
            bounds = law.ci.get(parameter)
            interval = "–" if bounds is None else " to ".join(number(b) for b in bounds)
            rows.append((shorten(name, 60), parameter, value, interval))
    note = "R² and BIC are in-sample; a lower BIC is better."
    parameters = Table("Fitted parameters", ("law", "parameter", "value", "interval"), tuple(rows))
    tables = [Table("Laws side by side", columns, quality, note)]
    if rows:
        tables.append(parameters)
    told = tuple((shorten(name, 60), w) for name, law in laws.items() for w in law.warnings)
    if told:
        tables.append(Table("What the fits warn of", ("law", "warning"), told))
    return tuple(tables)
