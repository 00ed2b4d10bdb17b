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

from forget_jax.scaling.ancova import RankTest, rank_test
from forget_jax.scaling.fit import compare, fit, profile
from forget_jax.scaling.fitted import Fit
from forget_jax.scaling.laws import LAWS, NULLS, Law, Shape, evaluate, from_table
from forget_jax.scaling.options import FitOptions
from forget_jax.scaling.planner import Plan, plan_steps
from forget_jax.scaling.profiles import Profile
from forget_jax.scaling.splits import HeldOut, holdout, holdouts
from forget_jax.scaling.unseen import Unseen, unseen

__all__ = [
    "LAWS",
    "NULLS",
    "Fit",
    "FitOptions",
    "HeldOut",
    "Law",
    "Plan",
    "Profile",
    "RankTest",
    "Shape",
    "Unseen",
    "compare",
    "evaluate",
    "fit",
    "from_table",
    "holdout",
    "holdouts",
    "plan_steps",
    "profile",
    "rank_test",
    "unseen",
]
