"""What every candidate of `auto` says of a new row, as a mix of the train rows.

Nothing of this needs a pass over the columns but their Gram matrix: what the train rows say, and
what other rows would say of one of them, follows from inner products over all columns, and from the
entries that are probed.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.associations.completion import (
    additive,
    als,
    column_mean,
    gaussian,
    knn,
    linear,
    mixture,
)

Array = jax.Array
WIDTHS = (30.0, 0.3, 0.03)  # of neighbours' similarity, in variances of the matrix
OTHERS = 3 + len(WIDTHS)  # candidates that are no Gaussian models
TEMPER = 0.5  # power of the evidence: entries are not as independent as the models have it
UNLIKE, SOFT = 0.7, 0.15  # the logarithm of the noise's scale at which a row counts as half unlike
SIDE = 0.5  # deviations of the rows that all features of a kind account for beforehand
EXACT = jax.lax.Precision.HIGHEST

Side = tuple[Array, ...]  # kinds of features, each p × N, of mean 0 and deviation 1


class Products(NamedTuple):
    """Inner products over all columns of U: rows less the columns' means, features, means, and 1.

    Attributes:
      gram_UxU: U Uᵀ; entries lack the grand mean.
      grand: the grand mean.
      n: columns.
    """

    gram_UxU: Array
    grand: Array
    n: int


class Directions(NamedTuple):
    """Leading directions of m rows around their mean, and of p features beside them.

    Attributes:
      mix_mpxr: eigenvectors, the features' part times their scale.
      values_r: eigenvalues.
      total: the trace.
      scale: of the features.
    """

    mix_mpxr: Array
    values_r: Array
    total: Array
    scale: Array


class Models(NamedTuple):
    """What some complete rows, m of them, say to each candidate.

    Attributes:
      sets: of the Gaussian models; the first knows no feature.
      spread: prior deviation of a new row's offset.
      sum_m: of the rows over all columns, less the grand mean.
      mean_square: of the column means.
      variance: of all entries.
      als: the factorisation of the rows less the grand mean.
    """

    sets: tuple[Directions, ...]
    spread: Array
    sum_m: Array
    mean_square: Array
    variance: Array
    als: als.Fit


class Estimates(NamedTuple):
    """What the C candidates say of a new row, the G Gaussian models first.

    Attributes:
      mixes: of the rows less the grand mean, with leading axis C.
      unlike: how much the row is unlike the train rows, 0 to 1.
      evident_G: weights of the Gaussian models by the row's own entries.
    """

    mixes: linear.Mix
    unlike: Array
    evident_G: Array


def _slices(side: Side, m: int) -> list[slice]:
    """Where each kind's features stand below m rows."""
    ends = np.cumsum([m, *(len(kind) for kind in side)])
    return [slice(a, b) for a, b in itertools.pairwise(ends.tolist())]


def _als(rank: int) -> als.Settings:
    return als.Settings(rank=min(rank, 5))


def products_of(z_MxN: Array, side: Side) -> Products:
    """Inner products of complete rows and of features, over all columns."""
    grand = z_MxN.mean()
    mean_N = (z_MxN - grand).mean(0)
    whole = [z_MxN - grand - mean_N, *side, mean_N[None], jnp.ones_like(mean_N)[None]]
    u_UxN = jnp.concatenate(whole)
    return Products(jnp.matmul(u_UxN, u_UxN.T, precision=EXACT), grand, z_MxN.shape[1])


def _directions(around_mxm: Array, by_mxp: Array, own_pxp: Array, n: int, rank: int) -> Directions:
    """Of rows with these inner products, around their mean, and features with those."""
    m, p = by_mxp.shape
    scale = SIDE * jnp.sqrt(jnp.trace(around_mxm) / (n * max(p, 1)))
    by = scale * (by_mxp - by_mxp.mean(0))
    gram = jnp.block([[around_mxm, by], [by.T, scale**2 * own_pxp]])
    values, vectors = jnp.linalg.eigh(gram)
    vectors = vectors[:, ::-1][:, :rank]
    rows = vectors[:m] - vectors[:m].mean(0)  # but for rounding they are around 0 already
    mix = jnp.concatenate([rows, scale * vectors[m:]])
    return Directions(mix, values[::-1][:rank], jnp.trace(gram), scale)


