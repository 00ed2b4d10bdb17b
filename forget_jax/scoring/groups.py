"""Adapters in groups that one compiled function scores: those of one setting and one set of shapes.

The base is scored with the first group, as an adapter of zeros.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from forget_jax.lm.model import Adapters, stack


def groups(
    base: str, adapters: Iterable[tuple[str, Adapters]]
) -> Iterator[tuple[Adapters | None, list[str]]]:
    """Stacks of adapters with the names of their rows in a table; the base's is the first.

    Args:
      base: what the base is called.
      adapters: names and single adapters, each with settings and ranks of its own.

    Yields:
      A stack on the host, or None for the base where there are no adapters, and names.
    """
    found: dict[object, dict[str, Adapters]] = {}
    for name, adapter in adapters:
        config = dataclasses.replace(adapter.config, dropout=0.0)  # of training only
        one = Adapters(config, jax.tree.map(np.asarray, adapter.tree))
        shapes = tuple((str(p), x.shape) for p, x in jax.tree_util.tree_leaves_with_path(one.tree))
        found.setdefault((config, shapes), {})[name] = one
    if not found:
        yield None, [base]
    for number, members in enumerate(found.values()):
        adapters_K = stack(list(members.values()))
        if number:
            yield adapters_K, list(members)
        else:
            yield adapters_K.with_base(), [base, *members]
