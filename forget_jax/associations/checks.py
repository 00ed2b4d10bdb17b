"""What a matrix must be before anything is computed on it: one clear line for each mistake."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from forget_jax.errors import UserError

# Squares of larger entries, summed over a matrix, are beyond what 32 bits hold. No loss in nats is
# near it.
LARGEST = 1e15


def as_matrix(z: Any, what: str = "the matrix") -> np.ndarray:
    """`z` as a float32 or float64 M × N array; NaN means missing, infinities are refused.

    Raises:
      UserError: not two-dimensional, empty, not numeric, infinite or beyond `LARGEST`, or nothing
        in it known.
    """
    try:
        z_MxN = np.asarray(z)
        if z_MxN.dtype.kind not in "fiubO":  # numpy would read numbers out of text and dates
            raise TypeError(f"but {z_MxN.dtype}")
        if z_MxN.dtype.kind == "O":
            _check_numbers(z_MxN)
        if z_MxN.dtype != np.float32:
            z_MxN = z_MxN.astype(np.float64)
    except (TypeError, ValueError) as e:
        raise UserError(f"{what} does not hold numbers in equal rows ({e})") from e
    if z_MxN.ndim != 2 or 0 in z_MxN.shape:
        raise UserError(
            f"{what} must have tasks as rows and examples as columns, not {z_MxN.shape}"
        )
    low, high = np.fmin.reduce(z_MxN, axis=None), np.fmax.reduce(z_MxN, axis=None)
    if np.isnan(low):
        raise UserError(f"{what} holds no known entry: all {z_MxN.size} are missing")
    if max(-low, high) > LARGEST:
        infinite = np.isinf(z_MxN)
        far = infinite if infinite.any() else np.abs(z_MxN) > LARGEST
        i, j = np.argwhere(far)[0]
        kind = "infinite entries" if infinite.any() else f"entries beyond {LARGEST:g}"
        raise UserError(
            f"{what} holds {int(far.sum())} {kind}, the first in row {i}, column {j}: "
            "set them to NaN (missing) or drop those columns"
        )
    return z_MxN


def _check_numbers(z_MxN: np.ndarray) -> None:
    """Raises where an array of objects holds text, which numpy would read numbers out of."""
    for x in z_MxN.flat:
        if not (x is None or isinstance(x, int | float | np.number | np.bool_)):
            raise TypeError(f"but {type(x).__name__}")


def as_complete(z: Any, what: str = "the matrix") -> np.ndarray:
    """Like `as_matrix`, and refuses missing entries: for statistics that need every entry."""
    z_MxN = as_matrix(z, what)
    missing = np.isnan(z_MxN)
    if missing.any():
        i, j = np.argwhere(missing)[0]
        raise UserError(
            f"{what} has {int(missing.sum())} missing entries, the first in row {i}, column {j}; "
            "drop those rows or columns, or fill them with forget_jax.associations.complete"
        )
    return z_MxN


def is_constant(x: np.ndarray) -> bool:
    """Whether finite numbers differ by no more than rounding makes of equal ones."""
    return bool(np.ptp(x) <= 8 * np.finfo(np.float64).eps * np.abs(x).max())


def as_known(z_MxN: np.ndarray, observed: Any) -> np.ndarray:
    """The boolean mask of entries that are both declared observed and not NaN."""
    observed_MxN = np.asarray(observed)
    if observed_MxN.shape != z_MxN.shape:
        raise UserError(f"observed has shape {observed_MxN.shape}, the matrix {z_MxN.shape}")
    if observed_MxN.dtype != np.bool_:
        raise UserError(f"observed must be a boolean mask, not {observed_MxN.dtype}")
    known_MxN = observed_MxN & ~np.isnan(z_MxN)
    if not known_MxN.any():
        raise UserError("no entry of the matrix is both observed and known")
    return known_MxN


def as_rows(rows: Sequence[int], n_tasks: int, what: str) -> np.ndarray:
    """Row numbers as an int64 array: within the matrix, none twice, at least one."""
    numbers = np.asarray(rows, dtype=np.int64).reshape(-1)
    if numbers.size == 0:
        raise UserError(f"{what} names no row")
    outside = numbers[(numbers < 0) | (numbers >= n_tasks)]
    if outside.size:
        raise UserError(f"{what}: row {outside[0]} is not among the {n_tasks} rows of the matrix")
    values, counts = np.unique(numbers, return_counts=True)
    if (counts > 1).any():
        raise UserError(f"{what}: row {values[counts > 1][0]} is named twice")
    return numbers


def check_rank(rank: int, n_rows: int, n_columns: int) -> None:
    """A factorisation's rank lies between 1 and the number of rows and of columns."""
    most = min(n_rows, n_columns)
    if not 1 <= rank <= most:
        raise UserError(
            f"rank {rank} does not fit {n_rows} known rows × {n_columns} columns: take 1 to {most}"
        )


def as_side(side: Sequence[Any], n_columns: int, method: str) -> list[np.ndarray]:
    """Kinds of features of the columns, each p × N float32 of mean 0 and deviation 1.

    A feature that does not vary is left out.

    Raises:
      UserError: a method that takes none, another number of columns, or features that are not
        finite numbers.
    """
    if side and method != "auto":
        raise UserError(f"{method} takes no features of the columns: use auto, or give none")
    kinds = []
    for number, kind in enumerate(side):
        kind_pxN = np.atleast_2d(np.asarray(kind, np.float64))
        if kind_pxN.ndim != 2 or kind_pxN.shape[1] != n_columns:
            raise UserError(
                f"features {number} of the columns are {kind_pxN.shape}, not features × {n_columns}"
            )
        if not np.isfinite(kind_pxN).all():
            raise UserError(f"features {number} of the columns hold entries that are not finite")
        kind_pxN = kind_pxN[[not is_constant(f) for f in kind_pxN]]
        off = kind_pxN - kind_pxN.mean(1, keepdims=True)
        kinds.append((off / off.std(1, keepdims=True)).astype(np.float32))
    return kinds
