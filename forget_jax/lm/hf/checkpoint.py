"""Hugging Face checkpoints in and out: config.json and safetensors, single or sharded.

Reading goes slice by slice: each device's part of each parameter is cut out of the mapped files, so
no host ever holds more of the model than its own devices do. Only safetensors are read: the other
formats are pickles, which can run code. Writing puts config.json last: a folder without it is
unfinished.
"""

import json
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax import files
from forget_jax.errors import UserError
from forget_jax.lm.hf import about, families, layout
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.hf.hf_config import write as write_config
from forget_jax.lm.hf.tensor_files import (
    FLOATS,
    INDEX,
    SINGLE,
    Tensors,
    check_finite,
    own_dtype,
    write_tensors,
)
from forget_jax.lm.model import Model
from forget_jax.types import Tree

SHARD_BYTES = 2**31

Sharding = Callable[[str], jax.sharding.Sharding]


def _cut(entry: families.Weight, tensor: Any, index: tuple[slice, ...], heads: int) -> np.ndarray:
    """One layer's part of a parameter, in our layout, out of a tensor in the file's layout."""
    if entry.transposed:
        index = index[::-1]
    if entry.interleaved:
        out = layout.blocked(tensor[(slice(None), *index[1:])], heads)[index[0]]
    else:
        out = tensor[index]
    return out.T if entry.transposed else out


def load(path: files.PathLike, dtype: str | None = None, sharding: Sharding | None = None) -> Model:
    """Reads a Hugging Face checkpoint from a folder, `gs://` or the hub.

    Args:
      dtype: of the parameters in memory (`float32`, `bfloat16`, ...); None keeps each one's own.
      sharding: from a parameter path to where it lies; None puts all on the default device.

    Raises:
      UserError: anything wrong with the checkpoint, in one line that names the file and tensor.
    """
    local = about.folder(path)
    where = os.fspath(path)
    config = about.config(local, where)
    tensors = Tensors(local)
    params: Tree = {}
    all_shapes = layout.shapes(config)
    for leaf, (entry, tensor_names) in layout.names(config, tensors.where, where).items():
        slices = [tensors.slice(n) for n in tensor_names]
        shape = all_shapes[leaf]
        expected = shape[1:] if leaf.startswith("layers/") else shape
        expected = expected[::-1] if entry.transposed else expected
        for name, tensor in zip(tensor_names, slices, strict=True):
            if tuple(tensor.get_shape()) != tuple(expected):
                raise UserError(
                    f"{where}: tensor {name} has shape {tuple(tensor.get_shape())}, "
                    f"but config.json asks for {tuple(expected)}"
                )
            if tensor.get_dtype() not in FLOATS:
                raise UserError(
                    f"{where}: tensor {name} is {tensor.get_dtype()}, not floating point "
                    "(a quantised checkpoint?); load the unquantised original instead"
                )
        stored = _Stored(entry, tensor_names, slices, config.heads, where)
        kind = np.dtype(jnp.dtype(dtype)) if dtype else own_dtype(slices)
        target = None if sharding is None else sharding(leaf)
        layout.put(params, leaf, _leaf(stored, shape, kind, target))
    return Model(config, params)


class _Stored(NamedTuple):
    """One parameter as it lies in files: a tensor a layer, or one."""

    entry: families.Weight
    names: list[str]
    slices: list[Any]
    heads: int
    where: str

    def block(self, index: tuple[slice, ...], kind: np.dtype) -> np.ndarray:
        """A part of the parameter, cut out of the files; its first axis is that of layers."""
        stacked = self.entry.path.startswith("layers/")
        out = np.empty([i.stop - i.start for i in index], kind)
        layers = range(index[0].start, index[0].stop) if stacked else [0]
        for at, layer in enumerate(layers):
            inside = index[1:] if stacked else index
            part = _cut(self.entry, self.slices[layer], inside, self.heads)
            check_finite(part, self.names[layer], self.where)
            _copy(part, out[at] if stacked else out)
        return out


