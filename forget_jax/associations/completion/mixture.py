"""Mixture of Gaussian factor models: numbers of factors, kinds of noise, scales of the new row.

No single model suits every task, and a task unlike the train tasks has larger noise or factors than
they have. So models of 1 to `rank` factors, with noise from each column's own to one for all, are
averaged; and within each the scales of the new row's noise and factors are averaged by how probable
they make its known entries (the evidence, in closed form by the matrix determinant lemma). All
models share one decomposition, so their average costs one product with the columns.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.associations.completion import gaussian, small
from forget_jax.associations.completion.settings import settings

Array = jax.Array
# How many rows' worth of the average noise is added to a column's own: decades, equal weights.
POOLED = (1.0, 10.0, 100.0, 1000.0)
# Variances relative to the train rows'; every pair has the same prior weight.
NOISE_SCALES = (0.25, 1.0, 4.0, 16.0)
FACTOR_SCALES = (0.25, 1.0, 4.0)
NOISE_Q, FACTOR_Q = (scale.ravel() for scale in np.meshgrid(NOISE_SCALES, FACTOR_SCALES))
RATIO_V, RATIO_Q = np.unique(NOISE_Q / FACTOR_Q, return_inverse=True)  # V different ones
PLAIN = int(np.flatnonzero((NOISE_Q == 1) & (FACTOR_Q == 1))[0])  # the train rows' own scales


@settings
class Settings:
    """The most factors, and the offset's prior as in `gaussian.Settings`; M ≥ rank + 2 rows."""

    rank: int = 8
    offset: Array | float = 4.0


class Prepared(NamedTuple):
    mean_N: Array
    basis_kxN: Array  # the offset, then the factors
    scale_Rxk: Array  # loadings of a model are its scales times the basis
    noise_RxN: Array  # each column's own noise under 1 to R factors
    average_R: Array
    freedom_R: Array  # rows' worth of evidence in a column's own noise


def prepare(z_MxN: Array, options: Settings) -> Prepared:
    """What models of 1 to `rank` factors share, and their scales and noise; M ≥ rank + 2 rows."""
    state = gaussian.decompose(z_MxN, options.rank)
    return prepared(state, options.offset * z_MxN.std(), z_MxN.shape[0])


def prepared(state: gaussian.Decomposition, offset: Array, n_rows: int) -> Prepared:
    """The same from a decomposition of `n_rows` rows, for the columns that it has."""
    rank = len(state.values_r)
    found = gaussian.models(state, range(1, rank + 1), n_rows)
    return Prepared(
        state.mean_N,
        jnp.concatenate([jnp.ones_like(state.mean_N)[None], state.factors_rxN]),
        jnp.concatenate([jnp.full((rank, 1), offset), found.scale_Rxr], 1),
        found.noise_RxN,
        found.average_R,
        found.freedom_R,
    )


def _pooled_noise(own: Array, average: Array, freedom: Array, pooled: Array) -> Array:
    return (freedom * own + pooled * average) / (freedom + pooled)


class Posterior(NamedTuple):
    """Of one model, or of all of them along leading axes R (numbers of factors) × H (poolings)."""

    mean_k: Array  # factors on the basis, over the scales of the new row
    covariance_kxk: Array
    scale: Array  # mean noise scale
    plain_k: Array  # factors under the train rows' own scales
    log_scale: Array  # mean of the noise scale's logarithm
    evidence: Array  # logarithm; comparable between models


