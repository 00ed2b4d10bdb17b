"""PEFT adapters that are more than low-rank updates, merged into their base.

DoRA scales kernels, `bias` and `modules_to_save` replace tensors, and adapters on embeddings and
heads lie outside the layers: what such an adapter computes is a whole model, and exactly so.
"""

import dataclasses
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from forget_jax import files
from forget_jax.errors import UserError
from forget_jax.lm import sharding
from forget_jax.lm.hf import families, fingerprint, layout, peft_config
from forget_jax.lm.hf.tensor_files import Tensors, check_finite
from forget_jax.lm.model import Model
from forget_jax.types import Tree

PART = r"(?P<module>.+)\.(?P<part>lora_(?:embedding_)?[AB]|lora_magnitude_vector)(?:\.weight)?"


class Place(NamedTuple):
    """Where a tensor of a Hugging Face checkpoint lies in our tree."""

    weight: families.Weight
    layer: int | None


def held(tensors: Tensors, where: str) -> dict[str, str]:
    """The name of every tensor of an adapter's file, by its name without PEFT's wrapping.

    Raises:
      UserError: two names that come to one.
    """
    found: dict[str, str] = {}
    for name in sorted(tensors.where):
        bare = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        bare = re.sub(r"\.(modules_to_save\.default|modules_to_save|default)(?=\.|$)", "", bare)
        if bare in found:
            raise UserError(f"{where}: {found[bare]} and {name} are both {bare}")
        found[bare] = name
    return found


def is_plain(names: Iterable[str]) -> bool:
    """Whether all tensors are low-rank updates of the layers' kernels."""
    heads = ("lm_head.", "embed_out.")
    return all(
        re.fullmatch(r".+\.lora_[AB]\.weight", name) and not name.startswith(heads)
        for name in names
    )


def load(path: files.PathLike, model: Model, base: str | None = None) -> Model:
    """The base with an adapter merged into it, in fp32 where it changed something.

    Args:
      path: a local folder, a `gs://` folder or a hub name.
      model: the base, on the host or on the entered mesh, as the result is.
      base: where it comes from; None compares shapes only.

    Raises:
      UserError: what does not fit the base, names another or is not covered.
    """
    where = os.fspath(path)
    local = peft_config.folder(path)
    config = peft_config.read(local, where)
    if base is not None:
        fingerprint.check(where, local, config.base, base)
    tensors = Tensors(local, peft_config.TENSORS)
    names = held(tensors, where)
    tree = _Tree(model, where)
    left = set(names)
    for name in sorted(names):
        if name in tree.places:  # replaced as a whole: modules_to_save and biases
            tree.replace(name, tensors.read(names[name]))
            left.discard(name)
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name in sorted(left):
        found = re.fullmatch(PART, name)
        if found is None or f"{found['module']}.weight" not in tree.places:
            raise tree.refused(name)
        parts.setdefault(found["module"], {})[found["part"]] = tensors.read(names[name])
    of = config.of(list(parts))
    for module, by_part in parts.items():
        target = f"{module}.weight"
        weight = tree.places[target].weight
        turned = weight.path.endswith("/kernel") and not weight.transposed  # a Conv1D: in × out
        w = tree.of(target).T if turned else tree.of(target)
        w = _updated(w, by_part, *of[module], config.dora, f"{where}: {module}")
        tree.replace(target, w.T if turned else w)
    return tree.model(config.ties)


@np.errstate(all="ignore")  # what is not finite is refused where it is put
def _updated(
    w_FxD: np.ndarray,
    parts: dict[str, np.ndarray],
    rank: int,
    scale: float,
    dora: bool,
    where: str,
) -> np.ndarray:
    """W + scale · B A, and under DoRA its rows at the magnitudes learned (arXiv 2402.09353, eq. 5).

    Args:
      w_FxD: the weight, out × in; of an embedding, tokens × features.
      parts: PEFT's tensors by the ends of their names.
      dora: whether there must be magnitudes.
      where: the module's name for people.
    """
    embedded = "lora_embedding_A" in parts
    names = ("lora_embedding_A", "lora_embedding_B") if embedded else ("lora_A", "lora_B")
    allowed = {*names, "lora_magnitude_vector"} if dora else set(names)
    a, b = map(parts.get, names)
    F, D = w_FxD.shape
    wanted = ((rank, F), (D, rank)) if embedded else ((rank, D), (F, rank))
    if a is None or b is None or (a.shape, b.shape) != wanted:
        shown = [None if x is None else x.shape for x in (a, b)]
        raise UserError(f"{where} has shapes {shown}, the base and rank ask for {list(wanted)}")
    if set(parts) != allowed:
        wrong = min(set(parts) ^ allowed)
        state = "there" if wrong in parts else "missing"
        raise UserError(f"{where}.{wrong} is {state}, but use_dora is {str(dora).lower()}")
    update_FxD = scale * ((b @ a).T if embedded else b @ a)
    if not dora:
        return w_FxD + update_FxD
    magnitude = parts["lora_magnitude_vector"]
    if embedded or magnitude.size != F:
        raise UserError(f"{where}: these magnitudes of DoRA are not covered")
    merged_FxD = w_FxD + update_FxD
    norm_Fx1 = np.linalg.norm(merged_FxD, axis=1, keepdims=True)
    return np.asarray(magnitude.reshape(F, 1) / norm_Fx1 * merged_FxD)


