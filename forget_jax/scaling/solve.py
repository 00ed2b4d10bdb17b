"""The numerical core: many starts and many re-weightings of one law, solved together.

A lane is one least-squares problem: a start, a weight per point and the values to fit. Lanes are
solved by optimistix' Levenberg-Marquardt under `vmap`, in float64, LANES at a time so that a law is
compiled once per table size. Squared loss uses variable projection (Golub & Pereyra 1973): the
linear coefficients are eliminated exactly, so only the shape is searched. The Huber losses search
shape and coefficients, the latter as coordinates on an orthonormal basis of the terms, starting
from the squared-loss answer.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix

from forget_jax.scaling.laws import Law

LANES = 128
MAX_STEPS = 100
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
        low, high, a, b = (
            np.log([s.low, s.high, s.start_low, s.start_high])
            if s.log
            else (s.low, s.high, s.start_low, s.start_high)
        )
        share = (a + (b - a) * unit[:, k] - low) / (high - low)
        columns.append(np.log(share) - np.log1p(-share))
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


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


def _shape(law: Law, z: jax.Array) -> dict[str, jax.Array]:
    """Search coordinates to shape values: a logistic between the bounds, in log where positive."""
    out = {}
    for k, s in enumerate(law.shape):
        share = jax.nn.sigmoid(z[k])
        if s.log:
            out[s.name] = s.low * (s.high / s.low) ** share
        else:
            out[s.name] = s.low + (s.high - s.low) * share
    return out


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


def _squared_residual(law: Law, z: jax.Array, cols: Any, weight_N: Any, y_N: Any) -> jax.Array:
    residual_N = y_N * weight_N
    for q in _orthonormal(law.terms(_shape(law, z), cols), weight_N):
        residual_N = residual_N - jnp.sum(q * residual_N) * q
    return residual_N


def _basis(law: Law, z: jax.Array, cols: Any) -> list[jax.Array]:
    terms = law.terms(_shape(law, z), cols)
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
    law: Law, loss: str, z_SxZ: Any, weight_SxN: Any, y_SxN: Any, cols: Any, delta: Any
) -> Any:
    solver: Any = optimistix.LevenbergMarquardt(rtol=1e-8, atol=1e-8)

    def lane(z: Any, weight_N: Any, y_N: Any) -> Any:
        def residual(z: Any, _: Any = None) -> jax.Array:
            if loss == "mse":
                return _squared_residual(law, z, cols, weight_N, y_N)
            return _huber_residual(law, z, cols, weight_N, y_N, delta, loss)

        if loss != "mse":  # start the coefficients at their least-squares values
            basis = _basis(law, z, cols)
            z = jnp.append(z, jnp.stack([jnp.mean(q * y_N) for q in basis]) * np.sqrt(y_N.size))
        if z.size:
            z = optimistix.least_squares(
                residual, solver, z, max_steps=MAX_STEPS, throw=False
            ).value
        r_N, pull = jax.vjp(residual, z)
        slope = jnp.max(jnp.abs(pull(r_N)[0]), initial=0.0)
        shape = _shape(law, z)
        shape_K = jnp.stack([shape[s.name] for s in law.shape]) if law.shape else jnp.zeros(0)
        fitted_N = y_N if loss == "mse" else _huber_prediction(law, z, cols)
        return z[: len(law.shape)], shape_K, fitted_N, jnp.sum(r_N**2), slope

    return jax.vmap(lane)(z_SxZ, weight_SxN, y_SxN)


def solve(
    law: Law,
    loss: str,
    z_SxZ: np.ndarray,
    weight_SxN: np.ndarray,
    y_SxN: np.ndarray,
    cols: dict[str, np.ndarray],
    delta: float,
) -> Solution:
    """Solve all lanes. `weight` multiplies residuals (root of the statistical weight over scale).

    `z_SxZ` holds starts (see `draw_starts`). A lane has converged when its gradient is small
    against its loss; one that ran into NaN has infinite loss.
    """
    count, points = z_SxZ.shape[0], y_SxN.shape[1]
    padded = 32 * 2 ** int(np.ceil(np.log2(max(points, 32) / 32)))
    wide = {name: np.pad(c, (0, padded - points), mode="edge") for name, c in cols.items()}
    if len(wide) == 1:
        wide = {"column": next(iter(wide.values()))}
    # Only what the computation needs, so that laws of one form share a compiled program.
    core = Law("", "", "", (), (), law.terms, law.shape)
    parts = []
    with jax.enable_x64(True):
        for first in range(0, count, LANES):
            rows = np.minimum(np.arange(first, first + LANES), count - 1)
            weight = np.pad(weight_SxN[rows], ((0, 0), (0, padded - points)))
            y = np.pad(y_SxN[rows], ((0, 0), (0, padded - points)), mode="edge")
            out = _solve_lanes(core, loss, z_SxZ[rows], weight, y, wide, delta)
            parts.append([np.asarray(a)[: count - first] for a in out])
    z, shape, fitted, total, slope = (np.concatenate(a) for a in zip(*parts, strict=True))
    weight_fitted = weight_SxN if loss == "mse" else np.ones_like(weight_SxN)
    coef = coefficients(law, shape, cols, weight_fitted, fitted[:, :points])
    bad = ~np.isfinite(total) | ~np.isfinite(coef).all(axis=1)
    return Solution(
        z_SxZ=z,
        shape_SxK=shape,
        coef_SxJ=coef,
        loss_S=np.where(bad, np.inf, total),
        converged_S=~bad & (slope <= 1e-6 * (1.0 + total)),
    )


def terms_SxNxJ(law: Law, shape_SxK: np.ndarray, cols: dict[str, np.ndarray]) -> np.ndarray:
    """The law's terms for each lane's shape at each point, float64."""
    shape = {s.name: shape_SxK[:, k, None] for k, s in enumerate(law.shape)}
    with jax.enable_x64(True):
        terms = [np.asarray(t) for t in law.terms(shape, cols)]
    full = (len(shape_SxK), *np.broadcast_shapes(*(t.shape for t in terms))[-1:])
    return np.stack([np.broadcast_to(t, full) for t in terms], axis=-1)


def coefficients(
    law: Law,
    shape_SxK: np.ndarray,
    cols: dict[str, np.ndarray],
    weight_SxN: np.ndarray,
    y_SxN: np.ndarray,
) -> np.ndarray:
    """Weighted least-squares coefficients (S × J) of the law's terms at fixed shapes."""
    design = terms_SxNxJ(law, shape_SxK, cols) * weight_SxN[..., None]
    size = np.sqrt((design**2).sum(axis=1, keepdims=True)) + 1e-300
    q, r = np.linalg.qr(np.nan_to_num(design / size))
    right = np.einsum("snj,sn->sj", q, y_SxN * weight_SxN)
    return np.einsum("sij,sj->si", np.linalg.pinv(r, rcond=1e-13), right) / size[:, 0]
