"""Gaussian factor model of rows: a new row is the conditional mean given its known entries.

row = mean + offset · 1 + factors · loadings + noise. Loadings and the noise of each column are
estimated from the train rows (probabilistic PCA, Tipping and Bishop 1999, with column-wise noise);
the offset has a broad prior, since a new task may forget more or less than all train tasks. It
gives predictive variances in closed form.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.associations.completion import additive, small
from forget_jax.associations.completion.settings import settings

Array = jax.Array
FILL_STEPS = 20
START = additive.Settings(1.0, 1.0)


@settings
class Settings:
    """The model's settings.

    Attributes:
      rank: number of factors; M must be at least rank + 2.
      offset: prior standard deviation of a row's offset, in standard deviations of the matrix.
      pooled: how many rows' worth of the average noise is added to each column's own.
    """

    rank: int = 1
    offset: Array | float = 4.0
    pooled: Array | float = 100.0


class Prepared(NamedTuple):
    mean_N: Array
    loadings_kxN: Array  # each with prior variance 1: the offset, then the factors
    noise_N: Array  # variance of what the factors leave


class Decomposition(NamedTuple):
    """What rows say; the columns may be a part of those that the values are of."""

    mean_N: Array
    factors_rxN: Array  # leading directions, their squared norms the eigenvalues
    values_r: Array
    square_N: Array  # sums of squares around the mean
    total: Array  # of the sums of squares, over all columns
    n: int  # of these columns


class Models(NamedTuple):
    """Of R numbers of factors."""

    scale_Rxr: Array  # loadings are these times the factors; 0 beyond a model's own
    noise_RxN: Array  # each column's own
    average_R: Array
    freedom_R: Array  # rows' worth of evidence in a column's own noise


def decompose(z_MxN: Array, rank: int) -> Decomposition:
    """Leading directions of complete rows around their mean, from the M × M Gram matrix."""
    mean_N = z_MxN.mean(0)
    left = z_MxN - mean_N
    values, vectors = jnp.linalg.eigh(left @ left.T)
    factors_rxN = vectors[:, ::-1][:, :rank].T @ left
    square_N = (left**2).sum(0)
    n = left.shape[1]
    return Decomposition(mean_N, factors_rxN, values[::-1][:rank], square_N, square_N.sum(), n)


def models(state: Decomposition, ranks: Sequence[int], n_rows: int) -> Models:
    """Scales of the first factors, as many as each rank has, and what noise they leave."""
    rank_R = np.array(ranks)
    freedom_R = jnp.asarray(np.maximum(n_rows - 1 - rank_R, 1), state.mean_N.dtype)
    taken_RxN = jnp.cumsum(state.factors_rxN**2, 0)[rank_R - 1]
    left_RxN = jnp.maximum(state.square_N - taken_RxN, 0) / freedom_R[:, None]
    floor = 1e-5 * jnp.maximum(state.total / state.n / n_rows, 1e-20)
    left_R = (state.total - jnp.cumsum(state.values_r)[rank_R - 1]) / freedom_R
    average_R = jnp.maximum(left_R / state.n, floor)
    # Each eigenvalue carries noise of its own; what is left of it is signal.
    noise_R = state.n * average_R
    signal_Rxr = jnp.maximum(1 - noise_R[:, None] / jnp.maximum(state.values_r, 1e-20), 0)
    own_Rxr = np.arange(len(state.values_r)) < rank_R[:, None]
    scale_Rxr = jnp.where(own_Rxr, jnp.sqrt(signal_Rxr / max(n_rows - 1, 1)), 0)
    return Models(scale_Rxr, jnp.maximum(left_RxN, floor), average_R, freedom_R)


def prepare(z_MxN: Array, options: Settings) -> Prepared:
    """Mean, loadings and noise of complete rows, M ≥ rank + 2."""
    whole = decompose(z_MxN, options.rank)
    one = jax.tree.map(lambda x: x[0], models(whole, [options.rank], z_MxN.shape[0]))
    pooled = options.pooled
    noise_N = (one.freedom_R * one.noise_RxN + pooled * one.average_R) / (one.freedom_R + pooled)
    broad_1xN = jnp.full((1, z_MxN.shape[1]), options.offset * z_MxN.std())
    loadings_kxN = jnp.concatenate([broad_1xN, one.scale_Rxr[:, None] * whole.factors_rxN])
    return Prepared(whole.mean_N, loadings_kxN, noise_N)


def posterior(state: Prepared, columns_S: Array, values_S: Array) -> tuple[Array, Array]:
    """Mean (k) and covariance (k × k) of a row's factors given its known entries (NaN: none)."""
    known_S = ~jnp.isnan(values_S)
    weight_S = known_S / state.noise_N[columns_S]
    load_kxS = state.loadings_kxN[:, columns_S]
    k = load_kxS.shape[0]
    precision = jnp.eye(k, dtype=load_kxS.dtype) + (load_kxS * weight_S) @ load_kxS.T
    covariance, _ = small.inverse(precision)
    left_S = jnp.where(known_S, values_S - state.mean_N[columns_S], 0)
    return covariance @ (load_kxS @ (weight_S * left_S)), covariance


def spread(state: Prepared, covariance_kxk: Array) -> Array:
    """Variance of each entry (N) from that of the factors, without the noise."""
    return ((covariance_kxk @ state.loadings_kxN) * state.loadings_kxN).sum(0)


def predict(state: Prepared, columns_S: Array, values_S: Array) -> tuple[Array, Array]:
    """Mean and variance of every entry of a row (N each), its noise included."""
    mean_k, covariance = posterior(state, columns_S, values_S)
    return state.mean_N + mean_k @ state.loadings_kxN, spread(state, covariance) + state.noise_N


def extend(
    state: Prepared, columns_S: Array, values_S: Array, key: Array, options: Settings
) -> Array:
    """The new row's conditional mean; the train rows are not refitted."""
    return state.mean_N + posterior(state, columns_S, values_S)[0] @ state.loadings_kxN


def fill(z_MxN: Array, known_MxN: Array, key: Array, options: Settings) -> Array:
    """Any missing entries, by `alternate`."""
    return alternate(
        z_MxN,
        known_MxN,
        lambda z: prepare(z, options),
        lambda state, columns, values: extend(state, columns, values, key, options),
    )


def alternate(
    z_MxN: Array,
    known_MxN: Array,
    prepare: Callable[[Array], Any],
    extend: Callable[[Any, Array, Array], Array],
) -> Array:
    """Alternates estimating a model from the filled matrix and filling each row from its own."""
    fit = additive.effects(z_MxN, known_MxN, START)
    start = fit.mean + fit.row_M[:, None] + fit.column_N
    columns_N = jnp.arange(z_MxN.shape[1])
    values_MxN = jnp.where(known_MxN, z_MxN, jnp.nan)

    def step(_: int, guess_MxN: Array) -> Array:
        state = prepare(jnp.where(known_MxN, z_MxN, guess_MxN))
        return jax.vmap(lambda values_N: extend(state, columns_N, values_N))(values_MxN)

    return jax.lax.fori_loop(0, FILL_STEPS, step, start)
