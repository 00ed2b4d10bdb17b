"""The numerical core: many starts and many re-weightings of one law, solved together.

A lane is one least-squares problem: a start and a weight per point. All are solved in float64, a
fixed number at a time so that a law is compiled once per table size. Squared loss uses variable
projection (`squares`): the linear coefficients are eliminated exactly, so only the shape is
searched. The Huber losses search shape and coefficients, the latter as coordinates on an
orthonormal basis of the terms, from their squared-loss values, by optimistix' Levenberg-Marquardt.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix

from forget_jax.scaling.laws import LAWS, Law
from forget_jax.scaling.points import Points
from forget_jax.scaling.squares import LANES, MAX_STEPS, minimise, shape_values

LOSSES = ("mse", "huber-raw", "huber-log")
_TINY = 1e-24


@dataclass(frozen=True)
class Solution:
    """Answers by lane.

    Attributes:
      z_SxZ: search coordinates.
      shape_SxK: values of the law's shape.
      coef_SxJ: coefficients of its terms.
      loss_S: infinite where a lane ran into NaN.
      converged_S: whether its gradient is small against its loss.
    """

    z_SxZ: np.ndarray
    shape_SxK: np.ndarray
    coef_SxJ: np.ndarray
    loss_S: np.ndarray
    converged_S: np.ndarray


def draw_starts(law: Law, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` starts in search coordinates (count × Z), uniform in each start range."""
    unit = rng.uniform(size=(count, len(law.shape)))
    columns = []
    for k, s in enumerate(law.shape):
        low, high = (np.log([s.start_low, s.start_high])) if s.log else (s.start_low, s.start_high)
        values = low + (high - low) * unit[:, k]
        columns.append(coordinates(law, s.name, np.exp(values) if s.log else values))
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def coordinates(law: Law, name: str, values: np.ndarray) -> np.ndarray:
    """Search coordinates of one shape parameter's values, which lie within its bounds."""
    (s,) = (s for s in law.shape if s.name == name)
    low, high, at = (np.log(x) if s.log else x for x in (s.low, s.high, np.asarray(values)))
    share = np.clip((at - low) / (high - low), 1e-12, 1 - 1e-12)
    return np.log(share) - np.log1p(-share)


def bound_share(law: Law, shape_K: np.ndarray) -> np.ndarray:
    """Where each shape value lies between its bounds (0 low, 1 high), in its searched scale."""
    return np.array(
        [
            (np.log(v / s.low) / np.log(s.high / s.low))
            if s.log
            else (v - s.low) / (s.high - s.low)
            for s, v in zip(law.shape, shape_K, strict=True)
        ]
    )


def _orthonormal(terms: list[jax.Array], root_weight_N: jax.Array) -> list[jax.Array]:
    """Weighted terms made orthonormal (modified Gram-Schmidt); a dependent term becomes zero."""
    basis: list[jax.Array] = []
    for term in terms:
        column = term * root_weight_N
        size = jnp.sum(column**2)
        for q in basis:
            column = column - jnp.sum(q * column) * q
        rest = jnp.sum(column**2)
        basis.append(column / jnp.sqrt(rest + _TINY * size + 1e-300))
    return basis


def _basis(law: Law, z: jax.Array, cols: Any) -> list[jax.Array]:
    terms = law.terms(shape_values(law, z), cols)
    return _orthonormal(terms, jnp.full_like(terms[0], 1.0 / np.sqrt(terms[0].size)))


def _huber_prediction(law: Law, z: jax.Array, cols: Any) -> jax.Array:
    """Prediction from z = (shape, coordinates on the unweighted orthonormal basis of the terms)."""
    k = len(law.shape)
    basis = _basis(law, z[:k], cols)
    return sum((z[k + j] * q for j, q in enumerate(basis)), start=0.0) * np.sqrt(basis[0].size)


def _huber_residual(
    law: Law, z: jax.Array, cols: Any, weight_N: Any, y_N: Any, delta: Any, loss: str
) -> jax.Array:
    """Residuals whose squares are twice the Huber loss, in units of delta."""
    pred_N = _huber_prediction(law, z, cols)
    if loss == "huber-log":
        floor = 1e-6 * jnp.min(y_N)
        r_N = jnp.log(jnp.maximum(pred_N, floor)) - jnp.log(y_N)
    else:
        r_N = pred_N - y_N
    r_N = r_N / delta
    size_N = jnp.abs(r_N)
    far_N = jnp.sqrt(2.0 * jnp.maximum(size_N, 1.0) - 1.0) * jnp.sign(r_N)
    return weight_N * jnp.where(size_N <= 1.0, r_N, far_N)


@partial(jax.jit, static_argnames=("law", "loss"))
def _solve_lanes(
    law: Law, loss: str, z_SxZ: Any, weight_SxN: Any, y_N: Any, cols: Any, delta: Any
) -> Any:
    solver: Any = optimistix.LevenbergMarquardt(rtol=1e-8, atol=1e-8)

    def lane(z: Any, weight_N: Any) -> Any:
        def residual(z: Any, _: Any = None) -> jax.Array:
            return _huber_residual(law, z, cols, weight_N, y_N, delta, loss)

        # The coefficients start at their least-squares values.
        basis = _basis(law, z, cols)
        z = jnp.append(z, jnp.stack([jnp.mean(q * y_N) for q in basis]) * np.sqrt(y_N.size))
        z = optimistix.least_squares(residual, solver, z, max_steps=MAX_STEPS, throw=False).value
        r_N, pull = jax.vjp(residual, z)
        slope = jnp.max(jnp.abs(pull(r_N)[0]), initial=0.0)
        fitted_N = _huber_prediction(law, z, cols)
        return z[: len(law.shape)], fitted_N, jnp.sum(r_N**2), slope

    return jax.vmap(lane)(z_SxZ, weight_SxN)


