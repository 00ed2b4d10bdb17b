"""How much is forgotten as trained parameters and steps grow: laws, fits, and a planner.

Takes tables of measured points, whoever measured them; no language model is imported. Losses are in
nats.

Letters of shapes, with one meaning in all of the room:

| letter | counts |
|---|---|
| N | points: the rows of a table |
| S | lanes, problems solved together: starts, resampled tables, or folds |
| Z, K | search coordinates and values of a law's shape (its non-linear parameters) |
| J | terms of a law, each with a coefficient |
| F | folds, the groups of points left out in turn |
| G | numbers of steps that the planner tries |

`P` and `N` in a law's formula are its columns `P` and `steps`.
"""

from forget_jax.scaling.fit import compare, fit
from forget_jax.scaling.fitted import Fit
from forget_jax.scaling.laws import LAWS, NULLS, Law, evaluate, from_table
from forget_jax.scaling.options import FitOptions
from forget_jax.scaling.planner import Plan, plan_steps

__all__ = [
    "LAWS",
    "NULLS",
    "Fit",
    "FitOptions",
    "Law",
    "Plan",
    "compare",
    "evaluate",
    "fit",
    "from_table",
    "plan_steps",
]
