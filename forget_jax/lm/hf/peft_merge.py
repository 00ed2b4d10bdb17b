"""PEFT adapters that are more than low-rank updates, merged into their base.

DoRA scales kernels, `bias` and `modules_to_save` replace tensors, and adapters on embeddings and
heads lie outside the layers: what such an adapter computes is a whole model, and exactly so.
"""

import dataclasses
import os
import re
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from forget_jax import files
from forget_jax.errors import UserError
from forget_jax.lm.hf import checkpoint, families, fingerprint, peft_config
from forget_jax.lm.hf.peft_config import PeftConfig
from forget_jax.lm.hf.tensor_files import Tensors
from forget_jax.lm.model import Model
from forget_jax.types import Tree

UPDATES = r"(.+)\.lora_(?:embedding_)?([AB])(?:\.weight)?"
MAGNITUDE = r"(.+)\.lora_magnitude_vector(?:\.weight)?"


class Place(NamedTuple):
    """Where a tensor of a Hugging Face checkpoint lies in our tree."""

    weight: families.Weight
    layer: int | None


def bare(name: str) -> str:
    """A tensor's name without what PEFT wraps around it."""
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    name = name.replace(".modules_to_save.default.", ".").replace(".modules_to_save.", ".")
    return name.replace(".default", "")


def is_plain(names: list[str]) -> bool:
    """Whether all tensors are low-rank updates of the layers' kernels."""
    return all(re.fullmatch(r".+\.lora_[AB]\.weight", bare(name)) for name in names) and not any(
        bare(name).startswith(("lm_head.", "embed_out.")) for name in names
    )


def load(path: files.PathLike, model: Model, base: str | None = None) -> Model:
    """The base with an adapter merged into it, in fp32 where it changed something.

    Args:
      path: a local folder, a `gs://` folder or a hub name.
      model: the base.
      base: where it comes from; None compares shapes only.

    Raises:
      UserError: what does not fit the base, names another or is not covered.
    """
    where = os.fspath(path)
    local = checkpoint.folder(path)
    config = peft_config.read(local, where)
    if base is not None:
        fingerprint.check(where, local, config.base, base)
    tensors = Tensors(local, peft_config.TENSORS)
    held = {bare(name): name for name in sorted(tensors.where)}
    if len(held) < len(tensors.where):
        raise UserError(f"{where}: two tensors of one name")
    places = _places(model)
    tree = _Tree(model, places)
    left = set(held)
    for name in sorted(held):
        if name in places:  # replaced as a whole: modules_to_save and biases
            tree.replace(name, np.asarray(tensors.read(held[name]), np.float32), where)
            left.discard(name)
    modules = {m[1] for name in held if (m := re.fullmatch(UPDATES, name))}
    for module in sorted(modules):
        target = f"{module}.weight"
        if target not in places:
            raise UserError(f"{where}: module {module} has no place in this {tree.family} model")
        mine = [n for n in sorted(left) if _module(n) == module]
        parts = {n: np.asarray(tensors.read(held[n]), np.float32) for n in mine}
        left -= set(mine)
        tree.replace(target, _updated(tree.of(target), module, parts, config, where), where)
    if left:
        raise UserError(f"{where}: tensor {min(left)} has no place in this {tree.family} model")
    return tree.model()


def _module(name: str) -> str | None:
    found = re.fullmatch(UPDATES, name) or re.fullmatch(MAGNITUDE, name)
    return found[1] if found else None


