"""Mixing further examples into a task's stream: replay of upstream examples, REMIX's generic rows.

The result is an explicit order of consumption, so that resuming stays a matter of the step alone.
"""

import numpy as np

from forget_jax.data import order
from forget_jax.randomness import generator


def inserted(n_task: int, total_task: int, mixed: np.ndarray, seed: int) -> np.ndarray:
    """A task's own stream with mixed examples inserted at random places.

    The stream of task examples is the one that training without mixing would see, then it is
    shuffled together with the insertions (arXiv 2406.14026).

    Args:
      n_task: the task's examples, numbered from 0; mixed examples are numbered from n_task on.
      total_task: task examples to consume.
      mixed: which mixed examples to insert, numbered from 0.

    Returns:
      int64 order of total_task + len(mixed) indices.
    """
    own = order.rows(seed, n_task, 0, total_task)
    together = np.concatenate([own, n_task + np.asarray(mixed, np.int64)])
    return generator(seed, "mixing").permutation(together)
