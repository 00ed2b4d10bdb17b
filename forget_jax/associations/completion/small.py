"""Inverses of small positive definite matrices in plain array operations.

Batches of LAPACK calls inside a loop are slow on the CPU, and on few cores they were seen to wait
for each other for ever (jaxlib 0.10.2); these vectorise over any batch instead.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def _unit(a_kxk: Array) -> tuple[Array, Array]:
    """The matrix with a diagonal of ones, and what its rows and columns were divided by."""
    # So entries of very different size lose no accuracy.
    size_k = jnp.sqrt(jnp.maximum(jnp.diagonal(a_kxk), 1e-37))
    unit = a_kxk / size_k[:, None] / size_k
    # Rounding can turn a nearly singular matrix indefinite; a ridge of that size keeps it positive.
    return unit + 16 * jnp.finfo(a_kxk.dtype).eps * jnp.eye(len(size_k), dtype=a_kxk.dtype), size_k


def inverse(a_kxk: Array) -> tuple[Array, Array]:
    """Inverse and log determinant of a positive definite matrix, by Gauss and Jordan's sweeps.

    No pivoting: positive definite matrices need none.
    """
    k = a_kxk.shape[-1]

    def sweep(i: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        a, log_determinant = carry
        here_k = (jnp.arange(k) == i).astype(a.dtype)
        row_k, column_k = here_k @ a, a @ here_k
        pivot = row_k @ here_k
        scaled_k = row_k / pivot
        swept = a - jnp.outer(column_k, scaled_k)
        # The pivot's row becomes row / pivot, its column −column / pivot, itself 1 / pivot.
        swept = swept * (1 - here_k)[:, None] * (1 - here_k)
        swept = swept + jnp.outer(here_k, scaled_k * (1 - here_k))
        swept = swept - jnp.outer(column_k / pivot * (1 - here_k), here_k)
        return swept + jnp.outer(here_k, here_k) / pivot, log_determinant + jnp.log(pivot)

    unit, size_k = _unit(a_kxk)
    zero = jnp.zeros((), a_kxk.dtype)
    swept, log_determinant = jax.lax.fori_loop(0, k, sweep, (unit, zero))
    return swept / size_k[:, None] / size_k, log_determinant + 2 * jnp.log(size_k).sum()


def solved(a_kxk: Array, b_k: Array) -> tuple[Array, Array]:
    """a⁻¹ b and the log determinant of a positive definite matrix, without its inverse.

    Gauss and Jordan's elimination: a quarter of the work of `inverse` where one vector is wanted.
    """
    k = b_k.shape[0]
    unit, size_k = _unit(a_kxk)
    whole = jnp.concatenate([unit, (b_k / size_k)[:, None]], 1)

    def sweep(i: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        a, log_determinant = carry
        row = jax.lax.dynamic_index_in_dim(a, i, 0, keepdims=False)
        column_k = jax.lax.dynamic_index_in_dim(a, i, 1, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(row, i, 0, keepdims=False)
        factor_k = jnp.where(jnp.arange(k) == i, 1 - 1 / pivot, column_k / pivot)
        return a - factor_k[:, None] * row, log_determinant + jnp.log(pivot)

    zero = jnp.zeros((), a_kxk.dtype)
    swept, log_determinant = jax.lax.fori_loop(0, k, sweep, (whole, zero))
    return swept[:, -1] / size_k, log_determinant + 2 * jnp.log(size_k).sum()


def solve(a_kxk: Array, b: Array) -> Array:
    """a⁻¹ b for a positive definite a; b is k or k × anything."""
    return inverse(a_kxk)[0] @ b
