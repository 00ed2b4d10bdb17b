"""Choosing a method and its settings from the train rows alone: leave one train row out.

Every train row in turn plays the new task: it is predicted from S random entries and the others.
The method with the least mean squared error wins; among its settings, the simplest whose error is
within one standard error of the best is taken (the one-standard-error rule of Breiman et al. 1984),
because a new task may be less like the train rows than they are like each other.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from forget_jax.associations import checks, evaluation
from forget_jax.errors import UserError

Candidate = tuple[str, dict[str, Any]]

# From the simplest to the richest within each method: few factors and much pooling first. The prior
# of a row's offset is no candidate: it is broad on purpose, because train rows cannot say how far
# outside their span a new task lies.
CANDIDATES: tuple[Candidate, ...] = (
    *(("scaled_mean", {"shrink": shrink}) for shrink in (10.0, 3.0, 1.0)),
    ("additive", {}),
    *(("knn", {"width": width, "neighbours": 40}) for width in (1.0, 1e-3, 1e-4)),
    *(
        ("als", {"rank": rank, "reg": reg, "reg_bias": 0.1})
        for rank in (1, 3, 5)
        for reg in (0.5, 0.15, 0.05)
    ),
    *(
        ("gaussian", {"rank": rank, "pooled": pooled})
        for rank in (1, 3, 5, 8)
        for pooled in (100.0, 10.0)
    ),
    *(("mixture", {"rank": rank}) for rank in (3, 5, 8, 12)),
)


@dataclasses.dataclass(frozen=True)
class Nomination:
    """What leave-one-train-row-out chose, and the errors it chose by.

    Attributes:
      method: name in METHODS.
      settings: of that method.
      rmse: root mean squared error of the chosen candidate over held-out train rows.
      table: one record for each candidate: method, settings, rmse, and the standard error of its
        mean squared error's excess over the best candidate's.
    """

    method: str
    settings: dict[str, Any]
    rmse: float
    table: list[dict[str, Any]]


def held_out_errors(
    train_MxN: np.ndarray, n_observed: int, seeds: Sequence[int], method: str, settings: Any
) -> np.ndarray:
    """G × M × N errors of every train row predicted from the others.

    NaN where the entry is known or missing, infinite where its prediction is not finite.

    Args:
      train_MxN: float train rows.
      n_observed: S, entries known of the row that is predicted.
      seeds: G seeds of the columns drawn.
      method, settings: as for `complete`.
    """
    columns_GxS = evaluation.observed_columns(train_MxN.shape[1], n_observed, seeds)
    errors = np.empty((len(seeds), *train_MxN.shape), np.float32)
    for i in range(train_MxN.shape[0]):
        predicted = evaluation.predict_split(
            np.delete(train_MxN, i, 0), train_MxN[i : i + 1], columns_GxS, seeds, method, settings
        )
        row_GxN = predicted[:, 0]
        errors[:, i] = np.where(np.isfinite(row_GxN), row_GxN - train_MxN[i], np.inf)
    errors[:, np.isnan(train_MxN)] = np.nan
    np.put_along_axis(errors, columns_GxS[:, None, :], np.nan, 2)
    return errors


def mean_squares(errors_GxMxN: np.ndarray) -> np.ndarray:
    """Each train row's mean squared error (K, float64); rows without any error are left out."""
    scored = ~np.isnan(errors_GxMxN)
    count_M = scored.sum((0, 2))
    squares = np.where(scored, errors_GxMxN.astype(np.float64) ** 2, 0).sum((0, 2))
    return squares[count_M > 0] / count_M[count_M > 0]


def nominate(
    train: Any,
    n_observed: int,
    seeds: int | Sequence[int] = 5,
    candidates: Sequence[Candidate] = CANDIDATES,
) -> Nomination:
    """The method and settings to use for new tasks, from train rows alone.

    Args:
      train: M × N train rows, float, in any unit, NaN where missing.
      n_observed: S, entries that will be known of a new task.
      seeds: how many draws of the S columns, or the seeds themselves.
      candidates: (method, settings), the simplest of each method first; those whose rank is above
        M − 3, or whose error is not finite, are passed over.

    Returns:
      The method and settings, for `complete` or `predict_rows`, and the errors they were chosen by.

    Raises:
      UserError: fewer than four train rows, no candidate that fits them, or as `evaluate` does.
    """
    train_MxN = checks.as_matrix(train, "the matrix of train rows")
    if train_MxN.shape[0] < 4:
        raise UserError(f"nominating a method needs at least 4 train rows, not {len(train_MxN)}")
    # Beside the evaluation's own small seeds, so that no draw is looked at twice.
    seeds = range(10_000, 10_000 + seeds) if isinstance(seeds, int) else seeds
    fitting = [c for c in candidates if c[1].get("rank", 1) <= train_MxN.shape[0] - 3]
    if not fitting:
        raise UserError(f"no candidate's rank fits {train_MxN.shape[0]} train rows")
    squares: list[np.ndarray] = []
    finite: list[Candidate] = []
    for method, settings in fitting:
        errors = held_out_errors(train_MxN, n_observed, seeds, method, settings)
        found_M = mean_squares(errors)
        if found_M.size and np.isfinite(found_M).all():
            squares.append(found_M)
            finite.append((method, settings))
    if not finite:
        raise UserError("no candidate's error on the train rows is finite")
    fitting, squares_CxM = finite, np.stack(squares)
    means_C = squares_CxM.mean(1)
    best = int(means_C.argmin())
    excess_CxM = squares_CxM - squares_CxM[best]
    rows = excess_CxM.shape[1]
    error_C = excess_CxM.std(1, ddof=min(1, rows - 1)) / np.sqrt(rows)
    chosen = next(
        c
        for c, (method, _) in enumerate(fitting)
        if method == fitting[best][0] and means_C[c] - means_C[best] <= error_C[c]
    )
    table = [
        {"method": m, "settings": s, "rmse": float(np.sqrt(mean)), "excess_error": float(e)}
        for (m, s), mean, e in zip(fitting, means_C, error_C, strict=True)
    ]
    method, settings = fitting[chosen]
    return Nomination(method, dict(settings), float(np.sqrt(means_C[chosen])), table)
