"""Nuclear-norm completion of what an additive model leaves (soft-impute, Mazumder et al. 2010).

Unknown residuals are replaced by those of the matrix whose singular values are lowered by a
threshold, again and again. Singular vectors come from the M × M Gram matrix.
"""

import jax
import jax.numpy as jnp

from forget_jax.associations.completion import additive, linear
from forget_jax.associations.completion.settings import settings

Array = jax.Array
BASE = additive.Settings(1.0, 1.0)  # of the additive model whose residuals are completed


@settings
class Settings:
    """The threshold, relative to the largest singular value of the known residuals, and steps."""

    threshold: Array | float = 0.1
    steps: int = 100


def _shrinker(gram_MxM: Array, threshold: Array) -> Array:
    """M × M map whose product with a matrix of this Gram has its singular values lowered."""
    values, vectors = jnp.linalg.eigh(gram_MxM)
    size = jnp.sqrt(jnp.maximum(values, 1e-30))
    return (vectors * jnp.maximum(1 - threshold / size, 0)) @ vectors.T


def _largest(gram_MxM: Array) -> Array:
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram_MxM)[-1], 0))


def fill(z_MxN: Array, known_MxN: Array, key: Array, options: Settings) -> Array:
    """Additive estimates plus completed residuals, any entries missing."""
    fit = additive.effects(z_MxN, known_MxN, BASE)
    base = fit.mean + fit.row_M[:, None] + fit.column_N
    left = jnp.where(known_MxN, z_MxN - base, 0)
    absolute = options.threshold * _largest(left @ left.T)

    def step(_: int, guess: Array) -> Array:
        filled = jnp.where(known_MxN, left, guess)
        return _shrinker(filled @ filled.T, absolute) @ filled

    return base + jax.lax.fori_loop(0, options.steps, step, jnp.zeros_like(left))


def prepare(z_MxN: Array, options: Settings) -> Array:
    """The complete train rows as they are."""
    return z_MxN


def extend(z_MxN: Array, columns_S: Array, values_S: Array, key: Array, options: Settings) -> Array:
    """Appends the row; only its own entries change from step to step, O(M · N) each."""
    n = z_MxN.shape[1]
    base = additive.joint(z_MxN.sum(1), n, z_MxN[:, columns_S], values_S, BASE)
    column_N = linear.row(base.column, z_MxN, columns_S)
    left_MxN = z_MxN - base.mean - base.row_M[:, None] - column_N
    base_N = base.mean + base.new + column_N
    known_N = jnp.zeros(base_N.shape, bool).at[columns_S].max(~jnp.isnan(values_S))
    left_N = jnp.zeros_like(base_N).at[columns_S].add(jnp.nan_to_num(values_S - base_N[columns_S]))
    gram = left_MxN @ left_MxN.T
    absolute = options.threshold * _largest(gram)

    def step(_: int, guess_N: Array) -> Array:
        filled_N = jnp.where(known_N, left_N, guess_N)
        cross_M = left_MxN @ filled_N
        whole = jnp.block([[gram, cross_M[:, None]], [cross_M[None], filled_N @ filled_N]])
        mix = _shrinker(whole, absolute)[-1]
        return mix[:-1] @ left_MxN + mix[-1] * filled_N

    return base_N + jax.lax.fori_loop(0, options.steps, step, jnp.zeros_like(base_N))
