"""The right solver for a law, closed forms where there are any, and choosing among its lanes."""

from dataclasses import replace
from typing import Any

import numpy as np

from forget_jax.scaling.laws import Law
from forget_jax.scaling.options import FitOptions
from forget_jax.scaling.points import Points
from forget_jax.scaling.solve import Solution, coefficients, solve, terms_SxNxJ


def solve_law(
    law: Law, data: Points, z_SxZ: np.ndarray, weight_SxN: np.ndarray, options: FitOptions
) -> Solution:
    """All lanes of one law on one table.

    Args:
      law: what is fitted.
      data: its table.
      z_SxZ: starts, in search coordinates.
      weight_SxN: what multiplies the residuals of each lane, or of all (N).
      options: the loss, `delta` and `noise_ratio`.
    """
    shape = (len(z_SxZ), len(data.y_N))
    weight_SxN = np.broadcast_to(weight_SxN, shape)
    y_SxN = np.broadcast_to(data.y_N, shape)
    if law.name == "deming":
        return _deming(weight_SxN, y_SxN, data.cols["l_ft"], options.noise_ratio)
    if options.loss == "mse" and not law.shape:
        coef_SxJ = coefficients(law, z_SxZ, data.cols, weight_SxN, y_SxN)
        fitted_SxN = np.einsum("snj,sj->sn", terms_SxNxJ(law, z_SxZ, data.cols), coef_SxJ)
        total_S = (((y_SxN - fitted_SxN) * weight_SxN) ** 2).sum(axis=1)
        return Solution(z_SxZ, z_SxZ, coef_SxJ, total_S, np.isfinite(total_S))
    return solve(law, data, z_SxZ, weight_SxN, options.loss, options.delta)


def _deming(weight_SxN: np.ndarray, y_SxN: np.ndarray, x_N: np.ndarray, ratio: float) -> Solution:
    """Closed-form line with errors in both variables; `ratio` is var(error in y)/var(error in x).

    Source: Deming 1943; ratio 1 is orthogonal regression.
    """
    w = weight_SxN**2
    w = w / w.sum(axis=1, keepdims=True)
    x_mean, y_mean = (w * x_N).sum(axis=1), (w * y_SxN).sum(axis=1)
    dx, dy = x_N - x_mean[:, None], y_SxN - y_mean[:, None]
    xx, yy, xy = (w * dx**2).sum(axis=1), (w * dy**2).sum(axis=1), (w * dx * dy).sum(axis=1)
    gap = yy - ratio * xx
    # The larger root's stable form; without covariance the line is level.
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (gap + np.sqrt(gap**2 + 4 * ratio * xy**2)) / (2 * xy)
    slope = np.where(xy == 0, 0.0, slope)
    coef = np.stack([y_mean - slope * x_mean, -slope], axis=1)
    residual = (dy - slope[:, None] * dx) * weight_SxN
    empty = np.zeros((len(w), 0))
    return Solution(empty, empty, coef, (residual**2).sum(axis=1), np.isfinite(coef).all(axis=1))


def take(lanes: Solution, rows: Any) -> Solution:
    """The lanes that `rows` (numbers, a slice or a mask) names."""
    return replace(lanes, **{name: array[rows] for name, array in vars(lanes).items()})


def best_of(lanes: Solution, groups: int) -> Solution:
    """The best lane of each of `groups` equal blocks."""
    loss = lanes.loss_S.reshape(groups, -1)
    rows = np.arange(groups) * loss.shape[1] + loss.argmin(axis=1)
    return take(lanes, rows)


def distinct(lanes: Solution, most: int) -> np.ndarray:
    """Numbers of the first lanes (at most `most`) whose answers differ from one another."""
    kept: list[int] = []
    for s, z in enumerate(lanes.z_SxZ):
        if not np.isfinite(lanes.loss_S[s]) or len(kept) == most:
            break
        if all(np.abs(z - lanes.z_SxZ[other]).max(initial=0.0) > 0.1 for other in kept):
            kept.append(s)
    return np.asarray(kept or [0])


def root_weight(data: Points, loss: str) -> np.ndarray:
    """Factor of each residual (N): loss "mse" is then the share of variance, between 0 and 1."""
    scale_N = data.scale_N if loss == "mse" else np.ones_like(data.scale_N)
    return 1.0 / (scale_N * np.sqrt(len(scale_N)))
