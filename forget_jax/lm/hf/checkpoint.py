"""Hugging Face checkpoints in and out: config.json and safetensors, single or sharded.

Reading goes slice by slice: each device's part of each parameter is cut out of the mapped files, so
no host ever holds more of the model than its own devices do. Only safetensors are read: the other
formats are pickles, which can run code. Writing puts config.json last: a folder without it is
unfinished.
"""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path as LocalPath
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax import files, foreign
from forget_jax.errors import UserError
from forget_jax.lm.config import MOST
from forget_jax.lm.decoder import DecoderConfig, init
from forget_jax.lm.hf import families, gguf
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.hf.hf_config import read as read_config
from forget_jax.lm.hf.hf_config import write as write_config
from forget_jax.lm.hf.tensor_files import (
    FLOATS,
    INDEX,
    SINGLE,
    Tensors,
    check_finite,
    write_tensors,
)
from forget_jax.lm.model import Model
from forget_jax.types import Tree

SHARD_BYTES = 2**31
HEAD_ROWS = 8192  # of a head that are compared with the embedding's at a time
EMBEDDING = re.compile(r"(^|\.)(embed_tokens|embed_in|wte)\.weight$")

Sharding = Callable[[str], jax.sharding.Sharding]


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


def folder(path: files.PathLike) -> LocalPath:
    """A local folder for a local path, a `gs://` folder (copied) or a hub name (downloaded).

    A GGUF file's is in the cache, where it is made at first (`gguf`).

    Raises:
      UserError: nothing there that is a folder, or no such model on the hub.
    """
    name = os.fspath(path)
    if not files.is_local(name):
        return tokenizers.fetch(name, lambda f: f.endswith((".json", ".safetensors")))
    local = LocalPath(name)
    if local.is_dir():
        return local
    if name.endswith(gguf.ENDING):
        return gguf.folder(name)
    if local.exists() or tokenizers.is_folder_name(name):
        raise UserError(f"{name} is not a folder with a checkpoint")
    import huggingface_hub

    try:
        return LocalPath(
            huggingface_hub.snapshot_download(name, allow_patterns=["*.json", "*.safetensors"])
        )
    except Exception as e:
        reason = " ".join(str(e).split())[:200]
        raise UserError(f"{name} is neither a folder nor a model on the hub: {reason}") from e


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
    bare = entries["embed"].name not in tensors
    prefix = family.prefix if bare and family.prefix else ""
    found = {}
    for path in shapes(config):
        entry = entries[path]
        name = entry.name.removeprefix(prefix)
        count = config.layers if "{}" in name else 1
        found[path] = entry, [name.format(i) for i in range(count)]
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


def _cut(entry: families.Weight, tensor: Any, index: tuple[slice, ...], heads: int) -> np.ndarray:
    """One layer's part of a parameter, in our layout, out of a tensor in the file's layout."""
    if entry.transposed:
        index = index[::-1]
    if entry.interleaved:
        out = blocked(tensor[(slice(None), *index[1:])], heads)[index[0]]
    else:
        out = tensor[index]
    return out.T if entry.transposed else out


def config_of(path: files.PathLike) -> DecoderConfig:
    """The configuration of a checkpoint, without its weights; errors as for `load`."""
    return _config(folder(path), os.fspath(path))


def dtype_of(path: files.PathLike) -> str:
    """The dtype of the embedding, such as `bfloat16`; errors as for `load`.

    It stands for most of a checkpoint's parameters.
    """
    local = folder(path)
    config, tensors = _config(local, os.fspath(path)), Tensors(local)
    _, found = names(config, tensors.where, os.fspath(path))["embed"]
    return str(_own_dtype([tensors.slice(n) for n in found]))


def raw_config(path: files.PathLike) -> dict[str, Any]:
    """The `config.json` of a checkpoint as it stands, to keep beside changed weights.

    Raises:
      UserError: no such folder, or a file that is missing or no JSON.
    """
    file = folder(path) / "config.json"
    return foreign.record(files.read_json(file), os.fspath(file))


GENERATION = "generation_config.json"