def _scaled(load_kxS: Array, noise_S: Array, left_S: Array, known_S: Array) -> Posterior:
    """What one model says of a new row, over its scales."""
    weight_S = known_S / noise_S
    gram_kxk = (load_kxS * weight_S) @ load_kxS.T
    right_k = load_kxS @ (weight_S * left_S)
    square, count = (weight_S * left_S**2).sum(), known_S.sum()
    identity = jnp.eye(gram_kxk.shape[0], dtype=gram_kxk.dtype)

    def one(ratio: Array) -> tuple[Array, Array, Array]:
        # Everything divided by the noise's scale: only its ratio to the factors' enters.
        precision = identity * ratio + gram_kxk
        mean_k, log_determinant = small.solved(precision, right_k)
        # Where no variance is asked for, no inverse is computed.
        inverse, _ = small.inverse(precision)
        return mean_k, inverse, log_determinant - len(right_k) * jnp.log(ratio)

    noise_Q = jnp.asarray(NOISE_Q)
    mean_Vxk, inverse_Vxkxk, log_determinant_V = jax.vmap(one)(jnp.asarray(RATIO_V))
    mean_Qxk = mean_Vxk[RATIO_Q]
    evidence_Q = -0.5 * (
        (square - mean_Qxk @ right_k) / noise_Q
        + log_determinant_V[RATIO_Q]
        + count * jnp.log(noise_Q)
    )
    weight_Q = jax.nn.softmax(evidence_Q)
    mean_k = weight_Q @ mean_Qxk
    off_Qxk = mean_Qxk - mean_k
    share_V = jnp.zeros(len(RATIO_V), mean_k.dtype).at[RATIO_Q].add(weight_Q * noise_Q)
    covariance = jnp.einsum("v,vab->ab", share_V, inverse_Vxkxk)
    whole = covariance + (weight_Q * off_Qxk.T) @ off_Qxk
    return Posterior(
        mean_k,
        whole,
        weight_Q @ noise_Q,
        mean_Qxk[PLAIN],
        weight_Q @ jnp.log(noise_Q),
        jax.nn.logsumexp(evidence_Q) - 0.5 * (known_S * jnp.log(noise_S)).sum(),
    )


def models(state: Prepared, columns_S: Array, values_S: Array) -> Posterior:
    """What every number of factors and every pooling says of a new row."""
    known_S = ~jnp.isnan(values_S)
    left_S = jnp.where(known_S, values_S - state.mean_N[columns_S], 0)
    basis_kxS = state.basis_kxN[:, columns_S]

    def one(
        scale_k: Array, own_S: Array, average: Array, freedom: Array, pooled: Array
    ) -> Posterior:
        noise_S = _pooled_noise(own_S, average, freedom, pooled)
        found = _scaled(scale_k[:, None] * basis_kxS, noise_S, left_S, known_S)
        return found._replace(
            mean_k=scale_k * found.mean_k,
            covariance_kxk=found.covariance_kxk * jnp.outer(scale_k, scale_k),
            plain_k=scale_k * found.plain_k,
        )

    over_poolings = jax.vmap(one, (None, None, None, None, 0))
    return jax.vmap(over_poolings, (0, 0, 0, 0, None))(
        state.scale_Rxk,
        state.noise_RxN[:, columns_S],
        state.average_R,
        state.freedom_R,
        jnp.asarray(POOLED),
    )


def predict(state: Prepared, columns_S: Array, values_S: Array) -> tuple[Array, Array]:
    """Mean and variance of every entry of a row (N each), its noise included."""
    found = models(state, columns_S, values_S)
    mean_RxHxk, covariance, scale_RxH = found.mean_k, found.covariance_kxk, found.scale
    mean_k = mean_RxHxk.mean((0, 1))
    off = mean_RxHxk - mean_k
    whole = covariance.mean((0, 1)) + jnp.einsum("rha,rhb->ab", off, off) / scale_RxH.size
    variance_N = ((whole @ state.basis_kxN) * state.basis_kxN).sum(0)
    pooled_H = jnp.asarray(POOLED)
    total_RxH = scale_RxH / (state.freedom_R[:, None] + pooled_H) / scale_RxH.size
    own_R = (total_RxH * state.freedom_R[:, None]).sum(1)
    common = (total_RxH * pooled_H * state.average_R[:, None]).sum()
    return state.mean_N + mean_k @ state.basis_kxN, variance_N + own_R @ state.noise_RxN + common


def extend(
    state: Prepared, columns_S: Array, values_S: Array, key: Array, options: Settings
) -> Array:
    """The new row's mean over all models; the train rows are not refitted."""
    mean_k = models(state, columns_S, values_S).mean_k.mean((0, 1))
    return state.mean_N + mean_k @ state.basis_kxN


def fill(z_MxN: Array, known_MxN: Array, key: Array, options: Settings) -> Array:
    """Any missing entries, by `gaussian.alternate`."""
    return gaussian.alternate(
        z_MxN,
        known_MxN,
        lambda z: prepare(z, options),
        lambda state, columns, values: extend(state, columns, values, key, options),
    )
