"""Sources that fine-tuning improves strongly: what was never upstream knowledge.

An example can be forgotten only if the base knew it. Rows in a form that is new to the base, such
as another instruction format, improve by nats a token under any fine-tune; in a mean or a factor
they drown what is forgotten.
"""

import dataclasses
from collections.abc import Collection

import numpy as np

from forget_jax.associations.matrix import Matrix
from forget_jax.errors import UserError

STRONGLY = 0.2  # nats a token; C4 rows are forgotten by some hundredths, new formats gain 1 to 5


def improved(matrix: Matrix) -> dict[str, float]:
    """Mean z of the sources whose mean is below -`STRONGLY`, the lowest first.

    Without sources all examples are one, under the empty name. A matrix of exact match has none:
    its columns are right answers of the base.
    """
    if matrix.metric == "exact_match":
        return {}
    z_MxN, of_N = np.asarray(matrix.z_MxN, float), np.array(matrix.sources or [""], object)
    means = {}
    for source in dict.fromkeys(of_N.tolist()):
        z = z_MxN[:, of_N == source] if matrix.sources else z_MxN
        if np.isfinite(z).any():
            means[str(source)] = float(z[np.isfinite(z)].mean())
    low = {source: mean for source, mean in means.items() if mean < -STRONGLY}
    return dict(sorted(low.items(), key=lambda item: item[1]))


def columns_without(matrix: Matrix, sources: Collection[str]) -> np.ndarray:
    """The numbers of the columns of other sources.

    Raises:
      UserError: there are none.
    """
    of = matrix.sources or ("",) * len(matrix.examples)
    kept_N = np.array([source not in sources for source in of], bool)
    if not kept_N.any():
        raise UserError(
            "every source improved strongly, so none of its examples was known before and nothing "
            "is left to be forgotten: give upstream rows that the base knew, or keep these columns"
        )
    return np.flatnonzero(kept_N)


def without(matrix: Matrix, sources: Collection[str]) -> Matrix:
    """The matrix without the columns of some sources; raises as `columns_without`."""
    kept_J = columns_without(matrix, sources)
    return dataclasses.replace(
        matrix,
        z_MxN=np.asarray(matrix.z_MxN)[:, kept_J],
        examples=tuple(matrix.examples[j] for j in kept_J),
        sources=tuple(matrix.sources[j] for j in kept_J) if matrix.sources else (),
    )


def line(found: dict[str, float], left_out: bool) -> str:
    """What is said of improved sources; empty where there are none."""
    if not found:
        return ""
    named = ", ".join(f"{s or 'all examples'} ({z:+.2f})" for s, z in list(found.items())[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    done = "their columns are left out" if left_out else "leave_improved=true leaves them out"
    return (
        f"improved strongly, mean z in nats a token: {named}{more}; the base did not know these "
        f"(or not their format), so they say nothing of forgetting: {done}"
    )
