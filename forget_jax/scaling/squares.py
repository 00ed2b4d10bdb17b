"""Squared loss: Levenberg-Marquardt with variable projection, many lanes on every core.

A step keeps a lane's coordinates and its K × K normal equations and nothing of the table's length,
and the lanes of a large table go one after another through a core's cache. Source: Golub & Pereyra
1973, with the Jacobian of Kaufman 1975, whose gradient is exact; damping of Marquardt 1963.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.scaling.laws import Law

LANES = 128  # in one compiled call
MAX_STEPS = 100
_AT_ONCE = 4096  # points of all lanes that a core works on together
_TINY = 1e-24
_FURTHEST = 4.0  # that a step may go, in search coordinates
_END = 30.0  # of the search coordinates: there the logistic has come to its bound


def shape_values(law: Law, z: jax.Array) -> dict[str, jax.Array]:
    """Search coordinates to shape values: a logistic between the bounds, in log where positive."""
    out = {}
    for k, s in enumerate(law.shape):
        share = jax.nn.sigmoid(z[k])
        if s.log:
            out[s.name] = s.low * (s.high / s.low) ** share
        else:
            out[s.name] = s.low + (s.high - s.low) * share
    return out


def _projected(law: Law, z: Any, cols: Any, weight_N: Any, y_N: Any) -> tuple[Any, Any, Any]:
    """Loss, half of its gradient and the Gauss-Newton matrix, the coefficients being eliminated."""
    basis: list[Any] = []
    triangle: list[list[Any]] = []  # of the terms on the basis, by term
    for term in law.terms(shape_values(law, z), cols):
        column = term * weight_N
        size, along = jnp.sum(column**2), []
        for q in basis:
            along.append(jnp.sum(q * column))
            column = column - along[-1] * q
        norm = jnp.sqrt(jnp.sum(column**2) + _TINY * size + 1e-300)
        basis.append(column / norm)
        triangle.append([*along, norm])
    r_N, share = y_N * weight_N, []
    for q in basis:
        share.append(jnp.sum(q * r_N))
        r_N = r_N - share[-1] * q
    coef: list[Any] = [0.0] * len(basis)
    for j in reversed(range(len(basis))):
        later = sum(triangle[i][j] * coef[i] for i in range(j + 1, len(basis)))
        coef[j] = (share[j] - later) / triangle[j][j]

    def fitted(z: Any) -> Any:
        terms = law.terms(shape_values(law, z), cols)
        return sum((c * t for c, t in zip(coef, terms, strict=True)), start=jnp.zeros_like(y_N))

    slopes_ZxN = jax.vmap(lambda way: jax.jvp(fitted, (z,), (way,))[1])(jnp.eye(z.size)) * weight_N
    for q in basis:
        slopes_ZxN = slopes_ZxN - jnp.sum(slopes_ZxN * q, axis=1)[:, None] * q
    normal = jnp.sum(slopes_ZxN[:, None] * slopes_ZxN[None], axis=-1)
    return jnp.sum(r_N**2), -jnp.sum(slopes_ZxN * r_N, axis=1), normal


def _lane(
    law: Law, z: Any, free_Z: Any, cols: Any, weight_N: Any, y_N: Any
) -> tuple[Any, Any, Any]:
    """Minimises one lane over its free coordinates: all of them, its loss, the largest slope."""

    def projected(z: Any) -> tuple[Any, Any, Any]:
        loss, slope, normal = _projected(law, z, cols, weight_N, y_N)
        return loss, slope * free_Z, normal * free_Z * free_Z[:, None]

    def step(at: Any) -> Any:
        z, (loss, slope, normal), damping, _, count = at
        scale = jnp.diag(normal) + 1e-12 * jnp.trace(normal) + 1e-300
        move = -jnp.linalg.solve(normal + damping * jnp.diag(scale), slope)
        move = jnp.clip(jnp.where(jnp.isfinite(move), move, 0.0), -_FURTHEST, _FURTHEST)
        move = jnp.clip(z + move, -_END, _END) - z
        found = projected(z + move)
        better = found[0] < loss
        small = (-jnp.sum(slope * move) <= 1e-12 * loss) | (jnp.max(jnp.abs(slope)) <= 1e-14)
        kept = [
            jnp.where(better, new, old)
            for new, old in zip(found, (loss, slope, normal), strict=True)
        ]
        lower, higher = jnp.maximum(damping * 0.1, 1e-9), damping * 8.0
        ended = small | (~better & (damping > 1e10))
        return (
            jnp.where(better, z + move, z),
            tuple(kept),
            jnp.where(better, lower, higher),
            ended,
            count + 1,
        )

    def goes_on(at: Any) -> Any:
        return ~at[3] & (at[4] < MAX_STEPS)

    first = projected(z)
    begin = (z, first, jnp.asarray(1e-3, z.dtype), ~jnp.isfinite(first[0]), 0)
    z, (loss, slope, _), *_ = jax.lax.while_loop(goes_on, step, begin)
    return z, loss, jnp.max(jnp.abs(slope), initial=0.0)


@partial(jax.jit, static_argnames=("law",))
def _lanes(law: Law, z_LxZ: Any, free_LxZ: Any, weight_LxN: Any, y_N: Any, cols: Any) -> Any:
    at_once = max(1, _AT_ONCE // y_N.size)
    return jax.lax.map(
        lambda x: _lane(law, x[0], x[1], cols, x[2], y_N),
        (z_LxZ, free_LxZ, weight_LxN),
        batch_size=min(at_once, LANES),
    )


def minimise(
    law: Law,
    z_SxZ: np.ndarray,
    free_SxZ: np.ndarray,
    weight_SxN: np.ndarray,
    y_N: np.ndarray,
    cols: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lanes' coordinates (S × Z), losses (S) and largest slopes (S), float64.

    Args:
      law: its `terms` and `shape`; nothing else is read.
      z_SxZ: starts.
      free_SxZ: 1 where a coordinate is searched, 0 where it stays.
      weight_SxN: what multiplies the residuals.
      y_N, cols: the table.
    """
    count = len(z_SxZ)

    def part(first: int) -> list[np.ndarray]:
        rows = np.minimum(np.arange(first, first + LANES), count - 1)
        with jax.enable_x64(True):  # of this thread
            found = _lanes(law, z_SxZ[rows], free_SxZ[rows], weight_SxN[rows], y_N, cols)
            return [np.asarray(x)[: count - first] for x in found]

    firsts = range(0, count, LANES)
    with ThreadPoolExecutor(min(len(firsts), os.cpu_count() or 1)) as pool:
        z, loss, slope = (np.concatenate(x) for x in zip(*pool.map(part, firsts), strict=True))
    return z, loss, slope
