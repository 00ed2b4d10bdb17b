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

Candidates are mixes of the train rows (`candidates`), so their errors on a row left out are a
product of small matrices, and a new row is one product with the columns, whatever their number.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.associations.completion import linear, mixture
from forget_jax.associations.completion.candidates import (
    EXACT,
    OTHERS,
    Models,
    Products,
    Side,
    estimates_of,
    models_of,
    products_of,
)
from forget_jax.associations.completion.settings import settings
from forget_jax.associations.completion.weights import weigh

Array = jax.Array
MOST_ROWS = 64  # that are left out, evenly spaced where there are more
FEWEST_ROWS = 4  # from which on there are weights; below, they are the mixture's
DRAWS = 4  # of known columns for each row left out


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


class Prepared(NamedTuple):
    z_MxN: Array  # the train rows
    side: Side
    products: Products
    models: Models
    weight_C: Array
    bounds: tuple[Array, Array]  # 0 and 1 where the train rows hold nothing else, or infinite


def _bounds(z_MxN: Array) -> tuple[Array, Array]:
    binary = ((z_MxN == 0) | (z_MxN == 1)).all()
    return jnp.where(binary, 0, -jnp.inf), jnp.where(binary, 1, jnp.inf)


def _usual(options: Settings, kinds: int) -> Array:
    """The weights of the mixture: all its models alike."""
    models = options.rank * len(mixture.POOLED)
    weight_C = np.zeros(2 * models * (1 + kinds) + OTHERS, np.float32)
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
        models = models_of(products, others, side, options.rank, options.offset)

        def draw(drawn: tuple[Array, Side]) -> Array:
            z_MxS, kinds = drawn
            estimates = estimates_of(models, products, z_MxS[others], kinds, z_MxS[i], options.rank)
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
    weight_C, products = _usual(options, len(side)), products_of(z_MxN, side)
    if z_MxN.shape[0] >= FEWEST_ROWS and z_MxN.shape[1] > 1:
        weight_C = weigh(held_out(z_MxN, side, products, options), weight_C)
    rows_M = jnp.arange(z_MxN.shape[0])
    models = models_of(products, rows_M, side, options.rank, options.offset)
    return Prepared(z_MxN, side, products, models, weight_C, _bounds(z_MxN))


def again(state: Prepared, z_MxN: Array, options: Settings) -> Prepared:
    """The candidates from other rows, under the weights found before."""
    products = products_of(z_MxN, state.side)
    rows_M = jnp.arange(z_MxN.shape[0])
    models = models_of(products, rows_M, state.side, options.rank, options.offset)
    return state._replace(z_MxN=z_MxN, products=products, models=models)


def side_weights(state: Prepared) -> list[float]:
    """The share of the weight that each kind of features has."""
    each = (len(state.weight_C) - OTHERS) // (1 + len(state.side))
    weight_C = np.asarray(state.weight_C)
    return [float(weight_C[each * (1 + i) :][:each].sum()) for i in range(len(state.side))]


def extend(
    state: Prepared, columns_S: Array, values_S: Array, key: Array, options: Settings
) -> Array:
    """The new row's weighted mean; the train rows are not refitted."""
    z_MxS, kinds = state.z_MxN[:, columns_S], tuple(kind[:, columns_S] for kind in state.side)
    found = estimates_of(state.models, state.products, z_MxS, kinds, values_S, options.rank)
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
