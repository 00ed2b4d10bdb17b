"""Sliding windows over an example longer than the context, and sums over an example's windows.

Every target is scored in exactly one window. Beyond the first window it has at least `context -
stride` tokens before it there, so a smaller stride costs more windows and gives more context.
"""

from collections.abc import Sequence

import numpy as np


def spans(length: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """Windows over `length` tokens: (start, end, first token that no earlier window ends with).

    Args:
      context: tokens of a window; the last window is as long as the others.
      stride: tokens that each window after the first adds, from 1 to `context - 1`.
    """
    if not 0 < stride < context:
        raise ValueError(f"a stride of {stride} does not fit windows of {context} tokens")
    found = [(0, min(length, context), 0)]
    while found[-1][1] < length:
        fresh = found[-1][1]
        end = min(length, fresh + stride)
        found.append((end - context, end, fresh))
    return found


def owners(names: Sequence[str]) -> np.ndarray:
    """Which example each row belongs to, int32 (R,) from 0: adjacent rows of one name are one."""
    first_R = [i == 0 or name != names[i - 1] for i, name in enumerate(names)]
    return np.cumsum(first_R, dtype=np.int32) - np.int32(1)


def firsts(owner_R: np.ndarray) -> np.ndarray:
    """The first row of each example, int (N,)."""
    return np.flatnonzero(np.diff(owner_R, prepend=-1))


def summed(values_KxR: np.ndarray, owner_R: np.ndarray) -> np.ndarray:
    """Sums of rows over the examples that own them, (K, N), in float64 (integers stay integers).

    Args:
      values_KxR: a figure of every row, such as its summed NLL; NaN makes its example's sum NaN.
      owner_R: as `owners` gives it, for the same rows.
    """
    values_KxR = np.asarray(values_KxR)
    kind = values_KxR.dtype if values_KxR.dtype.kind in "iu" else np.float64
    return np.add.reduceat(values_KxR, firsts(owner_R), axis=1, dtype=kind)
