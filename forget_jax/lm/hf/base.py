"""A base model with what goes with it: where it came from, its weights and its tokenizer."""

import dataclasses
import sys
from typing import Any

from forget_jax.files import PathLike
from forget_jax.lm import sharding
from forget_jax.lm.hf import about, checkpoint, layout
from forget_jax.lm.model import Model


@dataclasses.dataclass(frozen=True)
class Base:
    """What a run starts from.

    Attributes:
      path: folder, gs:// folder or hub name; adapters are held to it by its fingerprint.
      model: its weights, in the precision that the run computes in.
      tokenizer: of transformers.
      eos_ids: tokens that end what it says, beside the tokenizer's own.
    """

    path: str
    model: Model
    tokenizer: Any
    eos_ids: tuple[int, ...] = ()


def read(path: PathLike) -> Model:
    """A checkpoint, laid out over the entered mesh; errors as for `checkpoint.load`."""
    if sharding.current() is None:
        return checkpoint.load(path)
    shapes = layout.shapes(about.config_of(path))
    if uncut := sharding.whole(shapes):
        print(f"whole on every device, for the mesh does not divide it: {', '.join(uncut)}",
              file=sys.stderr)  # fmt: skip
    where = sharding.over_mesh(shapes)
    return checkpoint.load(path, sharding=where.__getitem__)
