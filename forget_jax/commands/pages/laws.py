"""Chapters on laws: fits, what was tried on them, and what a planner answers."""

import io

import numpy as np
import pandas as pd

from forget_jax import report as room
from forget_jax.commands import summaries
from forget_jax.files import Path
from forget_jax.report import Section


def scaling(folder: Path, summary: summaries.Scaling) -> Section:
    """Points, fitted laws, and what was tried on them."""
    points = pd.read_csv(io.BytesIO((folder / "points.csv").read_bytes()))
    for name in ("P", "steps", "l_ft", "l_f"):
        points[name] = points.get(name, np.nan)  # what a table from elsewhere lacks is not drawn
    if "run" not in points:
        points["run"] = points["P"].astype(str)
    laws = {
        name: room.FittedLaw(f.params, f.ci, f.r2, f.bic, f.heldout_error, f.warnings)
        for name, f in summary.laws.items()
    }
    curves = {name: room.LawSurface(c.P, c.steps, c.l_f) for name, c in summary.curves.items()}
    checks, part, marks = _checks(summary.checks), _part(points), marks_of(points)
    columns = points.to_dict("list")
    return room.scaling_section(columns, laws, curves, summary.seeds, checks, part, marks)


def marks_of(points: pd.DataFrame) -> list[room.Mark]:
    """Every setting after its numbers of steps, a mean over seeds; of one task, the first."""
    if "task" in points:
        points = points[points["task"] == sorted(points["task"].unique())[0]]
    names = {"method": "method", "rank": "rank", "lr": "learning rate"}
    if "rank" not in points:
        names["P"] = "P ="
    axes = [name for name in names if name in points and points[name].notna().all()]
    if not {"l_ft", "l_f", "steps"} <= set(points) or points[["l_ft", "l_f"]].isna().all().any():
        return []
    told = [name for name in axes if points[name].nunique() > 1]
    means = points.groupby([*axes, "steps"])[["l_ft", "l_f"]].mean().reset_index()
    sizes = points.groupby([*axes, "steps"])["P"].first().to_list()
    found = []
    for row, P in zip(means.to_dict("records"), sizes, strict=True):
        words = [row[n] if n == "method" else f"{names[n]} {row[n]:g}" for n in told]
        name = ", ".join(map(str, words)) or "the run"
        found.append(room.Mark(name, float(P), row["steps"], row["l_ft"], row["l_f"]))
    return found


def _part(points: pd.DataFrame) -> room.Part | None:
    """One task, method and learning rate of a sweep over several: the middle of those sorted."""
    rows, words = pd.Series(True, index=points.index), []
    for name, said in (("method", "method"), ("task", "task"), ("lr", "learning rate")):
        if name not in points or points[name].nunique() < 2:
            continue
        values = sorted(points.loc[rows, name].unique().tolist())
        value = "lora" if "lora" in values else values[len(values) // 2]
        rows &= points[name] == value
        words.append(f"{said} {value:g}" if isinstance(value, float) else f"{said} {value}")
    return room.Part(rows.tolist(), ", ".join(words)) if words else None


def _checks(c: summaries.Checks) -> room.LawChecks:
    line = (c.eq4.s, -c.eq4.c) if c.eq4 else None
    ranks = zip(c.eq4.ranks, c.eq4.slopes, c.eq4.levels, strict=True) if c.eq4 else ()
    return room.LawChecks(
        tried={
            split: {n: (t.signed, t.error, t.coverage, t.points) for n, t in laws.items()}
            for split, laws in c.tried.items()
        },
        line=line,
        ranks=tuple(ranks),
        p_level=c.eq4.p_level if c.eq4 else None,
        p_slope=c.eq4.p_slope if c.eq4 else None,
        test=c.eq4.test if c.eq4 else "",
        best=c.best,
        residuals=c.residuals,
        fan=[room.Extrapolated(**vars(f)) for f in c.fan],
        rho=(c.rho.values, c.rho.deviance) if c.rho else None,
        resampled=room.Resampled(**vars(c.draws)) if c.draws else None,
    )


def plan(folder: Path, summary: summaries.Plan) -> Section:
    """The answer, and what it rests on."""
    points = pd.read_csv(io.BytesIO((folder / "points.csv").read_bytes()))
    planned = [
        room.Planned(
            P=a.P,
            rank=a.rank,
            lr=a.lr,
            steps=a.steps,
            steps_interval=(a.steps_low, a.steps_high),
            forgetting=a.forgetting,
            run_interval=(a.run_low, a.run_high),
            l_ft=a.l_ft,
        )
        for a in (summary.answer, *summary.others)
    ]
    basis = room.PlanBasis(
        law=summary.law,
        formula=summary.formula,
        target=summary.target,
        limit=summary.limit,
        level=summary.level,
        laws={n: (c.r2, c.bic, c.heldout_error) for n, c in summary.laws.items()},
        nulls=summary.nulls,
        tried={n: (t.signed, t.error, t.coverage, t.points) for n, t in summary.tried.items()},
        valid=summary.valid,
        warnings=summary.warnings,
        unseen={
            run: room.UnseenRow(
                steps=u.steps,
                measured=u.measured,
                predicted=u.predicted,
                interval=(u.low, u.high),
                coverage=u.coverage,
                limit=u.limit,
                reached=u.reached,
                planned=u.planned,
                planned_interval=(u.planned_low, u.planned_high),
            )
            for run, u in summary.unseen.items()
        },
    )
    measured = {
        "P": points["P"] if "P" in points else [summary.answer.P] * len(points),
        "steps": points["steps"],
        "forgetting": points[summary.target] - summary.baseline,
    }
    return room.plan_section(planned, basis, vars(summary.curve), measured)
