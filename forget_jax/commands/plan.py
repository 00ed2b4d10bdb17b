"""`forget-jax plan`: steps, rank and learning rate, or forgetting, from points measured before."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from forget_jax import files, scaling
from forget_jax.commands import points
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Plan
from forget_jax.commands.summaries import Answer, Candidate, Curve, Tried, UnseenRun
from forget_jax.commands.summaries import Plan as Summary
from forget_jax.errors import UserError, nearest
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir
from forget_jax.scaling import choose

APART = ("task", "method", "model", "metric", "data")  # what one law does not describe together
NEEDS = {
    "steps": ("limit and rank (or P)", lambda s: s.limit > 0 and (s.rank or s.P)),
    "settings": ("limit", lambda s: s.limit > 0),
    "forgetting": ("steps and rank (or P)", lambda s: s.steps and (s.rank or s.P)),
}
_CURVE = 60
QUICK: Mapping[str, Any] = {"bootstraps": 128, "starts": 64}  # for fits that are many


def check(settings: Plan) -> None:
    """Refuses a question that lacks a part, before the table is read."""
    if not settings.points.path:
        raise UserError("give points.path: a workdir of scaling, or a table of points")
    needs, given = NEEDS[settings.ask]
    if not given(settings):
        raise UserError(f"ask={settings.ask} needs {needs}")
    if settings.rank and settings.P:
        raise UserError("give rank or P, not both")
    for condition in settings.where:
        if not condition.partition("=")[2]:
            raise UserError(f"config.where has {condition!r}; it must be COLUMN=VALUE")


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What is known of one learning rate: its rows, and the laws of both losses."""

    lr: float | None
    table: pd.DataFrame
    law: scaling.Fit
    fits: dict[str, scaling.Fit]
    refused: dict[str, str]
    l_ft: scaling.Fit | None


def run(settings: Plan, work: Workdir) -> Ended:
    """Fits the table and answers the question, or refuses."""
    table = _rows(points.read(settings.points.path), settings)
    target = settings.target or ("kl" if "kl" in table else "l_f")
    P = settings.P
    if settings.rank:
        P = settings.rank * _per_rank(table)
    parts = _parts(table, settings)
    fitted = []
    with Progress("fit laws", len(parts), unit="learning rate") as progress:
        for number, (lr, rows) in enumerate(parts):
            fitted.append(_fitted(lr, rows, target, settings))
            progress.at(number + 1, "" if lr is None else f"learning rate {lr:g}")
    answers = sorted(
        (a for f in fitted for a in _answers(f, P, settings)),
        key=lambda a: (np.inf if np.isnan(a.l_ft) else a.l_ft, -a.steps),
    )
    if not answers:
        raise UserError(
            f"planner: every measured setting forgets more than {settings.limit:g} after the "
            "fewest steps measured; measure fewer steps, or allow more"
        )
    best = answers[0]
    used = next(f for f in fitted if f.lr == best.lr)
    files.write_text(work / "points.csv", used.table.to_csv(index=False))
    left_out = _unseen(used, target, settings)
    summary = Summary(
        ask=settings.ask,
        answer=best,
        others=tuple(answers[1:]),
        law=used.law.law,
        formula=used.law.definition.formula,
        target=target,
        limit=settings.limit or None,
        baseline=settings.baseline,
        level=settings.level,
        laws={n: Candidate(f.r2, f.bic, f.heldout_error) for n, f in used.fits.items()},
        not_fitted=used.refused,
        nulls={n: e for n, e in used.law.heldout.items() if n in scaling.NULLS},
        tried=_tried(used, target) | _over(left_out),
        unseen=left_out,
        valid=dict(used.law.valid),
        curve=_curve(used.law, best, settings.baseline),
        warnings=used.law.warnings,
        points=len(table),
        seconds=work.seconds(),
    )
    return Ended(summary, _line(summary))


