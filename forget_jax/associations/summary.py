"""What a forgetting matrix is summed up by: how simple it is, and how well a second seed agrees."""

from typing import Any

import numpy as np

from forget_jax.associations import checks
from forget_jax.associations.statistics import additive_r2, column_r2, logistic_f1, rank_r2, row_r2
from forget_jax.errors import UserError


def statistics(z_MxN: Any, ranks: int, logistic: bool = False) -> dict[str, Any]:
    """R² of simple models on the examples that every task has a figure for.

    Tasks without any figure are left out first, then examples that a remaining task lacks.

    Args:
      z_MxN: forgetting, float; an entry that is not finite is missing.
      ranks: the highest rank of the truncated SVD, lowered to what the matrix allows.
      logistic: adds the F1 of logistic factors; the matrix then holds zeros and ones.

    Returns:
      `r2_rank` (a list, ranks 1 to `ranks`), `r2_additive`, `r2_row`, `r2_column`, and with
      `logistic` also `f1_rank` (a list). Without any complete example the list is empty, and the
      three figures are None.

    Raises:
      UserError: not a matrix, `ranks` below 1, or with `logistic` other entries than 0 and 1.
    """
    z_MxN = np.asarray(z_MxN)
    if z_MxN.ndim != 2:
        raise UserError(
            f"the matrix must have tasks as rows and examples as columns, not {z_MxN.shape}"
        )
    rows = np.isfinite(z_MxN).any(1)
    whole = z_MxN[rows][:, np.isfinite(z_MxN[rows]).all(0)]
    if not whole.size:
        return {"r2_rank": [], "r2_additive": None, "r2_row": None, "r2_column": None}
    ranks = min(ranks, *whole.shape)
    found: dict[str, Any] = {
        "r2_rank": rank_r2(whole, ranks),
        "r2_additive": additive_r2(whole),
        "r2_row": row_r2(whole),
        "r2_column": column_r2(whole),
    }
    if logistic:
        found["f1_rank"] = logistic_f1(whole, ranks)
    return found


def retest(z_MxN: Any, again_MxN: Any) -> dict[str, float | None]:
    """Agreement of the same tasks, fine-tuned once more under another seed.

    It is the ceiling against which the R² and the RMSE of predictions are read.

    Args:
      z_MxN: forgetting by the tasks that were repeated, float; not finite where it is missing.
      again_MxN: the same under the second seed.

    Returns:
      Over the entries that both have: `test_retest`, Pearson's correlation (None where either is
      constant), and `seed_rmse`, the root mean squared difference, in the unit of z. Both are None
      where there is no such entry.

    Raises:
      UserError: shapes that differ.
    """
    z_MxN, again_MxN = np.asarray(z_MxN), np.asarray(again_MxN)
    if len(z_MxN) != len(again_MxN) or (len(z_MxN) and z_MxN.shape != again_MxN.shape):
        raise UserError(f"a {z_MxN.shape} matrix beside a second seed's of {again_MxN.shape}")
    both = np.isfinite(z_MxN) & np.isfinite(again_MxN) if len(z_MxN) else np.zeros(0, bool)
    if not both.any():
        return {"test_retest": None, "seed_rmse": None}
    first, second = z_MxN[both], again_MxN[both]
    varies = not (checks.is_constant(first) or checks.is_constant(second))
    return {
        "test_retest": float(np.corrcoef(first, second)[0, 1]) if varies else None,
        "seed_rmse": float(np.sqrt(np.mean((first - second) ** 2))),
    }
