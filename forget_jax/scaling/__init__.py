"""How much is forgotten as trained parameters and steps grow: laws, fits, and a planner."""

from forget_jax.scaling.fit import compare, fit
from forget_jax.scaling.fitted import Fit
from forget_jax.scaling.laws import LAWS, NULLS, Law, evaluate
from forget_jax.scaling.planner import Plan, plan_steps

__all__ = ["LAWS", "NULLS", "Fit", "Law", "Plan", "compare", "evaluate", "fit", "plan_steps"]
