"""Which upstream examples to replay, given what is known of a task's forgetting.

A strategy turns forgetting values into sampling weights (arXiv 2406.14026 §5, lowrank.md §5).
"""

import numpy as np

from forget_jax.errors import UserError
from forget_jax.randomness import generator

STRATEGIES = ("none", "random", "predicted", "ground_truth")


def weights(z_J: np.ndarray, temperature: float) -> np.ndarray:
    """Sampling weights softmax(z / τ) with τ in standard deviations of the row.

    In units of the row's own spread because a fixed τ collapses onto a handful of examples for
    hard-trained tasks and is uniform for gently trained ones.

    Args:
      z_J: forgetting of each candidate, measured or predicted; NaN is never replayed.
      temperature: τ over the standard deviation of the known values.

    Returns:
      Probabilities over the J candidates; uniform where all values are equal.

    Raises:
      UserError: no known value, or a temperature that is not positive.
    """
    known = np.isfinite(z_J)
    if not known.any():
        raise UserError("no candidate for replay has a known forgetting value")
    if not temperature > 0:
        raise UserError(f"the replay temperature is {temperature}; it must be above 0")
    spread = z_J[known].std()
    score = np.where(known, z_J / (temperature * spread) if spread > 0 else 0.0, -np.inf)
    p = np.exp(score - score[known].max())
    return p / p.sum()


def draw(p_J: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` candidates drawn by weight, without replacement until all have been drawn."""
    rng = generator(seed, "replay draw")
    possible = int((p_J > 0).sum())
    drawn = [
        rng.choice(len(p_J), min(possible, count - start), replace=False, p=p_J)
        for start in range(0, count, possible)
    ]
    return np.concatenate(drawn) if drawn else np.zeros(0, np.int64)