def eos_ids(path: files.PathLike) -> tuple[int, ...]:
    """The tokens that end what a checkpoint says: its generation_config.json may list several.

    Raises:
      UserError: no checkpoint there, or ids that are none.
    """
    local = folder(path)
    for name in (GENERATION, "config.json"):
        file = local / name
        held = foreign.record(files.read_json(file), str(file)) if file.exists() else {}
        value = held.get("eos_token_id")
        if value is not None:
            ids = value if isinstance(value, list) else [value]
            if any(type(i) is not int or not 0 <= i < MOST["vocab_size"] for i in ids):
                said = foreign.in_words(value)
                raise UserError(
                    f"{file}: eos_token_id is {said}; it must be a token's id or a list"
                )
            return tuple(ids)
    return ()


def keep_generation_config(path: files.PathLike, target: files.PathLike) -> None:
    """Puts a checkpoint's generation_config.json beside weights made of it, if it has one."""
    file = folder(path) / GENERATION
    if file.is_file():
        files.write_bytes(files.Path(target) / GENERATION, file.read_bytes())


def _config(local: LocalPath, where: str) -> DecoderConfig:
    if not (local / "config.json").exists():
        raise UserError(f"{where} holds no config.json: not a checkpoint, or an unfinished one")
    config = read_config(files.read_json(local / "config.json"), f"{where}/config.json")
    head = next(w for w in families.FAMILIES[config.family].weights if w.path == "head")
    if config.tied_head and has_own_head(local, head.name):
        return dataclasses.replace(config, tied_head=False)
    return config


def has_own_head(local: LocalPath, head: str) -> bool:
    """Whether a checkpoint that calls its head tied holds another one all the same.

    transformers loads that one, untied.
    """
    if not any((local / name).exists() for name in (SINGLE, INDEX)):
        return False
    tensors = Tensors(local)
    if head not in tensors.where:
        return False
    embed = next(n for n in tensors.where if EMBEDDING.search(n))
    one, other = tensors.slice(head), tensors.slice(embed)
    if one.get_shape() != other.get_shape():
        return True
    rows = one.get_shape()[0]
    blocks = (slice(i, min(rows, i + HEAD_ROWS)) for i in range(0, rows, HEAD_ROWS))
    return any(not np.array_equal(one[b], other[b]) for b in blocks)


def load(path: files.PathLike, dtype: str | None = None, sharding: Sharding | None = None) -> Model:
    """Reads a Hugging Face checkpoint from a folder, `gs://` or the hub.

    Args:
      dtype: of the parameters in memory (`float32`, `bfloat16`, ...); None keeps each one's own.
      sharding: from a parameter path to where it lies; None puts all on the default device.

    Raises:
      UserError: anything wrong with the checkpoint, in one line that names the file and tensor.
    """
    local = folder(path)
    where = os.fspath(path)
    config = _config(local, where)
    tensors = Tensors(local)
    params: Tree = {}
    all_shapes = shapes(config)
    for leaf, (entry, tensor_names) in names(config, tensors.where, where).items():
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
        kind = np.dtype(jnp.dtype(dtype)) if dtype else _own_dtype(slices)
        target = None if sharding is None else sharding(leaf)
        put(params, leaf, _leaf(stored, shape, kind, target))
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


def _own_dtype(slices: list[Any]) -> np.dtype:
    """The dtype of a parameter's tensors; where layers differ, the one that holds them all."""
    kinds = [np.dtype(kind) for kind in sorted({FLOATS[s.get_dtype()] for s in slices})]
    return np.dtype(functools.reduce(jnp.promote_types, kinds))


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
    flat = dict(leaves(model.params))
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
        out = interleaved(out, config.heads) if entries[leaf].interleaved else out
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


def check_tokenizer(config: DecoderConfig, tokenizer: Any, where: str) -> None:
    """A tokenizer may know fewer tokens than the model has rows for (padding), never more.

    But for a lone token of padding, which people add to train and no text holds.

    Args:
      config: of the model.
      tokenizer: of transformers.
      where: the checkpoint's name for people.

    Raises:
      UserError: a token id beyond the embedding.
    """
    vocabulary = set(tokenizer.get_vocab().values())
    largest = max(vocabulary - {tokenizer.pad_token_id}, default=-1)
    if largest >= config.vocab_size:
        raise UserError(
            f"{where}: the tokenizer knows {max(vocabulary) + 1} tokens, but config.json has "
            f"vocab_size={config.vocab_size}: tokenizer and weights are of different models"
        )