def _places(model: Model) -> dict[str, Place]:
    """Every tensor's name in a checkpoint of this model's family, and where it lies here."""
    config = model.config
    found = {}
    have = dict(layout.leaves(model.params))
    for weight in families.FAMILIES[config.family].weights:
        if weight.path in have or weight.path == "head":
            stacked = weight.path.startswith("layers/")
            for layer in range(config.layers if stacked else 1):
                found[weight.name.format(layer)] = Place(weight, layer if stacked else None)
    return found


class _Tree:
    """The base's tree, in which single tensors are replaced on copies of their leaves."""

    def __init__(self, model: Model, where: str):
        self.base, self.where = model, where
        self.places = _places(model)
        self.have = dict(layout.leaves(model.params))
        self.changed: dict[str, np.ndarray] = {}

    def refused(self, name: str) -> UserError:
        """What is said of a tensor that the base has no place for."""
        family = self.base.config.family
        return UserError(f"{self.where}: tensor {name} has no place in this {family} model")

    def _leaf(self, path: str) -> np.ndarray:
        """A leaf in fp32 on the host, which may be changed in place."""
        if path not in self.changed:
            tied = path == "head" and path not in self.have  # becomes one of its own
            x = self.have["embed" if tied else path]
            here = getattr(x, "is_fully_addressable", True)
            x = np.array(x if here else sharding.fetch(x), np.float32)
            self.changed[path] = x.T if tied else x
        return self.changed[path]

    def of(self, name: str) -> np.ndarray:
        """A tensor as a checkpoint has it."""
        weight, layer = self.places[name]
        x = self._leaf(weight.path)
        x = x if layer is None else x[layer]
        x = x.T if weight.transposed else x
        return layout.interleaved(x, self.base.config.heads) if weight.interleaved else x

    def replace(self, name: str, x: np.ndarray) -> None:
        """Puts a tensor in the place of the base's."""
        weight, layer = self.places[name]
        shape = self.of(name).shape
        longer = weight.path in ("embed", "head") and x.ndim == 2 and len(x) > shape[0]
        if x.shape != shape and not (longer and x.shape[1:] == shape[1:]):
            raise UserError(
                f"{self.where}: {name} has shape {x.shape}, the base {shape}: another model"
            )
        check_finite(x, name, self.where)
        x = layout.blocked(x, self.base.config.heads) if weight.interleaved else x
        x = x.T if weight.transposed else x
        if layer is None:
            self.changed[weight.path] = np.ascontiguousarray(x)
        else:
            self._leaf(weight.path)[layer] = x

    def model(self, ties: bool) -> Model:
        """The whole model.

        An adapter's embedding is a copy, so a head that was tied to the base's stays as that was.

        Args:
          ties: whether it was trained with the head tied to that copy.
        """
        if ties and self.base.config.tied_head and {"embed", "head"} & set(self.changed):
            raise UserError(f"{self.where}: ensure_weight_tying is not covered; merge it with PEFT")
        if "embed" in self.changed and "head" not in self.have:
            self._leaf("head")
        vocab_size = self._vocab_size()
        new: Tree = {}
        for path, value in self.changed.items():
            layout.put(new, path, value)
        params: Tree = {}
        for path, value in (self.have | dict(layout.leaves(sharding.put(new)))).items():
            layout.put(params, path, value)
        config = dataclasses.replace(
            self.base.config, tied_head="head" not in params, vocab_size=vocab_size
        )
        return Model(config, params)

    def _vocab_size(self) -> int:
        """How many tokens the embedding and the head have, which must be as many."""
        leaves = self.have | self.changed
        embed, head = leaves["embed"], leaves.get("head")
        if head is not None and embed.shape[0] != head.shape[1]:
            raise UserError(
                f"{self.where}: the embedding has {embed.shape[0]} tokens, the head "
                f"{head.shape[1]}: a vocabulary that was resized is taken where both are saved"
            )
        return int(embed.shape[0])
