"""The factor model of a matrix most of whose entries are missing, by variational Bayes.

z[i, j] = mean + b_i + c_j + p_i · q_j + noise, every effect and factor with a normal prior whose
variance is learned, so a factor that the entries do not call for shrinks to nothing (Lim and Teh
2007; Ilin and Raiko, JMLR 2010). Where a row or column knows few entries its posterior is wide, and
the other side's update takes that into account: least squares at the same rank would overfit.

All rows are updated in one product of the mask with second moments of the columns, and all columns
likewise, whatever entries each of them knows: M · N · (rank + 2)² operations a step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from forget_jax.associations.completion import additive, small
from forget_jax.associations.completion.settings import settings

Array = jax.Array
TINY = 1e-9  # in variances of the known entries


@settings
class Settings:
    """The most factors, and alternations of rows and columns."""

    rank: int = 10
    steps: int = 50


class Side(NamedTuple):
    """Posterior of one side's vectors [1, effect, factors], K = rank + 2 entries each."""

    mean_MxK: Array
    second_MxKxK: Array  # mean of the outer product


State = tuple[Side, Array, Array, Array]  # the rows, both sides' prior variances, the noise's


def _side(
    known_MxN: Array, left_MxN: Array, other: Side, prior_K: Array, noise: Array
) -> tuple[Side, Array]:
    """The rows' posterior given the columns', which come as [effect, 1, factors].

    With it the M × K × K sums of the columns' second moments over what each row knows.

    Args:
      known_MxN: 1 where an entry is known, else 0.
      left_MxN: entries less the grand mean, 0 where not known.
      other: of the columns.
      prior_K: prior variances of the effect and the factors, of mean zero.
      noise: variance of an entry.
    """
    k = other.mean_MxK.shape[-1]
    second = (known_MxN @ other.second_MxKxK.reshape(-1, k * k)).reshape(-1, k, k)
    right_MxK = left_MxN @ other.mean_MxK - second[:, :, 0]
    precision = jnp.diag(1 / prior_K) + second[:, 1:, 1:] / noise
    covariance = jax.vmap(lambda a: small.inverse(a)[0])(precision)
    free = jnp.einsum("mab,mb->ma", covariance, right_MxK[:, 1:] / noise)
    mean_MxK = jnp.concatenate([jnp.ones_like(free[:, :1]), free], 1)
    outer = mean_MxK[:, :, None] * mean_MxK[:, None]
    return Side(mean_MxK, outer.at[:, 1:, 1:].add(covariance)), second


def _turned(side: Side) -> Side:
    """[1, effect, …] as [effect, 1, …], which multiplies the other side's [1, effect, …]."""
    order = jnp.arange(side.mean_MxK.shape[-1]).at[:2].set(jnp.array([1, 0]))
    return Side(side.mean_MxK[:, order], side.second_MxKxK[:, order][:, :, order])


def fill(z_MxN: Array, known_MxN: Array, key: Array, options: Settings) -> Array:
    """The posterior mean of every entry."""
    weight = known_MxN.astype(z_MxN.dtype)
    count = weight.sum()
    fit = additive.effects(z_MxN, known_MxN, additive.Settings(5.0, 5.0))
    left = jnp.where(known_MxN, z_MxN - fit.mean, 0)
    size = jnp.finfo(z_MxN.dtype).eps * jnp.abs(fit.mean) + jnp.finfo(z_MxN.dtype).tiny
    deviation = jnp.maximum(jnp.sqrt((left**2).sum() / count), 8 * size)
    left, row_M, column_N = left / deviation, fit.row_M / deviation, fit.column_N / deviation
    residual = jnp.where(known_MxN, left - row_M[:, None] - column_N, 0)
    noise = jnp.maximum((residual**2).sum() / count, TINY)

    # Rows start at leading directions of the residual, of variance 1 each.
    m, rank = z_MxN.shape[0], options.rank
    _, vectors = jnp.linalg.eigh(residual @ residual.T)
    factors_Mxr = vectors[:, ::-1][:, :rank] * jnp.sqrt(m)
    start = jnp.concatenate([jnp.ones((m, 1)), row_M[:, None], factors_Mxr], 1)
    rows = Side(start, start[:, :, None] * start[:, None])
    row_prior = jnp.ones(rank + 1).at[0].set(jnp.maximum((row_M**2).mean(), TINY))
    column_prior = (
        jnp.full(rank + 1, 0.1 * noise).at[0].set(jnp.maximum((column_N**2).mean(), TINY))
    )

    def step(_: int, carry: State) -> State:
        rows, row_prior, column_prior, noise = carry
        columns = _side(weight.T, left.T, _turned(rows), column_prior, noise)[0]
        turned = _turned(columns)
        rows, held = _side(weight, left, turned, row_prior, noise)
        square = (held * rows.second_MxKxK).sum()  # of the estimates at the known entries
        product = ((left @ turned.mean_MxK) * rows.mean_MxK).sum()
        of_columns = jnp.diagonal(columns.second_MxKxK, axis1=1, axis2=2)[:, 1:].mean(0)
        of_rows = jnp.maximum(rows.second_MxKxK[:, 1, 1].mean(), TINY)
        error = ((left**2).sum() - 2 * product + square) / count
        return (
            rows,
            row_prior.at[0].set(of_rows),  # factors stay of variance 1: the columns' have a scale
            jnp.maximum(of_columns, TINY),
            jnp.maximum(error, TINY),
        )

    first: State = rows, row_prior, column_prior, noise
    rows, _, column_prior, noise = jax.lax.fori_loop(0, options.steps, step, first)
    columns, _ = _side(weight.T, left.T, _turned(rows), column_prior, noise)
    return fit.mean + deviation * (rows.mean_MxK @ _turned(columns).mean_MxK.T)
