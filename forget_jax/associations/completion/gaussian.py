"""Gaussian factor model of rows: a new row is the conditional mean given its known entries.

row = mean + offset · 1 + scale · mean + factors · loadings + noise, where loadings and the noise of
each column are estimated from the train rows (probabilistic PCA with column-wise noise, Tipping and
Bishop 1999), and offset and scale have broad priors, since a new task may lie outside the train
tasks' span. It gives predictive variances.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from forget_jax.associations.completion import additive

Array = jax.Array
FILL_STEPS = 20


class Prepared(NamedTuple):
    mean_N: Array
    loadings_kxN: Array  # each with prior variance 1: factors, then offset and scale
    noise_N: Array  # variance of what the factors leave


def prepare(z_MxN: Array, *, rank: int, offset: Array, scale: Array, pooled: Array) -> Prepared:
    """Mean, loadings and noise of complete rows.

    Args:
      z_MxN: complete rows, M > rank.
      rank: number of factors.
      offset: prior standard deviation of the row's offset, in standard deviations of the matrix.
      scale: prior standard deviation of the row's multiple of the mean row.
      pooled: how many rows' worth of the average noise is added to each column's own.
    """
    m, n = z_MxN.shape
    mean_N = z_MxN.mean(0)
    left = z_MxN - mean_N
    values, vectors = jnp.linalg.eigh(left @ left.T)
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    factors_rxN = vectors.T @ left  # squared norm = eigenvalue
    noise_N = jnp.maximum((left**2).sum(0) - (factors_rxN**2).sum(0), 0)
    freedom = jnp.maximum(m - 1 - rank, 1)
    noise = noise_N.sum() / (n * freedom)
    noise_N = (noise_N + pooled * noise) / (freedom + pooled)
    noise_N = jnp.maximum(noise_N, 1e-6 * jnp.maximum(z_MxN.var(), 1e-20))
    # Each eigenvalue carries noise of its own; what is left of it is signal.
    signal = jnp.maximum(1 - n * noise / jnp.maximum(values, 1e-20), 0)
    loadings = factors_rxN * jnp.sqrt(signal / (m - 1))[:, None]
    broad = jnp.stack([jnp.full(n, offset * z_MxN.std()), scale * mean_N])
    return Prepared(mean_N, jnp.concatenate([loadings, broad]), noise_N)


def posterior(state: Prepared, columns_S: Array, values_S: Array) -> tuple[Array, Array]:
    """Mean (k) and covariance (k × k) of a row's factors given its known entries (NaN: none)."""
    known_S = ~jnp.isnan(values_S)
    weight_S = known_S / state.noise_N[columns_S]
    load_kxS = state.loadings_kxN[:, columns_S]
    k = load_kxS.shape[0]
    precision = jnp.eye(k, dtype=load_kxS.dtype) + (load_kxS * weight_S) @ load_kxS.T
    covariance = jnp.linalg.inv(precision)
    left_S = jnp.where(known_S, values_S - state.mean_N[columns_S], 0)
    return covariance @ (load_kxS @ (weight_S * left_S)), covariance


def predict(state: Prepared, columns_S: Array, values_S: Array) -> tuple[Array, Array]:
    """Mean and variance of every entry of a row (N each), its noise included."""
    mean_k, covariance = posterior(state, columns_S, values_S)
    spread_N = jnp.einsum("an,ab,bn->n", state.loadings_kxN, covariance, state.loadings_kxN)
    return state.mean_N + mean_k @ state.loadings_kxN, spread_N + state.noise_N


def extend(
    state: Prepared,
    columns_S: Array,
    values_S: Array,
    key: Array,
    *,
    rank: int,
    offset: Array,
    scale: Array,
    pooled: Array,
) -> Array:
    """The new row's conditional mean; the train rows are not refitted."""
    return state.mean_N + posterior(state, columns_S, values_S)[0] @ state.loadings_kxN


def fill(
    z_TxN: Array,
    known_TxN: Array,
    key: Array,
    *,
    rank: int,
    offset: Array,
    scale: Array,
    pooled: Array,
) -> Array:
    """Alternates estimating the model from the filled matrix and filling each row from its own."""
    fit = additive.effects(z_TxN, known_TxN, 1.0, 1.0)
    start = fit.mean + fit.row_T[:, None] + fit.column_N
    columns_N = jnp.arange(z_TxN.shape[1])
    values_TxN = jnp.where(known_TxN, z_TxN, jnp.nan)

    def step(_: int, guess_TxN: Array) -> Array:
        filled = jnp.where(known_TxN, z_TxN, guess_TxN)
        state = prepare(filled, rank=rank, offset=offset, scale=scale, pooled=pooled)
        return jax.vmap(
            lambda values: (
                state.mean_N + posterior(state, columns_N, values)[0] @ state.loadings_kxN
            )
        )(values_TxN)

    return jax.lax.fori_loop(0, FILL_STEPS, step, start)
