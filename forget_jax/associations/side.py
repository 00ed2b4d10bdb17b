"""What is known of a matrix's columns beside their entries, as features for `auto`."""

import collections
from collections.abc import Sequence

import numpy as np

FEWEST = 5  # columns of a source that has a feature of its own
MOST = 20  # sources that have


def features(
    sources: Sequence[str] = (), nll_N: np.ndarray | None = None, tokens_N: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Kinds of features (p × N), each of which is weighed by itself.

    Args:
      sources: N names, or none; of `wiki/en` the first part counts, where that tells any apart.
      nll_N, tokens_N: of each example under the base, nats a token and target tokens; or None.

    Returns:
      `loss and length`: the loss and the logarithm of the tokens, where both are known of every
      column; `source`: one feature for each of the larger sources.
    """
    found = {}
    if nll_N is not None and tokens_N is not None:
        rows_2xN = np.stack([nll_N, np.log(np.maximum(tokens_N, 1))])
        if np.isfinite(rows_2xN).all():
            found["loss and length"] = rows_2xN
    firsts = [name.split("/")[0] for name in sources]
    named = firsts if len(set(firsts)) > 1 else list(sources)
    common = [name for name, n in collections.Counter(named).most_common(MOST) if n >= FEWEST]
    if len(set(named)) > 1 and common:
        found["source"] = np.array([[x == name for x in named] for name in common], float)
    return found