def _leaf(
    stored: _Stored, shape: tuple[int, ...], kind: np.dtype, target: jax.sharding.Sharding | None
) -> jax.Array:
    """One parameter, each device's part cut from the files and put there by itself."""
    if target is None:
        return jnp.asarray(stored.block(tuple(slice(0, n) for n in shape), kind))
    parts: dict[tuple[tuple[int, int], ...], list[jax.Device]] = {}
    for device, index in target.addressable_devices_indices_map(shape).items():
        whole = index or tuple(slice(None) for _ in shape)
        at = tuple(i.indices(n)[:2] for i, n in zip(whole, shape, strict=True))
        parts.setdefault(at, []).append(device)
    arrays = []
    for at, devices in parts.items():  # one part at a time: the host holds no second copy
        host = stored.block(tuple(slice(*span) for span in at), kind)
        arrays += [jax.block_until_ready(jax.device_put(host, d)) for d in devices]
    return jax.make_array_from_single_device_arrays(shape, target, arrays)


def _copy(source: np.ndarray, target: np.ndarray) -> None:
    """Copies and casts; a transposed matrix goes 16 columns at a time (4 times as fast)."""
    if source.ndim < 2 or source.flags.c_contiguous:
        target[...] = source
        return
    for i in range(0, source.shape[1], 16):
        target[:, i : i + 16] = source[:, i : i + 16]


def save(
    path: files.PathLike,
    model: Model,
    tokenizer: Any = None,
    dtype: str | None = None,
    hf_config: dict[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a checkpoint that transformers and its followers load; config.json comes last.

    Args:
      path: the folder, made where it is missing; files of the same names are replaced.
      model: on the host or on devices.
      tokenizer: of transformers, saved beside the weights; None writes none.
      dtype: of the stored tensors; None keeps each one's own.
      hf_config: a `config.json` to keep (of the checkpoint the model came from); None writes one
        from the model's own.
      shard_bytes: the most bytes of tensors in a file; more become shards with an index.

    Raises:
      UserError: the folder cannot be written to.
    """
    target, config = files.Path(path), model.config
    stale = _shards(target)
    entries = {w.path: w for w in families.FAMILIES[config.family].weights}
    plan: list[tuple[str, str, int]] = []  # tensor name, our path, layer
    flat = dict(layout.leaves(model.params))
    kind = {p: np.dtype(jnp.dtype(dtype or x.dtype)) for p, x in flat.items()}
    for leaf in flat:
        name = entries[leaf].name
        count = config.layers if "{}" in name else 1
        plan += [(name.format(i), leaf, i) for i in range(count)]
    plan.sort(key=lambda row: (row[2], row[0]))

    def size(leaf: str) -> int:
        count = flat[leaf].size // (config.layers if leaf.startswith("layers/") else 1)
        return int(count) * kind[leaf].itemsize

    def tensor(leaf: str, layer: int) -> np.ndarray:
        x = flat[leaf][layer] if leaf.startswith("layers/") else flat[leaf]
        out = np.asarray(jax.device_get(x))
        out = out.T if entries[leaf].transposed else out
        out = layout.interleaved(out, config.heads) if entries[leaf].interleaved else out
        stored = np.empty(out.shape, kind[leaf])
        _copy(out, stored)
        return stored

    shards: list[list[tuple[str, str, int]]] = [[]]
    used = 0
    for row in plan:
        if shards[-1] and used + size(row[1]) > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(row)
        used += size(row[1])
    files.remove(target / "config.json")  # until all is there again, the folder is unfinished
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards):
        file = SINGLE if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(target / file, {name: tensor(leaf, at) for name, leaf, at in shard})
        weight_map |= {name: file for name, _, _ in shard}
    for name in stale - set(weight_map.values()):
        files.remove(target / name)
    if len(shards) == 1:
        files.remove(target / INDEX)
    else:
        total = sum(size(leaf) for _, leaf, _ in plan)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        files.write_json(target / INDEX, index)
    if tokenizer is not None:
        tokenizers.save(tokenizer, target)
    stored = str(kind["embed"])
    hf = write_config(config, stored)
    if hf_config:
        hf = dict(hf_config) | {key: stored for key in ("dtype", "torch_dtype") if key in hf_config}
    if tokenizer is not None and hf_config is None:
        for token in ("bos", "eos", "pad"):
            hf[f"{token}_token_id"] = getattr(tokenizer, f"{token}_token_id")
    files.write_text(target / "config.json", json.dumps(hf, indent=1) + "\n")


def _shards(target: files.Path) -> set[str]:
    """The files of weights that an earlier checkpoint left in a folder."""
    if not target.is_dir():
        return set()
    found = (file.name for file in target.iterdir())
    return {name for name in found if re.fullmatch(r"model(-\d{5}-of-\d{5})?\.safetensors", name)}
