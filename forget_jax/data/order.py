"""The global example index: which example is consumed when.

A pure function of seed and position, so a resumed run sees exactly the rows that an undisturbed one
would, whatever the number of processes or devices.
"""

import functools

import numpy as np

from forget_jax.randomness import generator


@functools.lru_cache(maxsize=256)
def _epoch(seed: int, epoch: int, n: int) -> np.ndarray:
    return generator(seed, "order of rows", epoch).permutation(n)


def rows(seed: int, n: int, start: int, count: int) -> np.ndarray:
    """Indices into n examples for positions start … start+count−1 of an endless reshuffled stream.

    Every epoch visits each example once, in an order drawn from (seed, epoch).

    Returns:
      int64 (count,).
    """
    position = np.arange(start, start + count)
    return np.array([_epoch(seed, int(p // n), n)[p % n] for p in position], np.int64)
