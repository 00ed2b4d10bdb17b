"""A weighted mean of many models of a row, which needs no choosing (stacking, Wolpert 1992).

Candidates are Gaussian models of 1 to `rank` factors under four poolings of the noise, with the
scales of the new row weighed by evidence and without; ALS; nearest neighbours of three widths; the
additive model; the scaled column mean. Every train row in turn is left out and estimated by each,
from `probes` random entries; the weights (none negative, of sum 1) are those under which the
combination's squared error is least.

Such weights hold for rows like the train rows. A new row whose own entries ask for far more noise
than theirs is unlike them: it takes the Gaussian models by how probable they make these entries.

A new row costs one estimate by each candidate, in milliseconds; nothing is refitted.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.associations.completion import additive, als, column_mean, knn, mixture
from forget_jax.associations.completion.settings import settings
from forget_jax.associations.completion.weights import weigh

Array = jax.Array
MOST_COLUMNS = 2048  # that candidates are weighed on, drawn at random where there are more
MOST_ROWS = 64  # that are left out, evenly spaced where there are more
FEWEST_ROWS = 4  # from which on there are weights; below, they are the mixture's
DRAWS = 4  # of known columns for each row left out
WIDTHS = (30.0, 0.3, 0.03)  # of neighbours' similarity, in variances of the matrix
TEMPER = 0.5  # power of the evidence: entries are not as independent as the models have it
UNLIKE, SOFT = 0.7, 0.15  # the logarithm of the noise's scale at which a row counts as half unlike


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


class Models(NamedTuple):
    """What complete train rows say to each candidate."""

    gaussian: mixture.Prepared
    mean_N: Array
    near: knn.Prepared
    als: als.Prepared
    variance: Array


class Prepared(NamedTuple):
    models: Models
    weight_C: Array
    bounds: tuple[Array, Array]  # 0 and 1 where the train rows hold nothing else, or infinite


class Estimates(NamedTuple):
    """What the C = G + O candidates say of a new row."""

    factors_Gxk: Array  # of the Gaussian models, on their basis
    rows_OxN: Array  # of the others
    unlike: Array  # how much the row is unlike the train rows, 0 to 1
    evident_G: Array  # weights of the Gaussian models by the row's own entries


def _als(rank: int) -> als.Settings:
    return als.Settings(rank=min(rank, 5))


def _models(z_MxN: Array, options: Settings) -> Models:
    return Models(
        mixture.prepare(z_MxN, mixture.Settings(options.rank, options.offset)),
        z_MxN.mean(0),
        knn.prepare(z_MxN, knn.Settings()),
        als.prepare(z_MxN, _als(options.rank)),
        z_MxN.var(),
    )


def _estimates(models: Models, columns_S: Array, values_S: Array, rank: int) -> Estimates:
    found = mixture.models(models.gaussian, columns_S, values_S)
    k = found.mean_k.shape[-1]
    factors_Gxk = jnp.concatenate([found.mean_k.reshape(-1, k), found.plain_k.reshape(-1, k)])
    new = columns_S, values_S, jax.random.key(0)
    widths = jnp.asarray(WIDTHS) * models.variance + jnp.finfo(values_S.dtype).tiny
    rows = [
        column_mean.extend_scaled(models.mean_N, *new, column_mean.Scaled()),
        additive.extend(models.near.sums, *new, additive.Settings()),
        als.extend(models.als, *new, _als(rank)),
    ]
    near = jax.vmap(lambda width: knn.extend(models.near, *new, knn.Settings(width=width)))(widths)
    evident = jax.nn.softmax(TEMPER * found.evidence.reshape(-1))
    return Estimates(
        factors_Gxk,
        jnp.concatenate([jnp.stack(rows), near]),
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


def held_out(z_MxN: Array, options: Settings) -> Array:
    """K × C × C mean products of the candidates' errors on K train rows, each left out in turn."""
    m, n = z_MxN.shape
    rng = np.random.default_rng(0)
    if n > MOST_COLUMNS:
        z_MxN, n = z_MxN[:, np.sort(rng.choice(n, MOST_COLUMNS, replace=False))], MOST_COLUMNS
    s = min(options.probes, max(n // 2, 1))
    columns_DxS = jnp.stack([rng.choice(n, s, replace=False) for _ in range(DRAWS)])

    def one(i: Array) -> Array:
        others = jnp.arange(m - 1)
        models = _models(z_MxN[others + (others >= i)], options)
        gaussian, row_N = models.gaussian, z_MxN[i]

        def draw(columns_S: Array) -> Array:
            found = _estimates(models, columns_S, row_N[columns_S], options.rank)
            rows_GxN = gaussian.mean_N + found.factors_Gxk @ gaussian.basis_kxN
            error_CxN = jnp.concatenate([rows_GxN, found.rows_OxN]) - row_N
            error_CxN = error_CxN.at[:, columns_S].set(0)
            return error_CxN @ error_CxN.T / max(n - s, 1)

        return jax.lax.map(draw, columns_DxS).mean(0)

    return jax.lax.map(one, jnp.linspace(0, m - 1, min(m, MOST_ROWS)).astype(jnp.int32))


def prepare(z_MxN: Array, options: Settings) -> Prepared:
    """The candidates and their weights: each row left out once, in one compiled call."""
    weight_C = _usual(options)
    if z_MxN.shape[0] >= FEWEST_ROWS and z_MxN.shape[1] > 1:
        weight_C = weigh(held_out(z_MxN, options), weight_C)
    return Prepared(_models(z_MxN, options), weight_C, _bounds(z_MxN))


def again(state: Prepared, z_MxN: Array, options: Settings) -> Prepared:
    """The candidates from other rows, under the weights found before."""
    return Prepared(_models(z_MxN, options), state.weight_C, state.bounds)


def extend(
    state: Prepared, columns_S: Array, values_S: Array, key: Array, options: Settings
) -> Array:
    """The new row's weighted mean; the train rows are not refitted."""
    models = state.models
    found = _estimates(models, columns_S, values_S, options.rank)
    G = found.factors_Gxk.shape[0]
    alike = 1 - found.unlike
    weight_G = alike * state.weight_C[:G] + found.unlike * found.evident_G
    weight_O = alike * state.weight_C[G:]
    # a candidate without weight may be no number
    factors_k = jnp.where(weight_G[:, None] > 0, weight_G[:, None] * found.factors_Gxk, 0).sum(0)
    others_N = jnp.where(weight_O[:, None] > 0, weight_O[:, None] * found.rows_OxN, 0).sum(0)
    gaussian = models.gaussian
    row_N = weight_G.sum() * gaussian.mean_N + factors_k @ gaussian.basis_kxN + others_N
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
