"""Matrix factorisation with biases by alternating least squares, z = mean + b_i + c_j + p_i · q_j.

A new task's row is fitted jointly with the train rows. Train rows are complete, so every column but
the probed ones has the same Gram matrix, and the parameters of those columns are one linear map of
the columns themselves: an alternating step then needs only the M × M matrix Z Zᵀ, not N columns.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from forget_jax.associations.completion import additive, linear, small
from forget_jax.associations.completion.settings import settings

Array = jax.Array
TINY = 1e-12  # keeps a constant matrix solvable


@settings
class Settings:
    """The factorisation's settings.

    Attributes:
      rank: number of factors.
      reg: penalty of factors, in standard deviations of the matrix; see `Penalty`.
      reg_bias: penalty of biases, in entries.
      steps: alternations.
    """

    rank: int = 5
    reg: Array | float = 0.15
    reg_bias: Array | float = 0.1
    steps: int = 10


class Moments(NamedTuple):
    """What an alternation needs of the columns of complete rows, less the grand mean."""

    gram_MxM: Array  # Z Zᵀ over all columns
    sum_M: Array
    n: int  # N


class Probed(NamedTuple):
    """The probed columns, less the grand mean."""

    z_MxS: Array  # of the train rows
    values_S: Array  # of the new row
    weight_S: Array  # 1 where the new row's value is known, else 0


class Fit(NamedTuple):
    """Complete train rows fitted alone, from their moments."""

    mean: Array
    deviation: Array
    moments: Moments
    row_Mxk: Array  # [b, p]


class Penalty(NamedTuple):
    bias: Array
    factor: Array  # times the number of known entries of the row or column

    def matrix(self, rank: int, count: Array | int) -> Array:
        """Ridge of [bias, factors] of a row or column with `count` known entries.

        Factors are penalised in proportion to the count (Zhou et al. 2008), so the same setting
        suits any number of columns; biases as if `bias` more entries were 0.
        """
        return jnp.diag(
            jnp.concatenate(
                [
                    jnp.reshape(self.bias, 1),
                    jnp.full(rank, self.factor * jnp.maximum(count, 1)),
                ]
            )
        )


def _penalty(options: Settings, deviation: Array) -> Penalty:
    """Products of factors scale with the matrix, so their penalty counts in its deviations."""
    return Penalty(options.reg_bias * jnp.ones(()), options.reg * (deviation + TINY))


def _design(parameters_Kxk: Array) -> Array:
    """[b, p] with the bias replaced by 1: what multiplies the other side's [1, q]."""
    return parameters_Kxk.at[..., 0].set(1)


def _start(gram_MxM: Array, n: int, row_M: Array, rank: int) -> Array:
    """[b, p] to start from: leading eigenvectors of the residual, both sides' factors as large.

    `gram_MxM` is the residual's, over n columns.
    """
    m = row_M.shape[0]
    values, vectors = jnp.linalg.eigh(gram_MxM)
    half = (jnp.maximum(values[::-1][:rank], 1e-12) * m / n) ** 0.25
    return jnp.concatenate([row_M[:, None], vectors[:, ::-1][:, :rank] * half], 1)


def _other_side(left_MxN: Array, known_MxN: Array, row_Mxk: Array, penalty: Penalty) -> Array:
    """Column parameters [c, q] (N × k) given row parameters [b, p], missing entries left out."""
    design = _design(row_Mxk)
    outer_Mxkxk = design[:, :, None] * design[:, None, :]
    gram_Nxkxk = jnp.einsum("mn,mab->nab", known_MxN.astype(left_MxN.dtype), outer_Mxkxk)
    rank = row_Mxk.shape[1] - 1
    gram_Nxkxk = gram_Nxkxk + jax.vmap(lambda count: penalty.matrix(rank, count))(known_MxN.sum(0))
    target = jnp.where(known_MxN, left_MxN - row_Mxk[:, :1], 0)
    return jax.vmap(small.solve)(gram_Nxkxk, target.T @ design)


