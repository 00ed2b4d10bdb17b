"""Rows of tokens, held in few bytes: a data set may have millions of them."""

from collections.abc import Sequence

import numpy as np


class Encoded:
    """One row of tokens: a whole example, what was kept of it, or one window of it.

    Attributes:
      name, source: of the example.
      cut: how many tokens were cut to fit the context; at least so many of a text that is too long
        to be tokenised whole.
      window: which window of a long example this is, from 1; 0 for a row that is all there is.
    """

    __slots__ = ("_ids", "_is_target", "cut", "name", "source", "window")

    def __init__(
        self,
        name: str,
        source: str,
        ids: np.ndarray,
        is_target: np.ndarray,
        cut: int = 0,
        window: int = 0,
    ) -> None:
        self.name, self.source = name, source
        self.cut, self.window = cut, window
        # two bytes objects take a third of two arrays
        self._ids = np.asarray(ids, np.int32).tobytes()
        self._is_target = np.asarray(is_target, bool).tobytes()

    @property
    def ids(self) -> np.ndarray:
        """The tokens: int32 (L,), not to be written to."""
        return np.frombuffer(self._ids, np.int32)

    @property
    def is_target(self) -> np.ndarray:
        """Whether predicting each token from those before it is scored: bool (L,)."""
        return np.frombuffer(self._is_target, bool)

    @property
    def tokens(self) -> int:
        """Number of target tokens."""
        return self._is_target.count(1)


def stream(encoded: Sequence[Encoded], length: int) -> list[Encoded]:
    """One long row of all examples, cut into blocks of `length` tokens: nothing lost, no padding.

    Every token but a block's first is a target. For pretraining; a last, shorter block is kept
    where it has at least two tokens.
    """
    ids = np.concatenate([e.ids for e in encoded])
    blocks = [ids[i : i + length] for i in range(0, len(ids) - 1, length)]
    return [
        Encoded(f"block{i}", "stream", block, np.arange(len(block)) > 0)
        for i, block in enumerate(blocks)
    ]
