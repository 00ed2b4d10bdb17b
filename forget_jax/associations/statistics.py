"""How simple a forgetting matrix is: the share of its variation that simple models explain.

R² = 1 − mean (z − ẑ)² / mean (z − mean z)², with one mean over the whole matrix (arXiv 2406.14026,
section 3). Everything runs in float64 on the host, from the M × M Gram matrix.
"""

from typing import Any

import numpy as np

from forget_jax.associations import checks
from forget_jax.errors import UserError


def _total(z_MxN: np.ndarray) -> float:
    """Sum of squares around the grand mean, in float64 whatever the matrix is in.

    Zero where it is no more than the mean's rounding makes of a constant matrix.
    """
    total = float(np.square(z_MxN - z_MxN.mean(dtype=np.float64)).sum(dtype=np.float64))
    rounding = 4 * np.finfo(np.float64).eps * float(np.abs(z_MxN).max())
    return total if total > z_MxN.size * rounding**2 else 0.0


def _r2(left: float, total: float) -> float:
    """1 − left / total; a constant matrix is explained by anything."""
    return 1.0 - left / total if total > 0 else 1.0


def rank_r2(z: Any, max_rank: int) -> list[float]:
    """R² of the truncated SVD of the uncentred matrix, ranks 1 to `max_rank`.

    Args:
      z: M × N forgetting, float, in any unit, complete.
      max_rank: at most min(M, N).

    Returns:
      `max_rank` figures, each at most 1.

    Raises:
      UserError: missing or infinite entries, or a rank beyond the matrix.
    """
    z_MxN = checks.as_complete(z)
    checks.check_rank(max_rank, *z_MxN.shape)
    values = np.linalg.eigvalsh(_gram(z_MxN))[::-1]
    left = values.sum() - np.cumsum(values[:max_rank])
    return [_r2(max(float(x), 0.0), _total(z_MxN)) for x in left]


def _gram(z_MxN: np.ndarray) -> np.ndarray:
    """Z Zᵀ, or Zᵀ Z when that is smaller, summed in float64 over blocks of columns."""
    wide = z_MxN if z_MxN.shape[0] <= z_MxN.shape[1] else z_MxN.T
    gram = np.zeros((wide.shape[0],) * 2)
    for start in range(0, wide.shape[1], 8192):
        block = wide[:, start : start + 8192].astype(np.float64)
        gram += block @ block.T
    return gram


def additive_r2(z: Any) -> float:
    """R² of mean + row effect + column effect, least squares.

    Args:
      z: M × N forgetting, float, in any unit, complete.

    Raises:
      UserError: missing or infinite entries; use `complete` first, or drop columns.
    """
    z_MxN = checks.as_complete(z)
    row, column = _effects(z_MxN)
    return _explained(z_MxN, row, column)


def row_r2(z: Any) -> float:
    """R² of the row means alone; `z` and errors as for `additive_r2`."""
    z_MxN = checks.as_complete(z)
    row, _ = _effects(z_MxN)
    return _explained(z_MxN, row, np.zeros(z_MxN.shape[1]))


def column_r2(z: Any) -> float:
    """R² of the column means alone; `z` and errors as for `additive_r2`."""
    z_MxN = checks.as_complete(z)
    _, column = _effects(z_MxN)
    return _explained(z_MxN, np.zeros(z_MxN.shape[0]), column)


def _effects(z_MxN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column means less the grand mean: the least-squares effects of a complete matrix."""
    mean = z_MxN.mean(dtype=np.float64)
    return z_MxN.mean(1, dtype=np.float64) - mean, z_MxN.mean(0, dtype=np.float64) - mean


def _explained(z_MxN: np.ndarray, row_M: np.ndarray, column_N: np.ndarray) -> float:
    mean = z_MxN.mean(dtype=np.float64)
    left = z_MxN - mean - row_M[:, None]
    left -= column_N
    return _r2(float(np.square(left, out=left).sum(dtype=np.float64)), _total(z_MxN))


def shrunken_additive_r2(z: Any, shrink_rows: float = 15.0, shrink_columns: float = 10.0) -> float:
    """R² of the additive model with shrunken effects, 100 alternations: the paper's own variant.

    An effect is the sum of what is left of its entries over (their number + shrink).

    Args:
      z: M × N forgetting, float, in any unit, complete.
      shrink_rows, shrink_columns: in entries, at least 0; scikit-surprise's defaults.

    Raises:
      UserError: missing or infinite entries.
    """
    z_MxN = checks.as_complete(z)
    m, n = z_MxN.shape
    mean = z_MxN.mean(dtype=np.float64)
    row_sum = z_MxN.sum(1, dtype=np.float64) - n * mean
    column_sum = z_MxN.sum(0, dtype=np.float64) - m * mean
    row = np.zeros(m)
    for _ in range(100):
        column = (column_sum - row.sum()) / (m + shrink_columns)
        row = (row_sum - column.sum()) / (n + shrink_rows)
    return _explained(z_MxN, row, column)


def logistic_f1(z: Any, max_rank: int) -> list[float]:
    """F1 of logistic factors fitted to a whole matrix of zeros and ones, ranks 1 to `max_rank`.

    An entry counts as forgotten where its fitted probability is above 0.5 (arXiv 2406.14026,
    section 3, on exact match).

    Args:
      z: M × N of zeros and ones (forgotten), complete.
      max_rank: at most min(M, N).

    Returns:
      `max_rank` figures between 0 and 1; NaN where neither the matrix nor the fit holds any
      forgotten entry.

    Raises:
      UserError: missing entries, others than 0 and 1, or a rank beyond the matrix.
    """
    import jax
    import jax.numpy as jnp

    from forget_jax.associations.completion.methods import resolve

    z_MxN = checks.as_complete(z)
    if not np.isin(z_MxN, (0, 1)).all():
        raise UserError("F1 of logistic factors needs a matrix of zeros and ones")
    forgotten = z_MxN > 0
    found = []
    for rank in range(1, max_rank + 1):
        method, options = resolve("logistic", {"rank": rank}, *z_MxN.shape)
        fit = jax.jit(method.fill)
        p = fit(jnp.asarray(z_MxN), jnp.ones(z_MxN.shape, bool), jax.random.key(0), options)
        fitted = np.asarray(p) > 0.5
        either = int(forgotten.sum() + fitted.sum())
        found.append(2 * int((forgotten & fitted).sum()) / either if either else float("nan"))
    return found