def _rows(table: pd.DataFrame, settings: Plan) -> pd.DataFrame:
    """The rows that are asked about; no two kinds of run among them."""
    for condition in settings.where:
        name, _, value = (x.strip() for x in condition.partition("="))
        if name not in table:
            raise UserError(
                f"config.where: there is no column {name!r}{nearest(name, list(table))}; the "
                f"table has {', '.join(map(str, table))}"
            )
        keep = table[name].astype(str) == value
        if pd.api.types.is_numeric_dtype(table[name]) and _is_number(value):
            keep = table[name] == float(value)
        if not keep.any():
            known = ", ".join(map(str, table[name].unique()[:8]))
            raise UserError(f"config.where: no row has {name} {value!r}; there are {known}")
        table = table[keep]
    for name in APART:
        if name in table and table[name].nunique() > 1:
            known = ", ".join(map(str, table[name].unique()[:8]))
            raise UserError(
                f"the table has several values of {name} ({known}), which one law does not "
                f"describe: choose one by where={name}=VALUE"
            )
    return table.reset_index(drop=True)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _per_rank(table: pd.DataFrame) -> float:
    if not {"rank", "P"} <= set(table):
        raise UserError("the table has no columns rank and P to turn a rank into P: give P")
    try:
        ratio = table["P"].astype(float) / table["rank"].astype(float)
    except ValueError as e:
        raise UserError(f"points: columns P and rank must hold numbers ({e})") from e
    return float(ratio.median())


def _parts(table: pd.DataFrame, settings: Plan) -> list[tuple[float | None, pd.DataFrame]]:
    """The rows of each learning rate that is asked about."""
    if "lr" not in table:
        if settings.lr:
            raise UserError("the table has no column lr: leave lr out")
        return [(None, table)]
    rates = sorted(table["lr"].unique().tolist())
    known = ", ".join(f"{lr:g}" if isinstance(lr, float | int) else str(lr) for lr in rates)
    if settings.lr:
        close = [lr for lr in rates if np.isclose(lr, settings.lr, rtol=1e-6)]
        if not close:
            raise UserError(
                f"planner: lr {settings.lr:g} was not measured; there are {known}: measure there"
            )
        rates = close
    elif len(rates) > 1 and settings.ask != "settings":
        raise UserError(f"the table has several learning rates ({known}): give lr")
    return [(float(lr), table[table["lr"] == lr].reset_index(drop=True)) for lr in rates]


def _fitted(lr: float | None, rows: pd.DataFrame, target: str, settings: Plan) -> Fitted:
    options: dict[str, Any] = {"level": settings.level}
    laws = (settings.law,) if settings.law else choose.CANDIDATES
    law, fits, refused = choose.choose(rows, laws, target=target, **options)
    if not law.ci:
        raise UserError(
            "points of one run only: no interval can be given; measure another rank or seed"
        )
    return Fitted(lr, rows, law, fits, refused, choose.learning(rows, bootstraps=0, heldout=False))


def _answers(fitted: Fitted, P: float, settings: Plan) -> Sequence[Answer]:
    law, baseline = fitted.law, settings.baseline
    if settings.ask == "settings":
        try:
            found = choose.settings(
                law, fitted.table, settings.limit, baseline=baseline, l_ft=fitted.l_ft
            )
        except UserError:
            if "P" not in fitted.table or "steps" not in law.valid:
                raise
            return []
        return [_answer(fitted, s.P, s.steps, settings, s.plan, s.within) for s in found]
    if settings.ask == "steps":
        plan = scaling.plan_steps(law, settings.limit, baseline=baseline, P=P)
        return [_answer(fitted, P, plan.steps, settings, plan)]
    for name, value in (("P", P), ("steps", float(settings.steps))):
        low, high = law.valid.get(name, (value, value))
        if not low <= value <= high:
            raise UserError(
                f"planner: {name} {value:g} is outside the measured {low:g} to {high:g}; measure "
                "there"
            )
    return [_answer(fitted, P, float(settings.steps), settings)]


