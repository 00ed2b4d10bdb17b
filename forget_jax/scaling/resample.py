"""Re-weightings of a table, for intervals and held-out errors: whole runs are drawn or left out."""

import numpy as np

# Webb's six-point distribution: with few runs, two-point signs repeat themselves too often.
_WEBB = np.sqrt(np.array([1.5, 1.0, 0.5, 0.5, 1.0, 1.5])) * np.array([-1, -1, -1, 1, 1, 1])


def draw_runs(cluster_N: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs cluster bootstrap: how often each row is drawn, [count, N].

    Runs are drawn with replacement; a draw of fewer than three different runs (of two, where there
    are no more) says nothing about a law and is drawn again.
    """
    runs = cluster_N.max() + 1
    need = min(3, runs)
    draws = rng.multinomial(runs, np.full(runs, 1 / runs), size=count)
    while (poor := (draws > 0).sum(axis=1) < need).any():
        draws[poor] = rng.multinomial(runs, np.full(runs, 1 / runs), size=int(poor.sum()))
    return draws[:, cluster_N].astype(np.float64)


def draw_residuals(
    cluster_N: np.ndarray,
    fitted_N: np.ndarray,
    y_N: np.ndarray,
    parameters: int,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Wild cluster bootstrap: new targets [count, N], each run's residuals times one random factor.

    Every rank stays in every draw, so few runs still identify the law. Residuals are inflated by
    the usual small-sample factor G/(G-1) * (N-1)/(N-k). Source: Cameron, Gelbach & Miller 2008;
    Webb 2014 (six-point factors).
    """
    runs, n = cluster_N.max() + 1, len(y_N)
    inflate = np.sqrt(runs / max(runs - 1, 1) * (n - 1) / max(n - parameters, 1))
    factor = rng.choice(_WEBB, size=(count, runs))[:, cluster_N]
    return fitted_N + inflate * factor * (y_N - fitted_N)


def leave_out(fold_N: np.ndarray, limit: int) -> np.ndarray:
    """Weights [folds, N], 0 on the rows held out; beyond `limit` folds, groups share a fold."""
    folds = fold_N.max() + 1
    group_N = fold_N % limit if folds > limit else fold_N
    return np.stack([(group_N != g).astype(np.float64) for g in range(min(folds, limit))])
