"""Where each parameter lies in a checkpoint's files: tensor names, shapes and the order of rows."""

import functools
import re
from collections.abc import Collection, Iterator
from typing import Any

import jax
import numpy as np

from forget_jax.errors import UserError
from forget_jax.lm.decoder import DecoderConfig, init
from forget_jax.lm.hf import families
from forget_jax.types import Tree


def leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Paths such as `layers/attn/q/kernel` and their leaves, sorted.

    Args:
      tree: nested dicts.
      prefix: in front of every path; ends with a slash where it is not empty.
    """
    for name, value in sorted(tree.items()):
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


def put(tree: Tree, path: str, value: Any) -> None:
    """Sets the leaf at a path of nested dicts in place, making the dicts on its way."""
    *parents, last = path.split("/")
    for name in parents:
        tree = tree.setdefault(name, {})
    tree[last] = value


@functools.lru_cache(maxsize=16)  # tracing the decoder takes a tenth of a second or more
def shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Path and shape of every parameter, the layer axis first, without allocating any."""
    tree = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    return {path: leaf.shape for path, leaf in leaves(tree)}


def name(family: families.Family, path: str, tensors: Collection[str]) -> str:
    """What a parameter is called in files that hold `tensors`; `{}` stands for the layer.

    Files of a model without its head leave out the prefix that the family's names begin with.
    """
    called = {w.path: w.name for w in family.weights}
    embed = called["embed"]
    bare = embed not in tensors and embed.removeprefix(family.prefix) in tensors
    return called[path].removeprefix(family.prefix) if bare else called[path]


def names(
    config: DecoderConfig, tensors: dict[str, Any], where: str
) -> dict[str, tuple[families.Weight, list[str]]]:
    """For every parameter path, its entry and tensor names (one per layer).

    Args:
      tensors: what the files hold, by tensor name; the values do not matter.
      where: the checkpoint's name for people.

    Raises:
      UserError: a missing tensor, or one that the decoder would leave out.
    """
    family = families.FAMILIES[config.family]
    entries = {w.path: w for w in family.weights}
    found = {}
    for path in shapes(config):
        entry = entries[path]
        called = name(family, path, tensors)
        count = config.layers if "{}" in called else 1
        found[path] = entry, [called.format(i) for i in range(count)]
    wanted = {n for _, ns in found.values() for n in ns}
    if missing := sorted(wanted - set(tensors)):
        raise UserError(f"{where}: tensor {missing[0]} is missing ({len(missing)} in all)")
    ignored = re.compile(family.ignored)
    extra = [n for n in sorted(set(tensors) - wanted) if not ignored.fullmatch(n)]
    if config.tied_head:
        extra = [n for n in extra if n != entries["head"].name]
    if extra:
        raise UserError(
            f"{where}: tensor {extra[0]} has no place in a {config.family} model of this "
            f"config.json ({len(extra)} such in all): the model would not be the same without it"
        )
    return found


def blocked(x: np.ndarray, heads: int) -> np.ndarray:
    """Rows in the order (head, q/k/v, head_dim) to (q/k/v, head, head_dim).

    Args:
      x: its first axis has 3·heads·head_dim rows.
      heads: query heads, of which there are as many key and value heads.
    """
    return np.swapaxes(x.reshape(heads, 3, -1, *x.shape[1:]), 0, 1).reshape(x.shape)


def interleaved(x: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `blocked`, whose arguments it takes."""
    return np.swapaxes(x.reshape(3, heads, -1, *x.shape[1:]), 0, 1).reshape(x.shape)
