"""Which upstream examples to replay, given what is known of a task's forgetting.

A strategy says how much each example should be replayed, from what is known; `weights` makes
sampling weights of that (arXiv 2406.14026 §5, lowrank.md §5). No jax here: settings name the
strategies.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from forget_jax.errors import UserError
from forget_jax.randomness import generator


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of one task's forgetting of the J upstream examples, in the matrix's unit.

    Attributes:
      own_J: measured; NaN where it was not.
      others_MxJ: of the matrix's other tasks.
      predicted_J: completed from the others and from the few of its own that may be seen.
    """

    own_J: np.ndarray
    others_MxJ: np.ndarray
    predicted_J: np.ndarray


# From what is known: value_J, the more the likelier the example is replayed; NaN for never.
Strategy = Callable[[Known], np.ndarray]

# By name; None replays nothing.
STRATEGIES: Mapping[str, Strategy | None] = {
    "none": None,
    "random": lambda known: np.zeros(len(known.own_J)),
    "predicted": lambda known: known.predicted_J,
    "ground_truth": lambda known: known.own_J,
}


def paired() -> list[tuple[str, str]]:
    """Which strategies are compared: every one with random replay, and that with none."""
    chosen = [name for name in STRATEGIES if name not in ("none", "random")]
    return [*((name, "random") for name in chosen), ("random", "none")]


def weights(value_J: np.ndarray, temperature: float) -> np.ndarray:
    """Sampling weights softmax(value / τ) with τ in standard deviations of the values.

    In units of their own spread because a fixed τ collapses onto a handful of examples for
    hard-trained tasks and is uniform for gently trained ones.

    Args:
      value_J: of each candidate by a strategy, such as its forgetting; NaN is never replayed.
      temperature: τ over the standard deviation of the known values.

    Returns:
      Probabilities over the J candidates; uniform where all values are equal.

    Raises:
      UserError: no known value, or a temperature that is not positive.
    """
    known = np.isfinite(value_J)
    if not known.any():
        raise UserError("no candidate for replay has a known forgetting value")
    if not temperature > 0:
        raise UserError(f"the replay temperature is {temperature}; it must be above 0")
    scale = temperature * value_J[known].std()
    is_some = scale > np.finfo(float).tiny  # one may divide by it
    score = np.where(known, value_J / scale if is_some else 0.0, -np.inf)
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
