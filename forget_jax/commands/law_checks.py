"""What is tried on the laws of a table: rows left out, ranks side by side, rho, the fan, draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from forget_jax import scaling
from forget_jax.commands.summaries import Checks, Draws, Eq4, Fan, RhoProfile, Tried
from forget_jax.errors import UserError
from forget_jax.runs.progress import Progress
from forget_jax.scaling.splits import LATE, LATE_SHARE

SPLITS = ("rank", "method", "task", "model", "lr", LATE)
QUICK: Mapping[str, Any] = {"bootstraps": 128, "starts": 64}
_SIZES, _STEPS = 4, 40
_DRAWS = 256  # of the parameters, kept for the page


def checks(table: pd.DataFrame, fits: Mapping[str, scaling.Fit], target: str | None) -> Checks:
    """Everything that the page shows beside the fits; what a table does not allow is left out."""
    points: Any = table.to_dict("series")
    tried: dict[str, dict[str, Tried]] = {}
    targets = sorted({f.target for f in fits.values()}, key=lambda name: name != "l_f")
    with Progress("try laws", len(SPLITS), unit="way of leaving out") as progress:
        for number, split in enumerate(SPLITS):
            for name in targets:  # errors of one target are compared with its own nulls
                own = {n: f for n, f in fits.items() if f.target == name}
                if (found := _tried(points, own, split, name)) is not None:
                    tried[split if name == targets[0] else f"{split} of {name}"] = found
            progress.at(number + 1, split)
    best = min((n for n, f in fits.items() if f.target == targets[0]), key=lambda n: _rank(fits[n]))
    return Checks(
        tried=tried,
        eq4=_eq4(points),
        best=best,
        residuals=_residuals(points, fits[best]),
        fan=_fan(table, fits, target),
        rho=_rho(points, target),
        draws=_draws(fits[best]),
    )


def _rank(f: scaling.Fit) -> tuple[float, float]:
    return (np.inf if f.heldout_error is None else f.heldout_error, f.bic)


def _tried(
    points: Any, fits: Mapping[str, scaling.Fit], split: str, target: str
) -> dict[str, Tried] | None:
    try:
        laws = [f.definition for f in fits.values()]
        found, _ = scaling.holdouts(points, laws, split, target=target, **QUICK)
    except UserError:
        return None
    if not found.keys() & fits.keys():  # nulls alone
        return None
    return {n: Tried(h.signed, h.error, h.coverage, h.points) for n, h in found.items()}


def _eq4(points: Any) -> Eq4 | None:
    try:
        line = scaling.fit("deming", points, heldout=False)
    except UserError:
        return None
    try:
        ranks = scaling.rank_test(points)
    except UserError:
        return Eq4(line.params["c"], line.params["s"], line.ci, (), (), (), None, None, "", 0)
    return Eq4(
        c=line.params["c"],
        s=line.params["s"],
        ci=line.ci,
        ranks=ranks.ranks,
        slopes=ranks.slopes,
        levels=ranks.levels,
        p_level=ranks.p_level,
        p_slope=ranks.p_slope,
        test=ranks.test,
        runs=ranks.runs,
    )


def _at(f: scaling.Fit, points: Any) -> dict[str, Any]:
    return {
        n: np.asarray(points[n]) for n in (*f.definition.columns, *filter(None, [f.definition.by]))
    }


def _residuals(points: Any, f: scaling.Fit) -> tuple[tuple[float, float, float], ...]:
    """P, steps, and measurement less prediction, of each row."""
    if not {"P", "steps"} <= set(points):
        return ()
    at = _at(f, points) or {"steps": np.asarray(points["steps"])}
    residual = np.asarray(points[f.target], float) - f.predict(**at)
    rows: Any = zip(points["P"], points["steps"], residual, strict=True)
    return tuple((float(P), float(n), float(r)) for P, n, r in rows)


def _fan(
    table: pd.DataFrame, fits: Mapping[str, scaling.Fit], target: str | None
) -> tuple[Fan, ...]:
    """The best law of P and steps, fitted to the first 60 % of steps and drawn to the last."""
    grown = {n: f for n, f in fits.items() if "steps" in f.definition.columns}
    grown = {n: f for n, f in grown.items() if set(f.definition.columns) <= {"P", "steps"}}
    grown = {n: f for n, f in grown.items() if not f.definition.by}
    if not grown or "P" not in table:
        return ()
    law = grown[min(grown, key=lambda n: _rank(grown[n]))].definition
    cut = (1.0 - LATE_SHARE) * float(table["steps"].max())
    try:
        early: Any = table[table["steps"] <= cut].to_dict("series")
        made = scaling.fit(law, early, target=target, heldout=False, warn=False)
    except UserError:
        return ()
    if not made.ci:
        return ()
    sizes: Sequence[float] = np.unique(table["P"]).tolist()
    if len(sizes) > _SIZES:
        sizes = [sizes[k] for k in np.linspace(0, len(sizes) - 1, _SIZES).round().astype(int)]
    steps = np.geomspace(table["steps"].min(), table["steps"].max(), _STEPS)
    fans = []
    for P in sizes:
        at = {"P": np.full(_STEPS, P), "steps": steps}
        low, high = made.interval(**at, kind="point")
        fans.append(
            Fan(
                law=law.name,
                P=float(P),
                cut=cut,
                steps=_floats(steps),
                predicted=_floats(made.predict(**at)),
                low=_floats(low),
                high=_floats(high),
            )
        )
    return tuple(fans)


def _draws(f: scaling.Fit) -> Draws | None:
    """The first few draws, of the parameters that are finite in all of them."""
    found = {name: values[:_DRAWS] for name, values in f.draws().items()}
    found = {name: values for name, values in found.items() if np.isfinite(values).all()}
    if not found:
        return None
    rows: Any = zip(*found.values(), strict=True)
    fitted = tuple(f.params[name] for name in found)
    return Draws(f.law, tuple(found), fitted, tuple(tuple(map(float, row)) for row in rows))


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, values))


def _rho(points: Any, target: str | None) -> RhoProfile | None:
    try:
        p = scaling.profile("joint_rho", points, "rho", target=target, starts=64)
    except UserError:
        return None
    return RhoProfile(p.values, p.deviance, p.low, p.high, p.level)
