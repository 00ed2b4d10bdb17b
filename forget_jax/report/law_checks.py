"""Pictures of how laws were tried: residuals, the fan of an extrapolation, the profile of rho, and
the parameters of resampled tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from forget_jax.report.plots import (
    MUTED,
    SERIES,
    Line,
    corner_plot,
    legend,
    ordered_colours,
    xy_plot,
)
from forget_jax.report.section import Cell, Figure, Table, number, percent, shorten

SPLITS = {
    "rank": "each rank",
    "method": "each method",
    "task": "each task",
    "lr": "each learning rate",
    "late": "last 40 % of steps",
}
NULLS = ("constant", "power_N", "power_P")
_DRAWN = 6  # parameters of a corner plot
_LIMIT = 3.841  # of chi-squared with one degree of freedom at 95 %


@dataclass(frozen=True)
class Extrapolated:
    """A law fitted to the steps up to `cut`, at one size P; nats."""

    law: str
    P: float
    cut: float
    steps: Sequence[float]
    predicted: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Resampled:
    """The parameters of a law: fitted, and in each draw of whole runs (one a row)."""

    law: str
    names: Sequence[str]
    fitted: Sequence[float]
    draws: Sequence[Sequence[float]]


@dataclass(frozen=True)
class LawChecks:
    """How laws were tried.

    Attributes:
      tried: by what was left out and law: signed error, absolute error, coverage, rows.
      line: offset and slope of L_f over L_ft with errors in both.
      ranks: P, slope and level of each rank's own line.
      p_level, p_slope, test: whether ranks differ given L_ft, and by which test.
      best: the law whose residuals are drawn.
      residuals: P, steps and residual of each row.
      fan: by size.
      rho: values, and deviance at each.
      resampled: parameters of the best law over draws of runs.
    """

    tried: Mapping[str, Mapping[str, tuple[float, float, float, int]]] = field(default_factory=dict)
    line: tuple[float, float] | None = None
    ranks: Sequence[tuple[float, float, float]] = ()
    p_level: float | None = None
    p_slope: float | None = None
    test: str = ""
    best: str = ""
    residuals: Sequence[tuple[float, float, float]] = ()
    fan: Sequence[Extrapolated] = ()
    rho: tuple[Sequence[float], Sequence[float]] | None = None
    resampled: Resampled | None = None


def check_figures(
    checks: LawChecks, p: np.ndarray, steps: np.ndarray, l_f: np.ndarray
) -> list[Figure]:
    """The pictures that there are figures for; the points are those of the table."""
    figures = []
    if len(checks.residuals):
        figures.append(_residual_map(checks))
    if checks.fan:
        figures.append(_fan(checks.fan, p, steps, l_f))
    if checks.rho is not None and len(checks.rho[0]) > 1:
        figures.append(_profile(*checks.rho))
    if checks.resampled is not None and len(checks.resampled.draws) > 1:
        figures.append(_corner(checks.resampled))
    return figures


def _residual_map(checks: LawChecks) -> Figure:
    sizes, steps, residual = np.asarray(checks.residuals, float).T
    most = float(np.abs(residual).max()) or 1.0
    lines = [
        Line([n], [np.log10(P)], SERIES[1] if r > 0 else SERIES[0], "", "dot", size=size)
        for P, n, r, size in zip(
            sizes, steps, residual, 1.5 * np.sqrt(np.abs(residual) / most).clip(0.2), strict=True
        )
    ]
    named = [
        Line([], [], SERIES[1], "forgets more than predicted", "dot"),
        Line([], [], SERIES[0], "forgets less", "dot"),
    ]
    alt = f"Residuals of the law {checks.best} over steps and trained parameters."
    return Figure(
        "Where the law errs",
        f"Residuals of “{checks.best}”; the larger the dot, the larger, up to {number(most)} nats. "
        "A side of one colour is what the law does not describe.",
        alt,
        xy_plot("scaling-residuals", lines, "steps", "trained parameters, log10", alt),
        legend(named),
    )


def _fan(fan: Sequence[Extrapolated], p: np.ndarray, steps: np.ndarray, l_f: np.ndarray) -> Figure:
    lines = []
    for one, colour in zip(fan, ordered_colours(len(fan)), strict=True):
        own = np.isclose(p, one.P, rtol=1e-6)
        lines += [
            Line(steps[own], l_f[own], colour, f"P = {number(int(one.P))}", "dot"),
            Line(one.steps, one.predicted, colour),
            Line(one.steps, one.low, colour, "", "dash", 0.9),
            Line(one.steps, one.high, colour, "", "dash", 0.9),
        ]
    seen = np.concatenate([l_f, *(one.predicted for one in fan)])
    ends = [float(np.nanmin(seen)), float(np.nanmax(seen))]
    cut = fan[0].cut
    lines.append(Line([cut, cut], ends, MUTED, "fitted up to here", "dash"))
    alt = f"The law {fan[0].law} fitted to steps up to {number(cut)} and drawn beyond them."
    return Figure(
        "Predicting the last steps",
        f"“{fan[0].law}”, fitted to the first 60 % of steps; dashed: where one new run should lie.",
        alt,
        xy_plot("scaling-fan", lines, "steps", "forgetting loss (nats)", alt),
        legend(lines),
    )


def _profile(values: Sequence[float], deviance: Sequence[float]) -> Figure:
    x, y = np.asarray(values, float), np.asarray(deviance, float)
    lines = [
        Line(x, np.minimum(y, 4 * _LIMIT), SERIES[0], "deviance", "line+dot"),
        Line([x.min(), x.max()], [_LIMIT] * 2, SERIES[1], "95 % limit", "dash"),
    ]
    inside = x[y <= _LIMIT]
    found = (
        f"{number(float(inside.min()))} to {number(float(inside.max()))}" if len(inside) else "–"
    )
    alt = f"Profile likelihood of rho; values from {found} fit alike."
    return Figure(
        "How well rho is known",
        f"Values from {found} fit alike; predictions do not depend on which is taken.",
        alt,
        xy_plot("scaling-rho", lines, "rho", "loss of log likelihood, twice", alt),
        legend(lines),
    )


def _corner(found: Resampled) -> Figure:
    names, fitted_K = list(found.names)[:_DRAWN], np.asarray(found.fitted, float)[:_DRAWN]
    draws_SxK = np.asarray(found.draws, float)[:, :_DRAWN]
    draws_SxK = draws_SxK[np.isfinite(draws_SxK).all(axis=1)]
    alike = _most_alike(names, draws_SxK)
    alt = f"Pairs of parameters of the law {found.law} over {len(draws_SxK)} draws of runs"
    alt += f"; {alike}." if alike else "."
    return Figure(
        "How parameters hang together",
        f"Parameters of “{found.law}”, refitted to {len(draws_SxK)} tables of runs drawn with "
        f"replacement; marked: the fit to all runs."
        + (f" {alike[0].upper()}{alike[1:]}." if alike else "")
        + " Where dots lie along a line, only a combination of the two is known.",
        alt,
        corner_plot("scaling-corner", names, draws_SxK, fitted_K.tolist(), alt),
    )


def _most_alike(names: Sequence[str], draws_SxK: np.ndarray) -> str:
    """The pair whose ranks are correlated most, in words."""
    ranks_SxK = draws_SxK.argsort(axis=0).argsort(axis=0).astype(float)
    kept = [k for k in range(len(names)) if np.ptp(draws_SxK[:, k]) > 0]
    if len(kept) < 2:
        return ""
    with_KxK = np.tril(np.corrcoef(ranks_SxK[:, kept].T), -1)
    i, j = np.unravel_index(np.abs(with_KxK).argmax(), with_KxK.shape)
    pair = f"{names[kept[j]]} and {names[kept[i]]}"
    return (
        f"{pair} move together most (rank correlation {number(float(with_KxK[i, j]), decimals=2)})"
    )


def _said(split: str) -> str:
    """What was left out, in words; `rank of kl` is of laws that predict kl."""
    what, _, target = split.partition(" of ")
    return SPLITS.get(what, what) + (f" ({target})" if target else "")


def verdict(checks: LawChecks) -> str:
    """Whether the best law beats the best null on what was left out, in words for the lead."""
    said = ""
    for split, laws in checks.tried.items():
        errors = {name: error for name, (_, error, _, _) in laws.items() if np.isfinite(error)}
        nulls = {name: error for name, error in errors.items() if name in NULLS}
        own = {name: error for name, error in errors.items() if name not in NULLS}
        if not nulls or not own:
            continue
        null, law = (min(group, key=lambda n: group[n]) for group in (nulls, own))
        how = "is no better than" if own[law] >= nulls[null] else "beats"
        said += (
            f" Left out {_said(split)}, the best law “{shorten(law, 40)}” {how} the "
            f"best null “{null}” ({number(own[law])} against {number(nulls[null])} nats)."
        )
    return said


def check_tables(checks: LawChecks) -> list[Table]:
    """What was left out, and ranks beside one another."""
    tables = []
    rows: list[tuple[Cell, ...]] = [
        (_said(split), law, signed, error, _share(coverage), n)
        for split, laws in checks.tried.items()
        for law, (signed, error, coverage, n) in sorted(laws.items(), key=lambda x: x[1][1])
    ]
    if rows:
        columns = ("left out", "law", "signed error", "absolute error", "in 95 % interval", "rows")
        note = "Prediction less measurement, nats, the least error first; nulls among the laws."
        tables.append(Table("What was left out of the fits", columns, tuple(rows), note))
    if checks.ranks:
        note = (
            "That ranks do not differ given the fine-tuning loss: "
            f"p = {number(checks.p_level)} for the level, {number(checks.p_slope)} for the slope "
            f"({checks.test})."
        )
        lines = tuple((int(P), slope, level) for P, slope, level in checks.ranks)
        heads = ("P", "slope of L_f over L_ft", "L_f at the mean L_ft")
        tables.append(Table("Each rank's own line", heads, lines, note))
    return tables


def _share(coverage: float) -> str:
    return "–" if np.isnan(coverage) else percent(coverage)