def fill(z_MxN: Array, known_MxN: Array, key: Array, options: Settings) -> Array:
    """Alternating ridge regressions over the known entries of any matrix."""
    fit = additive.effects(z_MxN, known_MxN, additive.Settings(1.0, 1.0))
    left = jnp.where(known_MxN, z_MxN - fit.mean, 0)
    penalty = _penalty(options, jnp.sqrt((left**2).sum() / known_MxN.sum()))
    residual = jnp.where(known_MxN, left - fit.row_M[:, None] - fit.column_N, 0)

    def step(_: int, row_Mxk: Array) -> Array:
        column_Nxk = _other_side(left, known_MxN, row_Mxk, penalty)
        return _other_side(left.T, known_MxN.T, column_Nxk, penalty)

    start_Mxk = _start(residual @ residual.T, z_MxN.shape[1], fit.row_M, options.rank)
    row_Mxk = jax.lax.fori_loop(0, options.steps, step, start_Mxk)
    column_Nxk = _other_side(left, known_MxN, row_Mxk, penalty)
    return fit.mean + row_Mxk[:, :1] + _design(row_Mxk) @ column_Nxk.T


def _train_step(
    row_Mxk: Array, new_k: Array, moments: Moments, probed: Probed, penalty: Penalty
) -> tuple[Array, Array]:
    """One alternation (columns, then all rows) from second moments and the S probed columns.

    The new row's parameters `new_k` touch the probed columns alone, where their weight is 1.
    """
    z_MxS, values_S, weight_S = probed
    n = moments.n
    bias_M = row_Mxk[:, 0]
    design = _design(row_Mxk)
    m, rank = row_Mxk.shape[0], row_Mxk.shape[1] - 1
    gram = design.T @ design + penalty.matrix(rank, m)
    map_kxM = small.solve(gram, design.T)  # unprobed columns: y_j = map (z_j − b)
    free_MxM = moments.gram_MxM - z_MxS @ z_MxS.T
    free_M = moments.sum_M - z_MxS.sum(1)
    n_free = n - z_MxS.shape[1]
    cross_MxM = free_MxM - free_M[:, None] * bias_M  # Σ z_j (z_j − b)ᵀ
    left_M = free_M - n_free * bias_M
    yy = map_kxM @ (cross_MxM - bias_M[:, None] * left_M) @ map_kxM.T
    y = map_kxM @ left_M
    zy_Mxk = cross_MxM @ map_kxM.T

    probed_Sxk = _probed(row_Mxk, new_k, probed, penalty)
    e_Sxk = _design(probed_Sxk)
    # Moments of [1, q] over all columns, and of [1, q] · c.
    second = yy.at[0, :].set(y).at[:, 0].set(y).at[0, 0].set(n_free)
    by_bias = yy[:, 0].at[0].set(y[0])
    products = zy_Mxk.at[:, 0].set(free_M)
    second = second + e_Sxk.T @ e_Sxk
    by_bias = by_bias + e_Sxk.T @ probed_Sxk[:, 0]
    products = products + z_MxS @ e_Sxk
    row_Mxk = small.solve(second + penalty.matrix(rank, n), (products - by_bias).T).T
    gram_new = (e_Sxk * weight_S[:, None]).T @ e_Sxk + penalty.matrix(rank, weight_S.sum())
    right = e_Sxk.T @ (weight_S * (values_S - probed_Sxk[:, 0]))
    return row_Mxk, small.solve(gram_new, right)


def _probed(row_Mxk: Array, new_k: Array, probed: Probed, penalty: Penalty) -> Array:
    """Parameters [c, q] (S × k) of the probed columns: train rows and the new row together."""
    z_MxS, values_S, weight_S = probed
    design, new = _design(row_Mxk), _design(new_k)
    m, rank = row_Mxk.shape[0], row_Mxk.shape[1] - 1
    gram = design.T @ design
    right_kxS = design.T @ (z_MxS - row_Mxk[:, :1])
    with_new = right_kxS + new[:, None] * (values_S - new_k[0])
    both = small.solve(gram + jnp.outer(new, new) + penalty.matrix(rank, m + 1), with_new)
    alone = small.solve(gram + penalty.matrix(rank, m), right_kxS)
    return jnp.where(weight_S > 0, both, alone).T


