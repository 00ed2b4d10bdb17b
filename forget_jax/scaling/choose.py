"""Which law to plan by, and which setting keeps forgetting within a budget."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from forget_jax.errors import UserError
from forget_jax.scaling.fit import compare, fit
from forget_jax.scaling.fitted import Fit
from forget_jax.scaling.laws import Law
from forget_jax.scaling.planner import Plan, plan_steps
from forget_jax.scaling.points import columns_of

CANDIDATES = ("kl_origin", "multiplicative", "additive", "power_N")


def choose(
    points: Any, laws: Iterable[str | Law] = CANDIDATES, *, target: str, **options: Any
) -> tuple[Fit, dict[str, Fit], dict[str, str]]:
    """The law with the least held-out error among those that a table serves.

    Args:
      points, target, **options: as for `fit`.
      laws: the candidates; where the table can leave nothing out, the one of lowest BIC.

    Returns:
      The chosen fit, all fits, and the reasons of laws that could not be fitted.

    Raises:
      UserError: no law could be fitted.
    """
    fits, refused = compare(points, laws, target=target, **options)
    if not fits:
        raise UserError(f"no law could be fitted; {next(iter(refused.values()))}")

    def rank(f: Fit) -> tuple[float, float]:
        return (np.inf if f.heldout_error is None else f.heldout_error, f.bic)

    return min(fits.values(), key=rank), fits, refused


@dataclass(frozen=True)
class Setting:
    """What one size allows within the budget.

    Attributes:
      P: trained parameters.
      plan: the most steps, and their interval.
      steps: the steps that are advised: those of the plan, or the most measured where the budget
        is not used up by then.
      forgetting: predicted there, less the baseline; nats.
      l_ft: the fine-tuning loss predicted there, nats; NaN where the table has none.
      within: whether the budget is still kept at the most steps measured.
    """

    P: float
    plan: Plan | None
    steps: float
    forgetting: float
    l_ft: float
    within: bool


def settings(
    forgetting: Fit, points: Any, limit: float, *, baseline: float = 0.0, l_ft: Fit | None = None
) -> list[Setting]:
    """For every measured size, the most training within the budget; the lowest loss first.

    Sizes that exceed the budget at the fewest steps measured are left out.

    Args:
      forgetting: a law of P and steps.
      points: the table, for its sizes.
      limit, baseline: as for `plan_steps`.
      l_ft: a law of the fine-tuning loss over P and steps.

    Raises:
      UserError: every size exceeds the budget.
    """
    least, most = forgetting.valid["steps"]
    found = []
    for P in np.unique(columns_of(points)["P"].astype(np.float64)):
        first, last = (float(forgetting.predict(P=P, steps=n)) - baseline for n in (least, most))
        if first > limit:
            continue
        plan = None if last <= limit else plan_steps(forgetting, limit, baseline=baseline, P=P)
        steps = most if plan is None else max(plan.steps, least)
        found.append(
            Setting(
                P=float(P),
                plan=plan,
                steps=steps,
                forgetting=float(forgetting.predict(P=P, steps=steps)) - baseline,
                l_ft=float("nan") if l_ft is None else float(l_ft.predict(P=P, steps=steps)),
                within=plan is None,
            )
        )
    if not found:
        raise UserError(
            f"planner: every measured size forgets more than {limit:g} after {least:g} steps, the "
            "fewest measured; measure fewer steps, or allow more"
        )
    return sorted(found, key=lambda s: (np.inf if np.isnan(s.l_ft) else s.l_ft, -s.steps))


def learning(points: Any, **options: Any) -> Fit | None:
    """A law of the fine-tuning loss over P and steps; None where the table does not serve one."""
    if "l_ft" not in columns_of(points):
        return None
    try:
        return fit("multiplicative", points, target="l_ft", **options)
    except UserError:
        return None
