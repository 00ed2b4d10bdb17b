"""The values that go together: a model, its adapters, and a batch of rows.

Each is a pytree whose setting is static, so that a compiled function takes it as one argument and
is compiled once for each setting.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.lora import LoRAConfig
from forget_jax.types import Array, Tree


@functools.partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["config"])
@dataclasses.dataclass(frozen=True)
class Model:
    """A decoder: its shape and its parameters.

    Attributes:
      config: static.
      params: nested dicts of arrays, with a leading layer axis under `layers`.
    """

    config: DecoderConfig
    params: Tree = dataclasses.field(repr=False)

    @property
    def dtype(self) -> str:
        """Of the parameters, by the first of them."""
        return str(jax.tree.leaves(self.params)[0].dtype)

    def computing(self, **switches: object) -> "Model":
        """The same parameters under other switches, such as `dtype` or `remat`."""
        return Model(dataclasses.replace(self.config, **switches), self.params)  # type: ignore[arg-type]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["tree"], meta_fields=["config"])
@dataclasses.dataclass(frozen=True)
class Adapters:
    """LoRA adapters of one setting: a single one, or a stack of K with a leading axis.

    Attributes:
      config: static; its scaling is not yet applied to `tree`.
      tree: `{path: {a, b}}` beside the base, fp32; `a` (layers, D, r) and `b` (layers, r, F), a
        stack's with K in front.
    """

    config: LoRAConfig
    tree: Tree = dataclasses.field(repr=False)

    @property
    def count(self) -> int:
        """K, of a stack."""
        return int(jax.tree.leaves(self.tree)[0].shape[0])

    @property
    def on_host(self) -> bool:
        """Whether the arrays are numpy's, still to be put on devices."""
        return isinstance(jax.tree.leaves(self.tree)[0], np.ndarray)

    def __getitem__(self, which: int | slice | np.ndarray) -> "Adapters":
        """One adapter of a stack, or some of them as a stack."""
        return Adapters(self.config, jax.tree.map(lambda x: x[which], self.tree))

    def __iter__(self) -> Iterator["Adapters"]:
        """The adapters of a stack, one after the other."""
        return (self[k] for k in range(self.count))

    def with_base(self) -> "Adapters":
        """A stack with an adapter of zeros in front: the base, scored by the same program."""
        xp = np if self.on_host else jnp
        first = jax.tree.map(lambda x: xp.concatenate([xp.zeros_like(x[:1]), x]), self.tree)
        return Adapters(self.config, first)


def trainable(model: Model, adapters: Adapters | None) -> Tree:
    """What is trained: the adapters' tree where there are some, else the whole model's."""
    return model.params if adapters is None else adapters.tree


def with_trainable(
    model: Model, adapters: Adapters | None, tree: Tree
) -> tuple[Model, Adapters | None]:
    """The same with another tree in the place of what is trained."""
    if adapters is None:
        return Model(model.config, tree), None
    return model, Adapters(adapters.config, tree)


def stack(adapters: Sequence[Adapters]) -> Adapters:
    """Single adapters of one setting and one set of shapes as a stack, on the host."""
    trees = [one.tree for one in adapters]
    return Adapters(adapters[0].config, jax.tree.map(lambda *x: np.stack(x), *trees))


class Batch(NamedTuple):
    """Rows of tokens, right-padded; fields of packing are None where a row holds one example.

    Attributes:
      ids_BxL: int32 token ids; what pads them does not matter.
      position_BxL: position within the example; None counts from 0 in every row.
      segment_BxL: number of the example within its row, from 1 (0: padding); None where a row
        holds one example.
      at_BxT: where in the row each target is predicted from.
      target_BxT: the token id predicted there.
      weight_BxT: 1 for a target, 0 for padding (fp32).
      slot_BxT: which of the row's E examples the target belongs to.
      example_BxE: the index of each example in its data set, -1 for none.
    """

    ids_BxL: Array
    position_BxL: Array | None = None
    segment_BxL: Array | None = None
    at_BxT: Array = None
    target_BxT: Array = None
    weight_BxT: Array = None
    slot_BxT: Array = None
    example_BxE: Array = None
