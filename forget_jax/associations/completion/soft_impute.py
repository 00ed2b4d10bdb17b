"""Nuclear-norm completion of what an additive model leaves (soft-impute, Mazumder et al. 2010).

Unknown residuals are replaced by those of the matrix whose singular values are lowered by a
threshold, again and again. Singular vectors come from the T × T Gram matrix.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from forget_jax.associations.completion import additive

Array = jax.Array


def _shrinker(gram_TxT: Array, threshold: Array) -> Array:
    """T × T map whose product with a matrix of this Gram has its singular values lowered."""
    values, vectors = jnp.linalg.eigh(gram_TxT)
    size = jnp.sqrt(jnp.maximum(values, 1e-30))
    return (vectors * jnp.maximum(1 - threshold / size, 0)) @ vectors.T


def _largest(gram_TxT: Array) -> Array:
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram_TxT)[-1], 0))


def fill(z_TxN: Array, known_TxN: Array, key: Array, *, threshold: Array, steps: int) -> Array:
    """`threshold` is relative to the largest singular value of the known residuals."""
    fit = additive.effects(z_TxN, known_TxN, 1.0, 1.0)
    base = fit.mean + fit.row_T[:, None] + fit.column_N
    left = jnp.where(known_TxN, z_TxN - base, 0)
    absolute = threshold * _largest(left @ left.T)

    def step(_: int, guess: Array) -> Array:
        filled = jnp.where(known_TxN, left, guess)
        return _shrinker(filled @ filled.T, absolute) @ filled

    return base + jax.lax.fori_loop(0, steps, step, jnp.zeros_like(left))


class Prepared(NamedTuple):
    z_MxN: Array
    gram_MxM: Array
    sums: Any


def prepare(z_MxN: Array, *, threshold: Array, steps: int) -> Prepared:
    """The complete train rows, their Gram matrix and sums."""
    return Prepared(
        z_MxN, z_MxN @ z_MxN.T, additive.prepare(z_MxN, shrink_rows=1.0, shrink_columns=1.0)
    )


def extend(
    state: Prepared,
    columns_S: Array,
    values_S: Array,
    key: Array,
    *,
    threshold: Array,
    steps: int,
) -> Array:
    """Appends the row; only its own entries change from step to step, O(M · N) each."""
    base, new = additive.extended(
        state.sums, columns_S, values_S, shrink_rows=1.0, shrink_columns=1.0
    )
    left_MxN = state.z_MxN - base.mean - base.row_T[:, None] - base.column_N
    base_N = base.mean + new + base.column_N
    known_N = jnp.zeros(base_N.shape, bool).at[columns_S].max(~jnp.isnan(values_S))
    left_N = jnp.zeros_like(base_N).at[columns_S].add(jnp.nan_to_num(values_S - base_N[columns_S]))
    gram = left_MxN @ left_MxN.T
    absolute = threshold * _largest(gram)

    def step(_: int, guess_N: Array) -> Array:
        filled_N = jnp.where(known_N, left_N, guess_N)
        cross_M = left_MxN @ filled_N
        whole = jnp.block([[gram, cross_M[:, None]], [cross_M[None], filled_N @ filled_N]])
        mix = _shrinker(whole, absolute)[-1]
        return mix[:-1] @ left_MxN + mix[-1] * filled_N

    return base_N + jax.lax.fori_loop(0, steps, step, jnp.zeros_like(base_N))
