"""The association matrix of tasks and upstream examples, and all that is done with it.

Takes plain matrices (numpy or jax), whoever measured them; no language model is imported.
"""

from forget_jax.associations.completion import METHODS, complete, predict_rows
from forget_jax.associations.evaluation import evaluate, paired_difference
from forget_jax.associations.statistics import (
    additive_r2,
    column_r2,
    logistic_f1,
    rank_r2,
    row_r2,
    shrunken_additive_r2,
)

__all__ = [
    "METHODS",
    "additive_r2",
    "column_r2",
    "complete",
    "evaluate",
    "logistic_f1",
    "paired_difference",
    "predict_rows",
    "rank_r2",
    "row_r2",
    "shrunken_additive_r2",
]
