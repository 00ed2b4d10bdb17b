"""A weighted mean of many models of a row, which needs no choosing (stacking, Wolpert 1992).

Candidates are Gaussian models of 1 to `rank` factors under four poolings of the noise, with the
scales of the new row weighed by evidence and without; ALS; nearest neighbours of three widths; the
additive model; the scaled column mean. Every train row in turn is left out and estimated by each,
from `probes` random entries; the weights (none negative, of sum 1) are those under which the
combination's squared error is least.

Such weights hold for rows like the train rows. A new row whose own entries ask for far more noise
than theirs is unlike them: it takes the Gaussian models by how probable they make these entries.

Nothing of this needs a pass over the columns but their Gram matrix: candidates are mixes of the train
rows (`linear`), so their errors on a row left out are a product of small matrices, and a new row is
one product with the columns, whatever the number of candidates.
"""

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


class Products(NamedTuple):
    """Inner products over all columns of U = [M rows less the columns' means; those means; 1].

    Attributes:
      gram_UxU: U Uᵀ; entries lack the grand mean.
      grand: the grand mean.
      n: columns.
    """

    gram_UxU: Array
    grand: Array
    n: int


class Models(NamedTuple):
    """What some complete rows, m of them, say to each candidate.

    Attributes:
      vectors_mxr, values_r: leading eigenvectors of the rows around their mean, and eigenvalues.
      total: the trace.
      spread: prior deviation of a new row's offset.
      sum_m: of the rows over all columns, less the grand mean.
      mean_square: of the column means.
      variance: of all entries.
      als: the factorisation of the rows less the grand mean.
    """

    vectors_mxr: Array
    values_r: Array
    total: Array
    spread: Array
    sum_m: Array
    mean_square: Array
    variance: Array
    als: als.Fit


class Prepared(NamedTuple):
    z_MxN: Array  # the train rows
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


def _als(rank: int) -> als.Settings:
    return als.Settings(rank=min(rank, 5))


def _products(z_MxN: Array) -> Products:
    grand = z_MxN.mean()
    mean_N = (z_MxN - grand).mean(0)
    whole = [z_MxN - grand - mean_N, mean_N[None], jnp.ones_like(mean_N)[None]]
    u_UxN = jnp.concatenate(whole)
    return Products(jnp.matmul(u_UxN, u_UxN.T, precision=EXACT), grand, z_MxN.shape[1])


def _models(products: Products, rows_m: Array, options: Settings) -> Models:
    """The models of some of the rows, from the inner products alone."""
    gram, grand, n = products
    m = rows_m.shape[0]
    off_mxm = gram[:-2, :-2][rows_m][:, rows_m]  # of the rows less the means of all columns
    by_mean_m, mean_square, mean_sum = gram[rows_m, -2], gram[-2, -2], gram[-2, -1]
    around = off_mxm - off_mxm.mean(0) - off_mxm.mean(1)[:, None] + off_mxm.mean()
    values, vectors = jnp.linalg.eigh(around)
    rows_mxm = off_mxm + by_mean_m + by_mean_m[:, None] + mean_square
    sum_m = gram[rows_m, -1] + mean_sum
    mean = sum_m.sum() / (m * n)
    variance = jnp.maximum(jnp.trace(rows_mxm) / (m * n) - mean**2, 0)
    vectors_mxr = vectors[:, ::-1][:, : options.rank]
    return Models(
        # Rounding apart they are around 0 as the rows are.
        vectors_mxr - vectors_mxr.mean(0),
        values[::-1][: options.rank],
        jnp.trace(around),
        options.offset * jnp.sqrt(variance),
        sum_m,
        rows_mxm.mean() / n + 2 * grand * mean + grand**2,
        variance,
        als.fitted(rows_mxm, sum_m, n, _als(options.rank)),
    )


def _estimates(
    models: Models, products: Products, z_mxS: Array, values_S: Array, rank: int
) -> Estimates:
    """Every candidate's mix.

    Args:
      z_mxS: the models' rows at the probed columns.
      values_S: of the new row; NaN where not known.
      rank: as in the settings.
    """
    m, grand, n = z_mxS.shape[0], products.grand, products.n
    mean_S = z_mxS.mean(0)
    off_mxS = z_mxS - mean_S
    factors_rxS = models.vectors_mxr.T @ off_mxS
    found = mixture.models(
        mixture.prepared(
            gaussian.Decomposition(
                mean_S, factors_rxS, models.values_r, (off_mxS**2).sum(0), models.total, n
            ),
            models.spread,
            m,
        ),
        jnp.arange(values_S.shape[0]),
        values_S,
    )
    k = found.mean_k.shape[-1]
    factors_Gxk = jnp.concatenate([found.mean_k.reshape(-1, k), found.plain_k.reshape(-1, k)])
    nothing_GxS = jnp.zeros((len(factors_Gxk), values_S.shape[0]), values_S.dtype)
    gaussians = linear.Mix(
        factors_Gxk[:, 1:] @ models.vectors_mxr.T + 1 / m, factors_Gxk[:, 0], nothing_GxS
    )

    z_mxS, left_S = z_mxS - grand, values_S - grand
    scale = column_mean.scale(mean_S, values_S, models.mean_square, column_mean.Scaled().shrink)
    base = additive.joint(models.sum_m, n, z_mxS, left_S, additive.Settings())
    widths = jnp.asarray(WIDTHS) * models.variance + jnp.finfo(values_S.dtype).tiny
    singles = [
        linear.Mix(jnp.full(m, scale / m), (scale - 1) * grand, nothing_GxS[0]),
        additive.mixed(base),
        als.mixed(models.als, z_mxS, left_S, _als(rank)),
        *(knn.mixed(z_mxS, left_S, base, knn.Settings(width=width)) for width in widths),
    ]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *singles)
    evident = jax.nn.softmax(TEMPER * found.evidence.reshape(-1))
    return Estimates(
        jax.tree.map(lambda *x: jnp.concatenate(x), gaussians, stacked),
        jax.nn.sigmoid((found.log_scale.mean() - UNLIKE) / SOFT),
        jnp.concatenate([evident, jnp.zeros_like(evident)]),
    )