def _updated(
    w_FxD: np.ndarray, module: str, parts: dict[str, np.ndarray], config: PeftConfig, where: str
) -> np.ndarray:
    """W + scale · B A, and under DoRA its rows at the magnitudes learned (arXiv 2402.09353, eq. 5).

    Args:
      w_FxD: the weight as the checkpoint has it, out × in; of an embedding, tokens × features.
    """
    rank, scale = config.of(module)
    by_end = {
        name.removeprefix(f"{module}.").removesuffix(".weight"): x for name, x in parts.items()
    }
    embedded = "lora_embedding_A" in by_end
    infix = "embedding_" if embedded else ""
    a, b = by_end.get(f"lora_{infix}A"), by_end.get(f"lora_{infix}B")
    F, D = w_FxD.shape
    wanted = ((rank, F), (D, rank)) if embedded else ((rank, D), (F, rank))
    if a is None or b is None or (a.shape, b.shape) != wanted:
        shown = [None if x is None else x.shape for x in (a, b)]
        raise UserError(f"{where}: {module} has shapes {shown}, the base and rank ask for {wanted}")
    update_FxD = scale * ((b @ a).T if embedded else b @ a)
    magnitude = by_end.get("lora_magnitude_vector")
    if magnitude is None:
        if config.dora:
            raise UserError(f"{where}: {module} has no lora_magnitude_vector, but use_dora is true")
        return w_FxD + update_FxD
    if embedded or magnitude.size != F:
        raise UserError(f"{where}: {module}: these magnitudes of DoRA are not covered")
    merged_FxD = w_FxD + update_FxD
    norm_Fx1 = np.linalg.norm(merged_FxD, axis=1, keepdims=True)
    return np.asarray(magnitude.reshape(F, 1) / norm_Fx1 * merged_FxD)


def _places(model: Model) -> dict[str, Place]:
    """Every tensor's name in a checkpoint of this model's family, and where it lies here."""
    config = model.config
    found = {}
    have = dict(checkpoint.leaves(model.params))
    for weight in families.FAMILIES[config.family].weights:
        if weight.path in have or weight.path == "head":
            stacked = weight.path.startswith("layers/")
            for layer in range(config.layers if stacked else 1):
                found[weight.name.format(layer)] = Place(weight, layer if stacked else None)
    return found


class _Tree:
    """The base's tree, in which single tensors are replaced on copies of their leaves."""

    def __init__(self, model: Model, places: dict[str, Place]):
        self.base, self.places = model, places
        self.family = model.config.family
        self.changed: dict[str, np.ndarray] = {}
        self.have = dict(checkpoint.leaves(model.params))

    def _leaf(self, path: str) -> np.ndarray:
        if path in self.changed:
            return self.changed[path]
        if path == "head" and path not in self.have:  # a tied head that becomes one of its own
            return np.array(self.have["embed"], np.float32).T
        return np.array(self.have[path], np.float32)

    def of(self, name: str) -> np.ndarray:
        """A tensor as a checkpoint has it."""
        weight, layer = self.places[name]
        x = self._leaf(weight.path)
        x = x if layer is None else x[layer]
        x = x.T if weight.transposed else x
        return checkpoint.interleaved(x, self.base.config.heads) if weight.interleaved else x

    def replace(self, name: str, x: np.ndarray, where: str) -> None:
        """Puts a tensor in the place of the base's."""
        weight, layer = self.places[name]
        if x.shape != self.of(name).shape:
            raise UserError(
                f"{where}: {name} has shape {x.shape}, the base {self.of(name).shape}: a resized "
                "vocabulary or another model"
            )
        x = checkpoint.blocked(x, self.base.config.heads) if weight.interleaved else x
        x = x.T if weight.transposed else x
        leaf = self._leaf(weight.path)
        if layer is None:
            leaf = np.ascontiguousarray(x)
        else:
            leaf[layer] = x
        self.changed[weight.path] = leaf

    def model(self) -> Model:
        """The whole model.

        An adapter's embedding is a copy, so a head that was tied to the base's stays as that was.
        """
        params: Tree = {}
        if "embed" in self.changed and "head" not in self.have | self.changed:
            self.changed["head"] = np.array(self.have["embed"], np.float32).T
        for path, value in (self.have | self.changed).items():
            new: Any = jnp.asarray(value) if path in self.changed else value
            checkpoint.put(params, path, new)
        config = dataclasses.replace(self.base.config, tied_head="head" not in params)
        return Model(config, params)
