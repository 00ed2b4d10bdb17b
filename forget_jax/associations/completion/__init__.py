"""Completion methods under one signature, and the two ways of calling them.

Every method is a few pure functions of arrays, and a class of settings, in a file of its own:

- `fill(z_MxN, known_MxN, key, options) -> M × N` estimates every entry from the known ones;
- `prepare(z_MxN, options) -> state` keeps what complete train rows say, once, and
  `extend(state, columns_S, values_S, key, options) -> N` estimates a new row from its known
  entries (NaN: unknown). A method without the two appends the row and fills.

All are jit-able, and vmap-able over rows, columns, values and keys. `settings.py` says which
settings are compiled in. A new method is such a file and a line in `methods.METHODS`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.associations import checks
from forget_jax.associations.completion.methods import METHODS, Method, resolve
from forget_jax.errors import UserError

__all__ = ["METHODS", "Method", "complete", "predict_left_out", "predict_rows", "resolve"]

Array = jax.Array
SCATTERED = 0.5  # share of known entries in the middle row below which rows are not fitted alone
MOST_ROWS = 128


@functools.partial(jax.jit, static_argnames=("method", "scattered"))
def _fill(
    z_MxN: Array, known_MxN: Array, key: Array, options: Any, *, method: str, scattered: bool
) -> Array:
    chosen = METHODS[method]
    if scattered and chosen.scattered is not None:
        return chosen.scattered(z_MxN, known_MxN, key, options)
    return chosen.fill(z_MxN, known_MxN, key, options)


def _is_scattered(known_MxN: np.ndarray) -> bool:
    """Whether the typical row knows less than half, or there are too many to fit one by one."""
    rows, columns = known_MxN.any(1), known_MxN.any(0)
    share_M = known_MxN[rows][:, columns].mean(1)
    return bool(np.median(share_M) < SCATTERED or rows.sum() > MOST_ROWS)


@functools.partial(jax.jit, static_argnames=("method", "batch"))
def _extend_all(
    z_MxN: Array,
    fits: tuple[Array, Array, Array],
    options: Any,
    side: tuple[Array, ...],
    *,
    method: str,
    batch: int,
) -> Array:
    """All new rows in one compiled call: what the train rows say is computed once.

    `fits` are their columns and values (F × S) and keys (F).
    """
    chosen = METHODS[method]
    fill, extend = chosen.fill, chosen.extend
    if chosen.prepare is None or extend is None:

        def one(columns_S: Array, values_S: Array, key: Array) -> Array:
            known_N = jnp.zeros(z_MxN.shape[1], bool).at[columns_S].max(~jnp.isnan(values_S))
            row_N = (
                jnp.zeros(z_MxN.shape[1], z_MxN.dtype).at[columns_S].add(jnp.nan_to_num(values_S))
            )
            known = jnp.concatenate([~jnp.isnan(z_MxN), known_N[None]])
            appended = jnp.concatenate([jnp.nan_to_num(z_MxN), row_N[None]])
            return fill(appended, known, key, options)[-1]

    else:
        state = chosen.prepare(z_MxN, options, side) if side else chosen.prepare(z_MxN, options)

        def one(columns_S: Array, values_S: Array, key: Array) -> Array:
            return extend(state, columns_S, values_S, key, options)

    return jax.lax.map(lambda fit: one(*fit), fits, batch_size=batch)


@functools.partial(jax.jit, static_argnames="method")
def _left_out(
    z_MxN: Array, filled_MxN: Array, columns_DxS: Array, options: Any, *, method: str
) -> Array:
    """M × D × N: every row from the others, under every draw of its known columns."""
    chosen = METHODS[method]
    m, n = z_MxN.shape
    key = jax.random.key(0)
    whole = chosen.prepare(filled_MxN, options) if chosen.prepare and chosen.again else None

    def one(i: Array) -> Array:
        others = jnp.arange(m - 1)
        others = others + (others >= i)
        row_N = z_MxN[i]
        if chosen.prepare is None or chosen.extend is None:
            known_N = jnp.zeros(n, bool)

            def draw(columns_S: Array) -> Array:
                known = jnp.concatenate([~jnp.isnan(z_MxN[others]), known_N[None]])
                known = known.at[-1, columns_S].set(~jnp.isnan(row_N[columns_S]))
                appended = jnp.concatenate([z_MxN[others], row_N[None]])
                return chosen.fill(jnp.where(known, appended, 0), known, key, options)[-1]

            return jax.lax.map(draw, columns_DxS)
        rest = filled_MxN[others]
        state = chosen.prepare(rest, options)
        if chosen.again is not None:
            state = chosen.again(whole, rest, options)
        extend = chosen.extend
        return jax.lax.map(lambda s: extend(state, s, row_N[s], key, options), columns_DxS)

    return jax.lax.map(one, jnp.arange(m))


def predict_left_out(z: Any, columns: Any, method: str, **options: Any) -> np.ndarray:
    """Every train row from some of its own entries and the other train rows, in one compiled call.

    What a method learns slowly from all rows (the weights of `auto`) is learned once, from all.
    Missing entries of the other rows are first estimated, from all rows.

    Args:
      z: M × N train rows, float, in any unit; NaN means missing.
      columns: D × S numbers of the columns that are known of the row left out, D draws of them.
      method: a name in METHODS.
      **options: settings of the method.

    Returns:
      M × D × N numpy array.

    Raises:
      UserError: as for `complete`.
    """
    z_MxN = checks.as_matrix(z, "the matrix of train rows")
    columns_DxS = np.asarray(columns)
    if method == "auto":
        options = {"probes": max(columns_DxS.shape[1], 1)} | options
    chosen, settings = resolve(method, options, z_MxN.shape[0] - 1, z_MxN.shape[1])
    known_MxN = ~np.isnan(z_MxN)
    filled = z_MxN
    if chosen.extend is not None and not known_MxN.all():
        filled = complete(z_MxN, known_MxN, method, **options)
    found = _left_out(
        jnp.asarray(z_MxN),
        jnp.asarray(filled),
        jnp.asarray(columns_DxS, jnp.int32),
        settings,
        method=method,
    )
    return np.asarray(found)


def _keys(seeds: Any) -> Array:
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


def complete(
    z: Any, observed: Any, method: str = "mixture", *, seed: int = 0, **options: Any
) -> np.ndarray:
    """The matrix with every entry that is not known estimated from those that are.

    Args:
      z: M × N forgetting in any unit, numpy or jax, float; NaN means missing, anywhere.
      observed: M × N boolean mask of the entries that may be used; NaN entries are never known.
      method: a name in METHODS.
      seed: of the random start, for the methods that have one.
      **options: settings of the method; unset ones take the defaults in METHODS.

    Returns:
      M × N numpy array of z's floating dtype (float64 for whole numbers): known entries as given,
      the others estimated. A row without any known entry is estimated from the columns alone, a
      column without any from the rows alone.

    Raises:
      UserError: infinities, shapes that do not agree, nothing known, an unknown method or
        setting, or a rank beyond the matrix.
    """
    z_MxN = checks.as_matrix(z)
    known_MxN = checks.as_known(z_MxN, observed)
    shape = int(known_MxN.any(1).sum()), int(known_MxN.any(0).sum())
    _, settings = resolve(method, options, *shape)
    zeroed = jnp.asarray(np.where(known_MxN, z_MxN, 0))
    key = jax.random.key(seed)
    estimate = _fill(
        zeroed,
        jnp.asarray(known_MxN),
        key,
        settings,
        method=method,
        scattered=_is_scattered(known_MxN),
    )
    return np.where(known_MxN, z_MxN, np.asarray(estimate).astype(z_MxN.dtype))


def predict_rows(
    z_MxN: Any,
    columns_FxS: Any,
    values_FxS: Any,
    method: str,
    *,
    seeds: Any = None,
    side: Sequence[Any] = (),
    **options: Any,
) -> np.ndarray:
    """New rows, each from its own few known entries and the train rows, in one compiled call.

    Every row is predicted by itself: the new rows do not see each other. Missing entries of the
    train rows are first estimated from the train rows by the same method, except under the methods
    that refit everything (those without `extend`), which leave them out.

    Args:
      z_MxN: train rows, float, in any unit; NaN means missing.
      columns_FxS: for each of F new rows, the numbers of S columns that are known.
      values_FxS: their values; NaN means that one is not known after all.
      method: a name in METHODS.
      seeds: F numbers for methods with a random start; 0 when not given.
      side: what `auto` may know of the columns beside: for each kind its features, p × N numbers.
      **options: settings of the method.

    Returns:
      F × N numpy array of predictions, of z's floating dtype; known entries are predicted too, not
      copied.

    Raises:
      UserError: as for `complete`.
    """
    z_MxN = checks.as_matrix(z_MxN, "the matrix of train rows")
    columns_FxS, values_FxS = np.asarray(columns_FxS), np.asarray(values_FxS, z_MxN.dtype)
    if columns_FxS.shape != values_FxS.shape or columns_FxS.ndim != 2:
        raise UserError(
            f"{columns_FxS.shape} columns and {values_FxS.shape} values: give F × S each"
        )
    if columns_FxS.size and not 0 <= columns_FxS.min() <= columns_FxS.max() < z_MxN.shape[1]:
        raise UserError(f"a known column is not among the {z_MxN.shape[1]} columns of the matrix")
    if (np.abs(values_FxS) > checks.LARGEST).any():  # NaN is not
        raise UserError(f"a known value of a new row is infinite or beyond {checks.LARGEST:g}")
    if method == "auto":
        options = {"probes": max(columns_FxS.shape[1], 1)} | options
    chosen, settings = resolve(method, options, *z_MxN.shape)
    if chosen.extend is not None and np.isnan(z_MxN).any():
        z_MxN = complete(z_MxN, ~np.isnan(z_MxN), method, **options)
    n_fits = columns_FxS.shape[0]
    if not n_fits:
        return np.empty((0, z_MxN.shape[1]), z_MxN.dtype)
    kinds = checks.as_side(side, z_MxN.shape[1], method)
    # Working memory of a few hundred MB at most, and batches wide enough to vectorise.
    per_fit = z_MxN.shape[1] * (4 if chosen.extend is not None else 4 * z_MxN.shape[0])
    # Batched eigenvectors go through LAPACK, which on few cores was seen to wait for ever.
    alone = method == "soft_impute"
    most = 1 if alone else max(2**26 // per_fit, 1)
    batch = -(-n_fits // -(-n_fits // most))
    # Batches of one size are one program: rows that fill the last are dropped.
    filled = np.minimum(np.arange(-(-n_fits // batch) * batch), n_fits - 1)
    predicted = _extend_all(
        jnp.asarray(z_MxN),
        (
            jnp.asarray(columns_FxS[filled], jnp.int32),
            jnp.asarray(values_FxS[filled]),
            _keys(np.zeros(len(filled)) if seeds is None else np.asarray(seeds)[filled]),
        ),
        settings,
        tuple(map(jnp.asarray, kinds)),
        method=method,
        batch=batch,
    )
    return np.asarray(predicted)[:n_fits]