def fitted(gram_MxM: Array, sum_M: Array, n: int, options: Settings) -> Fit:
    """The factorisation of complete train rows alone, from their Gram matrix and sums.

    Args:
      gram_MxM, sum_M: Z Zᵀ and Z 1 over all n columns; rows may lack any common constant.
    """
    m = sum_M.shape[0]
    mean = sum_M.sum() / (m * n)
    gram_MxM = gram_MxM - mean * (sum_M + sum_M[:, None]) + n * mean**2
    sum_M = sum_M - n * mean
    row_M = sum_M / n
    # What means of rows and columns leave.
    left = gram_MxM - gram_MxM.mean(0) - gram_MxM.mean(1)[:, None] + gram_MxM.mean()
    left = left - n * jnp.outer(row_M, row_M)
    deviation = jnp.sqrt(jnp.maximum(jnp.trace(gram_MxM), 0) / (m * n))
    none = jnp.zeros((0,), sum_M.dtype)
    penalty = _penalty(options, deviation)
    new_k = jnp.zeros(options.rank + 1, sum_M.dtype)
    moments = Moments(gram_MxM, sum_M, n)
    unprobed = Probed(jnp.zeros((m, 0), sum_M.dtype), none, none)

    def step(_: int, row_Mxk: Array) -> Array:
        return _train_step(row_Mxk, new_k, moments, unprobed, penalty)[0]

    start_Mxk = _start(left, n, row_M, options.rank)
    row_Mxk = jax.lax.fori_loop(0, options.steps, step, start_Mxk)
    return Fit(mean, deviation, moments, row_Mxk)


def mixed(fit: Fit, z_MxS: Array, values_S: Array, options: Settings) -> linear.Mix:
    """The new row fitted jointly with the train rows, started from their own factorisation.

    Args:
      z_MxS: the train rows at the probed columns, less the constant that the fit's rows lack.
      values_S: of the new row, less the same; NaN where not known.
    """
    penalty, rank = _penalty(options, fit.deviation), options.rank
    z_MxS = z_MxS - fit.mean
    weight_S = (~jnp.isnan(values_S)).astype(z_MxS.dtype)
    left_S = jnp.where(weight_S > 0, values_S - fit.mean, 0)
    probed = Probed(z_MxS, left_S, weight_S)

    def step(_: int, parameters: tuple[Array, Array]) -> tuple[Array, Array]:
        return _train_step(*parameters, fit.moments, probed, penalty)

    # The new row's first parameters come from columns fitted without it.
    without = probed._replace(weight_S=0 * weight_S)
    first_Sxk = _probed(fit.row_Mxk, jnp.zeros(rank + 1), without, penalty)
    e_Sxk = _design(first_Sxk)
    new_k = small.solve(
        (e_Sxk * weight_S[:, None]).T @ e_Sxk + penalty.matrix(rank, weight_S.sum()),
        e_Sxk.T @ (weight_S * (left_S - first_Sxk[:, 0])),
    )
    row_Mxk, new_k = jax.lax.fori_loop(0, options.steps, step, (fit.row_Mxk, new_k))
    design = _design(row_Mxk)
    map_kxM = small.solve(design.T @ design + penalty.matrix(rank, design.shape[0]), design.T)
    # [1, p] · y_j = ([1, p] map) z_j − …: one product with the columns, whatever the rank.
    new = _design(new_k)
    mix_M = new @ map_kxM
    free_S = mix_M @ (z_MxS - row_Mxk[:, :1])
    probed_S = _probed(row_Mxk, new_k, probed, penalty) @ new
    return linear.Mix(
        mix_M,
        fit.mean + new_k[0] - mix_M @ (row_Mxk[:, 0] + fit.mean),
        weight_S * (probed_S - free_S),
    )


def prepare(z_MxN: Array, options: Settings) -> tuple[Array, Array, Fit]:
    """The complete train rows less their mean, the mean, and their factorisation."""
    mean = z_MxN.mean()
    z_MxN = z_MxN - mean
    return z_MxN, mean, fitted(z_MxN @ z_MxN.T, z_MxN.sum(1), z_MxN.shape[1], options)


def extend(
    state: tuple[Array, Array, Fit],
    columns_S: Array,
    values_S: Array,
    key: Array,
    options: Settings,
) -> Array:
    """The new row, by `mixed`."""
    z_MxN, mean, fit = state
    found = mixed(fit, z_MxN[:, columns_S], values_S - mean, options)
    return mean + linear.row(found, z_MxN, columns_S)