def _padded(x: np.ndarray) -> np.ndarray:
    """Repeats the last row up to one of a few lengths, so that programs serve many tables."""
    if not len(x):
        return x
    length = 32 * 2 ** int(np.ceil(np.log2(max(len(x), 32) / 32)))
    if len(x) > 1024:
        length = 512 * int(np.ceil(len(x) / 512))
    return np.pad(x, [(0, length - len(x)), *[(0, 0)] * (x.ndim - 1)], mode="edge")


def solve(
    law: Law,
    data: Points,
    z_SxZ: np.ndarray,
    weight_SxN: np.ndarray,
    loss: str,
    delta: float,
    free_SxZ: np.ndarray | None = None,
) -> Solution:
    """Solve all lanes.

    A lane has converged when its gradient is small against its loss; one that ran into NaN has
    infinite loss.

    Args:
      law, data: what is fitted to which table.
      z_SxZ: starts, see `draw_starts`.
      weight_SxN: what multiplies residuals: the root of the statistical weight over the scale.
      loss, delta: as in `FitOptions`.
      free_SxZ: of squared loss: 0 where a coordinate stays at its start, else 1.
    """
    y_N, cols, points = data.y_N, data.cols, len(data.y_N)
    wide = {name: _padded(c) for name, c in cols.items()}
    if len(wide) == 1 and LAWS.get(law.name) is law:
        wide = {"column": next(iter(wide.values()))}
    # Only what the computation needs, so that laws of one form share a compiled program.
    core = Law("", "", "", (), (), law.terms, law.shape)
    y = _padded(y_N)
    weight = np.pad(weight_SxN, ((0, 0), (0, len(y) - points)))
    if loss == "mse":
        free_SxZ = np.ones_like(z_SxZ) if free_SxZ is None else free_SxZ
        z, total, slope = minimise(core, z_SxZ, free_SxZ, weight, y, wide)
        fitted, weight_fitted = np.broadcast_to(y_N, weight_SxN.shape), weight_SxN
    else:
        z, fitted, total, slope = _huber(core, loss, z_SxZ, weight, y, wide, delta)
        fitted, weight_fitted = fitted[:, :points], np.ones_like(weight_SxN)
    shape = np.zeros_like(z)
    if law.shape:
        with jax.enable_x64(True):
            by_name = jax.vmap(partial(shape_values, law))(jnp.asarray(_padded(z)))
        shape = np.stack([np.asarray(by_name[s.name])[: len(z)] for s in law.shape], axis=1)
    coef = coefficients(law, shape, cols, weight_fitted, fitted)
    bad = ~np.isfinite(total) | ~np.isfinite(coef).all(axis=1)
    return Solution(
        z_SxZ=z,
        shape_SxK=shape,
        coef_SxJ=coef,
        loss_S=np.where(bad, np.inf, total),
        converged_S=~bad & (slope <= 1e-6 * (1.0 + total)),
    )


def _huber(
    law: Law,
    loss: str,
    z_SxZ: np.ndarray,
    weight_SxN: np.ndarray,
    y_N: np.ndarray,
    cols: dict[str, np.ndarray],
    delta: float,
) -> Any:
    count, parts = len(z_SxZ), []
    with jax.enable_x64(True):
        for first in range(0, count, LANES):
            rows = np.minimum(np.arange(first, first + LANES), count - 1)
            out = _solve_lanes(law, loss, z_SxZ[rows], weight_SxN[rows], y_N, cols, delta)
            parts.append([np.asarray(a)[: count - first] for a in out])
    return (np.concatenate(a) for a in zip(*parts, strict=True))


def terms_SxNxJ(law: Law, shape_SxK: np.ndarray, cols: dict[str, np.ndarray]) -> np.ndarray:
    """The law's terms for each lane's shape at each point, float64."""
    lanes, points = len(shape_SxK), len(next(iter(cols.values())))
    shape_LxK = _padded(shape_SxK)
    wide = {name: _padded(c) for name, c in cols.items()}
    shape = {s.name: shape_LxK[:, k, None] for k, s in enumerate(law.shape)}
    with jax.enable_x64(True):
        terms = [np.asarray(t) for t in law.terms(shape, wide)]
    full = (len(shape_LxK), len(next(iter(wide.values()))))
    return np.stack([np.broadcast_to(t, full) for t in terms], axis=-1)[:lanes, :points]


def coefficients(
    law: Law,
    shape_SxK: np.ndarray,
    cols: dict[str, np.ndarray],
    weight_SxN: np.ndarray,
    y_SxN: np.ndarray,
) -> np.ndarray:
    """Weighted least-squares coefficients (S × J) of the law's terms at fixed shapes."""
    design = terms_SxNxJ(law, shape_SxK, cols) * weight_SxN[..., None]
    with np.errstate(over="ignore", invalid="ignore"):  # a law may be infinite here: it has lost
        size = np.sqrt((design**2).sum(axis=1, keepdims=True)) + 1e-300
        q, r = np.linalg.qr(np.nan_to_num(design / size))
    right = np.einsum("snj,sn->sj", q, y_SxN * weight_SxN)
    return np.einsum("sij,sj->si", np.linalg.pinv(r, rcond=1e-13), right) / size[:, 0]