def models_of(
    products: Products, rows_m: Array, side: Side, rank: int, offset: Array | float
) -> Models:
    """The models of some of the rows, from the inner products alone.

    Args:
      rank, offset: as in the settings of `auto`.
    """
    gram, grand, n = products
    m, whole = rows_m.shape[0], len(gram) - 2 - sum(len(kind) for kind in side)
    off_mxm = gram[rows_m][:, rows_m]  # of the rows less the means of all columns
    by_mean_m, mean_square, mean_sum = gram[rows_m, -2], gram[-2, -2], gram[-2, -1]
    around = off_mxm - off_mxm.mean(0) - off_mxm.mean(1)[:, None] + off_mxm.mean()
    rows_mxm = off_mxm + by_mean_m + by_mean_m[:, None] + mean_square
    sum_m = gram[rows_m, -1] + mean_sum
    mean = sum_m.sum() / (m * n)
    variance = jnp.maximum(jnp.trace(rows_mxm) / (m * n) - mean**2, 0)
    places = [slice(0, 0), *_slices(side, whole)]
    return Models(
        tuple(_directions(around, gram[rows_m][:, at], gram[at, at], n, rank) for at in places),
        offset * jnp.sqrt(variance),
        sum_m,
        rows_mxm.mean() / n + 2 * grand * mean + grand**2,
        variance,
        als.fitted(rows_mxm, sum_m, n, _als(rank)),
    )


def _gaussians(
    models: Models, number: int, n: int, z_mxS: Array, side_pxS: Array, values_S: Array
) -> tuple[mixture.Posterior, Array, Array]:
    """What a set of Gaussian models says: its posterior, mixes (2RH × (m + p)) and constants."""
    found, m = models.sets[number], z_mxS.shape[0]
    mean_S = z_mxS.mean(0)
    off_mxS = z_mxS - mean_S
    square_S = (off_mxS**2).sum(0) + found.scale**2 * (side_pxS**2).sum(0)
    factors_rxS = found.mix_mpxr.T @ jnp.concatenate([off_mxS, side_pxS])
    state = gaussian.Decomposition(mean_S, factors_rxS, found.values_r, square_S, found.total, n)
    said = mixture.models(
        mixture.prepared(state, models.spread, m), jnp.arange(values_S.shape[0]), values_S
    )
    k = said.mean_k.shape[-1]
    factors = jnp.concatenate([said.mean_k.reshape(-1, k), said.plain_k.reshape(-1, k)])
    return said, factors[:, 1:] @ found.mix_mpxr.T, factors[:, 0]


def estimates_of(
    models: Models, products: Products, z_mxS: Array, side: Side, values_S: Array, rank: int
) -> Estimates:
    """Every candidate's mix, of the rows and then of all features.

    Args:
      z_mxS: the models' rows at the probed columns.
      side: the features there.
      values_S: of the new row; NaN where not known.
      rank: as in the settings.
    """
    m, grand, n = z_mxS.shape[0], products.grand, products.n
    places = [slice(m, m), *_slices(side, m)]
    width = places[-1].stop
    mixes, constants, evidence, scales = [], [], [], []
    for number, (at, kind_pxS) in enumerate(zip(places, (z_mxS[:0], *side), strict=True)):
        said, mix, constant = _gaussians(models, number, n, z_mxS, kind_pxS, values_S)
        whole = jnp.zeros((len(mix), width), mix.dtype).at[:, :m].set(mix[:, :m] + 1 / m)
        mixes.append(whole.at[:, at].set(mix[:, m:]))
        constants.append(constant)
        evidence.append(said.evidence.reshape(-1))
        scales.append(said.log_scale.mean())
    evident = jax.nn.softmax(TEMPER * jnp.stack(evidence), axis=(0, 1))  # of all sets together
    nothing_S = jnp.zeros_like(values_S)
    gaussians = linear.Mix(
        jnp.concatenate(mixes),
        jnp.concatenate(constants),
        jnp.zeros((sum(map(len, mixes)), len(values_S)), values_S.dtype),
    )

    z_mxS, left_S, mean_S = z_mxS - grand, values_S - grand, z_mxS.mean(0)
    scale = column_mean.scale(mean_S, values_S, models.mean_square, column_mean.Scaled().shrink)
    base = additive.joint(models.sum_m, n, z_mxS, left_S, additive.Settings())
    widths = jnp.asarray(WIDTHS) * models.variance + jnp.finfo(values_S.dtype).tiny
    singles = [
        linear.Mix(jnp.full(m, scale / m), (scale - 1) * grand, nothing_S),
        additive.mixed(base),
        als.mixed(models.als, z_mxS, left_S, _als(rank)),
        *(knn.mixed(z_mxS, left_S, base, knn.Settings(width=width)) for width in widths),
    ]
    singles = [one._replace(mix_M=jnp.pad(one.mix_M, (0, width - m))) for one in singles]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *singles)
    return Estimates(
        jax.tree.map(lambda *x: jnp.concatenate(x), gaussians, stacked),
        jax.nn.sigmoid((scales[0] - UNLIKE) / SOFT),
        jnp.concatenate([evident, jnp.zeros_like(evident)], 1).reshape(-1),
    )