def _bounds(z_MxN: Array) -> tuple[Array, Array]:
    binary = ((z_MxN == 0) | (z_MxN == 1)).all()
    return jnp.where(binary, 0, -jnp.inf), jnp.where(binary, 1, jnp.inf)


def _usual(options: Settings) -> Array:
    """The weights of the mixture: all its models alike."""
    models = options.rank * len(mixture.POOLED)
    weight_C = np.zeros(2 * models + 3 + len(WIDTHS), np.float32)
    weight_C[:models] = 1 / models
    return jnp.asarray(weight_C)


def held_out(z_MxN: Array, products: Products, options: Settings) -> Array:
    """K × C × C mean products of the candidates' errors on K train rows, each left out in turn."""
    m, n = z_MxN.shape
    rng = np.random.default_rng(0)
    s = min(options.probes, max(n // 2, 1))
    columns_DxS = jnp.stack([rng.choice(n, s, replace=False) for _ in range(DRAWS)])
    z_DxMxS = jnp.moveaxis(z_MxN[:, columns_DxS], 1, 0)

    def one(i: Array) -> Array:
        others = jnp.arange(m - 1)
        others = others + (others >= i)
        models = _models(products, others, options)

        def draw(z_MxS: Array) -> Array:
            found = _estimates(models, products, z_MxS[others], z_MxS[i], options.rank).mixes
            # Errors on U: the mix of the others, less the row itself.
            error_CxU = jnp.zeros((len(found.constant), m + 2), z_MxS.dtype)
            error_CxU = error_CxU.at[:, others].set(found.mix_M).at[:, i].set(-1)
            error_CxU = error_CxU.at[:, -2].set(found.mix_M.sum(1) - 1)
            error_CxU = error_CxU.at[:, -1].set(found.constant)
            mean_S = z_MxS.mean(0) - products.grand
            probed = [z_MxS - products.grand - mean_S, mean_S[None], jnp.ones((1, s))]
            probed_UxS = jnp.concatenate(probed)
            free_UxU = products.gram_UxU - jnp.matmul(probed_UxS, probed_UxS.T, precision=EXACT)
            half = jnp.matmul(error_CxU, free_UxU, precision=EXACT)
            return jnp.matmul(half, error_CxU.T, precision=EXACT) / max(n - s, 1)

        return jax.lax.map(draw, z_DxMxS).mean(0)

    return jax.lax.map(one, jnp.linspace(0, m - 1, min(m, MOST_ROWS)).astype(jnp.int32))


def prepare(z_MxN: Array, options: Settings) -> Prepared:
    """The candidates and their weights: each row left out once, in one compiled call."""
    weight_C, products = _usual(options), _products(z_MxN)
    if z_MxN.shape[0] >= FEWEST_ROWS and z_MxN.shape[1] > 1:
        weight_C = weigh(held_out(z_MxN, products, options), weight_C)
    models = _models(products, jnp.arange(z_MxN.shape[0]), options)
    return Prepared(z_MxN, products, models, weight_C, _bounds(z_MxN))


def again(state: Prepared, z_MxN: Array, options: Settings) -> Prepared:
    """The candidates from other rows, under the weights found before."""
    products = _products(z_MxN)
    models = _models(products, jnp.arange(z_MxN.shape[0]), options)
    return state._replace(z_MxN=z_MxN, products=products, models=models)


def extend(
    state: Prepared, columns_S: Array, values_S: Array, key: Array, options: Settings
) -> Array:
    """The new row's weighted mean; the train rows are not refitted."""
    z_MxS = state.z_MxN[:, columns_S]
    found = _estimates(state.models, state.products, z_MxS, values_S, options.rank)
    G = found.evident_G.shape[0]
    weight_C = (1 - found.unlike) * state.weight_C
    weight_C = weight_C.at[:G].add(found.unlike * found.evident_G)

    def weighed(x: Array) -> Array:
        """Over the candidates; one without weight may be no number."""
        weight = weight_C.reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(weight > 0, weight * x, 0).sum(0)

    mix = jax.tree.map(weighed, found.mixes)
    # Mixes are of rows less the grand mean.
    constant = mix.constant + state.products.grand * (1 - mix.mix_M.sum())
    row_N = linear.row(mix._replace(constant=constant), state.z_MxN, columns_S)
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