def _answer(
    fitted: Fitted,
    P: float,
    steps: float,
    settings: Plan,
    plan: scaling.Plan | None = None,
    within: bool = False,
) -> Answer:
    law, at = fitted.law, {"P": P, "steps": max(steps, 1.0)}
    curve, point = (law.interval(**at, kind=kind) for kind in ("curve", "point"))
    ranks = {"rank", "P"} <= set(fitted.table)
    return Answer(
        P=P,
        rank=P / _per_rank(fitted.table) if ranks else None,
        lr=fitted.lr,
        steps=steps,
        steps_low=plan.low if plan else float("nan"),
        steps_high=plan.high if plan else float("nan"),
        forgetting=float(law.predict(**at)) - settings.baseline,
        forgetting_low=float(curve[0]) - settings.baseline,
        forgetting_high=float(curve[1]) - settings.baseline,
        run_low=float(point[0]) - settings.baseline,
        run_high=float(point[1]) - settings.baseline,
        l_ft=float(fitted.l_ft.predict(**at)) if fitted.l_ft else float("nan"),
        budget_left=within,
    )


def _tried(fitted: Fitted, target: str) -> dict[str, Tried]:
    """How the law predicts what it has not seen: whole ranks, and the last steps."""
    found = {}
    for split in ("rank", "late"):
        try:
            h = scaling.holdout(
                fitted.law.definition,
                fitted.table.to_dict("series"),
                split,
                target=target,
                **QUICK,
                level=fitted.law.level,
            )
        except UserError:
            continue
        found[split] = Tried(h.signed, h.error, h.coverage, h.points)
    return found


def _unseen(fitted: Fitted, target: str, settings: Plan) -> dict[str, UnseenRun]:
    """What would have been said of each run by the law of all others."""
    try:
        found = scaling.unseen(
            fitted.law.definition,
            fitted.table.to_dict("series"),
            target=target,
            baseline=settings.baseline,
            level=fitted.law.level,
            **QUICK,
        )
    except UserError:  # runs that are not told apart, or too few
        return {}
    plain = [dataclasses.asdict(u) for u in found]
    return {u.pop("run"): UnseenRun(**u) for u in plain}


def _over(left_out: Mapping[str, UnseenRun]) -> dict[str, Tried]:
    """All runs that were left out in turn, as one figure over their points."""
    if not left_out:
        return {}
    every = left_out.values()
    points = sum(u.points for u in every)
    signed, error, coverage = (
        sum(getattr(u, name) * u.points for u in every) / points
        for name in ("signed", "error", "coverage")
    )
    return {"run": Tried(signed, error, coverage, points)}


def _curve(law: scaling.Fit, answer: Answer, baseline: float) -> Curve:
    low, high = law.valid.get("steps", (1.0, 1.0))
    steps = np.geomspace(low, high, _CURVE)
    at: Any = {"P": np.full(_CURVE, answer.P), "steps": steps}
    bounds = law.interval(**at)
    values: Mapping[str, Any] = {
        "steps": steps,
        "forgetting": law.predict(**at) - baseline,
        "low": bounds[0] - baseline,
        "high": bounds[1] - baseline,
    }
    return Curve(**{name: tuple(np.asarray(v).tolist()) for name, v in values.items()})


def _line(summary: Summary) -> str:
    a = summary.answer
    size = f"rank {a.rank:g}" if a.rank is not None else f"P {a.P:g}"
    at = size if a.lr is None else f"{size}, learning rate {a.lr:g}"
    if summary.ask == "forgetting":
        return (
            f"{at}, {a.steps:g} steps: {summary.target} {a.forgetting:.4g} nats "
            f"({a.run_low:.4g} to {a.run_high:.4g} for one run)"
        )
    if a.budget_left:
        return f"{at}: all {a.steps:g} steps measured keep the limit (forgets {a.forgetting:.4g})"
    return f"{at}: {a.steps:g} steps ({a.steps_low:.4g} to {a.steps_high:.4g}) keep the limit"
