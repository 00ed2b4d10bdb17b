"""The association matrix of tasks and upstream examples, and all that is done with it.

Takes plain matrices (numpy or jax), whoever measured them; no language model is imported. Entries
are forgetting in any unit (nats a token, as `associate` measures it), NaN where not measured.

Letters of shapes, with one meaning in all of the room:

| letter | counts |
|---|---|
| M | tasks: the rows of a matrix; the train rows, where some rows are predicted from others |
| N | upstream examples: the columns of a matrix |
| T | test tasks: the rows that are predicted |
| S | columns of a new row that are observed (its probes) |
| G | seeds, each with its own observed columns |
| F | new rows of one call, each with its own observed columns: T × G of them |
| r, k | factors; parameters of a row or column: its bias or offset, and then the factors |
| R, H, Q | models of a mixture: numbers of factors, kinds of noise, scales of a new row |
| C | candidates of a nomination |
| D, K, P | dimensions of a feature; examples of a task that has features; entries of a gradient |
| L | steps of an epoch of gradient descent |
"""

from forget_jax.associations import similarity
from forget_jax.associations.completion import METHODS, complete, predict_rows
from forget_jax.associations.components import Component, clusters, leading_components
from forget_jax.associations.evaluation import evaluate, paired_difference
from forget_jax.associations.matrix import Matrix
from forget_jax.associations.means import predict_means, robust_means
from forget_jax.associations.nomination import Nomination, nominate
from forget_jax.associations.online import (
    PredictedRow,
    Predictor,
    fit_predictor,
    predict_row,
)
from forget_jax.associations.probes import (
    choose_probes,
    compare_probes,
    expected_errors,
    probes_needed,
)
from forget_jax.associations.representation import predict_from_features
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
    "Component",
    "Matrix",
    "Nomination",
    "PredictedRow",
    "Predictor",
    "additive_r2",
    "choose_probes",
    "clusters",
    "column_r2",
    "compare_probes",
    "complete",
    "evaluate",
    "expected_errors",
    "fit_predictor",
    "leading_components",
    "logistic_f1",
    "nominate",
    "paired_difference",
    "predict_from_features",
    "predict_means",
    "predict_row",
    "predict_rows",
    "probes_needed",
    "rank_r2",
    "robust_means",
    "row_r2",
    "shrunken_additive_r2",
    "similarity",
]
