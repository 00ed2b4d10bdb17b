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
