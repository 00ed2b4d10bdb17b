"""A weighted mean of many models of a row, which needs no choosing (stacking, Wolpert 1992).

Candidates are Gaussian models of 1 to `rank` factors under four poolings of the noise, with the
scales of the new row weighed by evidence and without; ALS; nearest neighbours of three widths; the
additive model; the scaled column mean. Every train row in turn is left out and estimated by each,
from `probes` random entries; the weights (none negative, of sum 1) are those under which the
combination's squared error is least.

Such weights hold for rows like the train rows. A new row whose own entries ask for far more noise
than theirs is unlike them: it takes the Gaussian models by how probable they make these entries.

What is known of the columns beside (their loss under the base, their length, their source) makes
more Gaussian models, a set for each kind: rows may differ along such a feature as if they had
already been seen to (a prior of the columns' covariance). They are weighed like the others, so a
kind that does not help on rows left out has no weight.

Nothing of this needs a pass over the columns but their Gram matrix: candidates are mixes of the
train rows (`linear`), so their errors on a row left out are a product of small matrices, and a new
row is one product with the columns, whatever the number of candidates.
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
from forget_jax.associations.completion.settings import settings
from forget_jax.associations.completion.weights import weigh

Array = jax.Array
MOST_ROWS = 64  # that are left out, evenly spaced where there are more
FEWEST_ROWS = 4  # from which on there are weights; below, they are the mixture's
DRAWS = 4  # of known columns for each row left out
WIDTHS = (30.0, 0.3, 0.03)  # of neighbours' similarity, in variances of the matrix
TEMPER = 0.5  # power of the evidence: entries are not as independent as the models have it
UNLIKE, SOFT = 0.7, 0.15  # the logarithm of the noise's scale at which a row counts as half unlike
SIDE = 0.5  # deviations of the rows that all features of a kind account for beforehand
EXACT = jax.lax.Precision.HIGHEST


@settings
class Settings:
    """Settings of the combination.

    Attributes:
      rank: the most factors of a Gaussian model; M ≥ rank + 3 rows.
      probes: entries known of a new row, for which candidates are weighed; `predict_rows` and
        `fit_predictor` take the number that they are given.
      offset: as in `gaussian.Settings`.
    """

    rank: int = 12
    probes: int = 30
    offset: Array | float = 4.0


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


class Prepared(NamedTuple):
    z_MxN: Array  # the train rows
    side: Side
    products: Products
    models: Models
    weight_C: Array
    bounds: tuple[Array, Array]  # 0 and 1 where the train rows hold nothing else, or infinite


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


def _products(z_MxN: Array, side: Side) -> Products:
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


def _models(products: Products, rows_m: Array, side: Side, options: Settings) -> Models:
    """The models of some of the rows, from the inner products alone."""
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
        tuple(
            _directions(around, gram[rows_m][:, at], gram[at, at], n, options.rank) for at in places
        ),
        options.offset * jnp.sqrt(variance),
        sum_m,
        rows_mxm.mean() / n + 2 * grand * mean + grand**2,
        variance,
        als.fitted(rows_mxm, sum_m, n, _als(options.rank)),
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


def _estimates(
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


def _bounds(z_MxN: Array) -> tuple[Array, Array]:
    binary = ((z_MxN == 0) | (z_MxN == 1)).all()
    return jnp.where(binary, 0, -jnp.inf), jnp.where(binary, 1, jnp.inf)


def _usual(options: Settings, kinds: int) -> Array:
    """The weights of the mixture: all its models alike."""
    models = options.rank * len(mixture.POOLED)
    weight_C = np.zeros(2 * models * (1 + kinds) + 3 + len(WIDTHS), np.float32)
    weight_C[:models] = 1 / models
    return jnp.asarray(weight_C)


def held_out(z_MxN: Array, side: Side, products: Products, options: Settings) -> Array:
    """K × C × C mean products of the candidates' errors on K train rows, each left out in turn."""
    m, n = z_MxN.shape
    rng = np.random.default_rng(0)
    s = min(options.probes, max(n // 2, 1))
    columns_DxS = jnp.stack([rng.choice(n, s, replace=False) for _ in range(DRAWS)])
    z_DxMxS = jnp.moveaxis(z_MxN[:, columns_DxS], 1, 0)
    side_D = tuple(jnp.moveaxis(kind[:, columns_DxS], 1, 0) for kind in side)

    def one(i: Array) -> Array:
        others = jnp.arange(m - 1)
        others = others + (others >= i)
        models = _models(products, others, side, options)

        def draw(drawn: tuple[Array, Side]) -> Array:
            z_MxS, kinds = drawn
            estimates = _estimates(models, products, z_MxS[others], kinds, z_MxS[i], options.rank)
            found, width = estimates.mixes, len(products.gram_UxU)
            by_rows = found.mix_M[:, : m - 1]
            # Errors on U: the mix of the others, less the row itself.
            error_CxU = jnp.zeros((len(found.constant), width), z_MxS.dtype)
            error_CxU = error_CxU.at[:, others].set(by_rows).at[:, i].set(-1)
            error_CxU = error_CxU.at[:, m:-2].set(found.mix_M[:, m - 1 :])
            error_CxU = error_CxU.at[:, -2].set(by_rows.sum(1) - 1)
            error_CxU = error_CxU.at[:, -1].set(found.constant)
            mean_S = z_MxS.mean(0) - products.grand
            probed = [z_MxS - products.grand - mean_S, *kinds, mean_S[None], jnp.ones((1, s))]
            probed_UxS = jnp.concatenate(probed)
            free_UxU = products.gram_UxU - jnp.matmul(probed_UxS, probed_UxS.T, precision=EXACT)
            half = jnp.matmul(error_CxU, free_UxU, precision=EXACT)
            return jnp.matmul(half, error_CxU.T, precision=EXACT) / max(n - s, 1)

        return jax.lax.map(draw, (z_DxMxS, side_D)).mean(0)

    return jax.lax.map(one, jnp.linspace(0, m - 1, min(m, MOST_ROWS)).astype(jnp.int32))


def prepare(z_MxN: Array, options: Settings, side: Side = ()) -> Prepared:
    """The candidates and their weights: each row left out once, in one compiled call."""
    weight_C, products = _usual(options, len(side)), _products(z_MxN, side)
    if z_MxN.shape[0] >= FEWEST_ROWS and z_MxN.shape[1] > 1:
        weight_C = weigh(held_out(z_MxN, side, products, options), weight_C)
    models = _models(products, jnp.arange(z_MxN.shape[0]), side, options)
    return Prepared(z_MxN, side, products, models, weight_C, _bounds(z_MxN))


def again(state: Prepared, z_MxN: Array, options: Settings) -> Prepared:
    """The candidates from other rows, under the weights found before."""
    products = _products(z_MxN, state.side)
    models = _models(products, jnp.arange(z_MxN.shape[0]), state.side, options)
    return state._replace(z_MxN=z_MxN, products=products, models=models)


def side_weights(state: Prepared) -> list[float]:
    """The share of the weight that each kind of features has."""
    each = (len(state.weight_C) - 3 - len(WIDTHS)) // (1 + len(state.side))
    weight_C = np.asarray(state.weight_C)
    return [float(weight_C[each * (1 + i) :][:each].sum()) for i in range(len(state.side))]


def extend(
    state: Prepared, columns_S: Array, values_S: Array, key: Array, options: Settings
) -> Array:
    """The new row's weighted mean; the train rows are not refitted."""
    z_MxS, kinds = state.z_MxN[:, columns_S], tuple(kind[:, columns_S] for kind in state.side)
    found = _estimates(state.models, state.products, z_MxS, kinds, values_S, options.rank)
    G = found.evident_G.shape[0]
    weight_C = (1 - found.unlike) * state.weight_C
    weight_C = weight_C.at[:G].add(found.unlike * found.evident_G)

    def weighed(x: Array) -> Array:
        """Over the candidates; one without weight may be no number."""
        weight = weight_C.reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(weight > 0, weight * x, 0).sum(0)

    mix = jax.tree.map(weighed, found.mixes)
    # Mixes are of rows less the grand mean.
    m = state.z_MxN.shape[0]
    constant = mix.constant + state.products.grand * (1 - mix.mix_M[:m].sum())
    whole_MPxN = jnp.concatenate([state.z_MxN, *state.side])
    row_N = linear.row(mix._replace(constant=constant), whole_MPxN, columns_S)
    return jnp.clip(row_N, *state.bounds)


def fill(z_MxN: Array, known_MxN: Array, key: Array, options: Settings) -> Array:
    """Any missing entries: the mixture's estimate, and then each row from all the others."""
    usual = mixture.Settings(options.rank, options.offset)
    guess_MxN = jnp.where(known_MxN, z_MxN, mixture.fill(z_MxN, known_MxN, key, usual))
    m, n = z_MxN.shape
    if m <= FEWEST_ROWS:
        return guess_MxN
    state = prepare(guess_MxN, options)

    def one(i: Array) -> Array:
        others = jnp.arange(m - 1)
        rest = again(state, guess_MxN[others + (others >= i)], options)
        values_N = jnp.where(known_MxN[i], z_MxN[i], jnp.nan)
        return extend(rest, jnp.arange(n), values_N, key, options)

    return jax.lax.map(one, jnp.arange(m))
