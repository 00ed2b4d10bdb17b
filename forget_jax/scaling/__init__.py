"""How much is forgotten as trained parameters and steps grow: laws, fits, and a planner."""

from forget_jax.scaling.fit import Fit, fit
from forget_jax.scaling.laws import LAWS, NULLS, Law, evaluate

__all__ = ["LAWS", "NULLS", "Fit", "Law", "evaluate", "fit"]
