"""Re-weightings of a table, for intervals and held-out errors: whole runs are drawn or left out."""

import numpy as np


def draw_runs(cluster_N: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs cluster bootstrap: how often each row is drawn (count × N, float64).

    Runs are drawn with replacement; a draw of fewer than three different runs (of two, where there
    are three or fewer) says too little about a law and is drawn again. A wild cluster bootstrap
    (each run's residuals times a random sign) was tried in its place and covered less.
    """
    runs = cluster_N.max() + 1
    need = min(3, max(2, runs - 1))
    draws = rng.multinomial(runs, np.full(runs, 1 / runs), size=count)
    while (poor := (draws > 0).sum(axis=1) < need).any():
        draws[poor] = rng.multinomial(runs, np.full(runs, 1 / runs), size=int(poor.sum()))
    return draws[:, cluster_N].astype(np.float64)


def leave_out(fold_N: np.ndarray, limit: int) -> np.ndarray:
    """Weights (F × N), 0 on the rows held out; beyond `limit` folds, groups share a fold."""
    folds = fold_N.max() + 1
    group_N = fold_N % limit if folds > limit else fold_N
    return np.stack([(group_N != g).astype(np.float64) for g in range(min(folds, limit))])


def pick_starts(
    basis_CxNxJ: np.ndarray, weight_SxN: np.ndarray, y_N: np.ndarray, cluster_N: np.ndarray
) -> np.ndarray:
    """Which of C candidate shapes each re-weighted table is fitted best by (S).

    A sum over a table is the weighted sum of its runs' sums, so a candidate costs one pass over the
    table however many re-weightings there are.

    Args:
      basis_CxNxJ: each candidate's terms, orthonormal over the table.
      weight_SxN: how often each row is drawn: the same for all rows of a run.
      y_N: the target, in the unit of the basis' residuals.
      cluster_N: the run of each row.
    """
    count = int(cluster_N.max()) + 1
    first = np.array([np.flatnonzero(cluster_N == c)[0] for c in range(count)])
    losses = []
    for basis_NxJ in basis_CxNxJ:
        both = np.column_stack([basis_NxJ, y_N])
        gram = np.zeros((count, both.shape[1], both.shape[1]))
        np.add.at(gram, cluster_N, both[:, :, None] * both[:, None, :])
        drawn = np.einsum("sc,cij->sij", weight_SxN[:, first], gram)
        right = drawn[:, :-1, -1]
        coef = np.einsum("sij,sj->si", np.linalg.pinv(drawn[:, :-1, :-1], rcond=1e-10), right)
        losses.append(drawn[:, -1, -1] - np.sum(coef * right, axis=1))
    return np.argmin(losses, axis=0)
