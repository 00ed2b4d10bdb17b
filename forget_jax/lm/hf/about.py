"""What a checkpoint's folder says of its model beside the weights: configuration, head and ends."""

import dataclasses
import os
from pathlib import Path as LocalPath
from typing import Any

import numpy as np

from forget_jax import files, foreign
from forget_jax.errors import UserError
from forget_jax.lm.config import MOST
from forget_jax.lm.decoder import DecoderConfig
from forget_jax.lm.hf import families, layout, shipped
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.hf.hf_config import read as read_config
from forget_jax.lm.hf.tensor_files import FLOATS, INDEX, SINGLE, Tensors, own_dtype

GENERATION = "generation_config.json"
HEAD_ROWS = 8192  # of a head that are compared with the embedding's at a time


def folder(path: files.PathLike) -> LocalPath:
    """A local folder for a local path, a `gs://` folder (copied) or a hub name (downloaded).

    A GGUF file's is in the cache, where it is made at first (`gguf`); so is that of a model that a
    Python package holds (`shipped`).

    Raises:
      UserError: nothing there that is a folder, or no such model on the hub.
    """
    name = os.fspath(path)
    if not files.is_local(name):
        return tokenizers.fetch(name, lambda f: f.endswith((".json", ".safetensors")))
    local = LocalPath(name)
    if local.is_dir():
        return local
    if (made := shipped.folder(name)) is not None:
        return made
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


def config_of(path: files.PathLike) -> DecoderConfig:
    """The configuration of a checkpoint, without its weights; errors as for `load`."""
    return config(folder(path), os.fspath(path))


def config(local: LocalPath, where: str) -> DecoderConfig:
    """The configuration of a checkpoint in a local folder.

    Args:
      local: as `folder` gives it.
      where: its name for people.

    Raises:
      UserError: no config.json, or one that is no decoder's.
    """
    if not (local / "config.json").exists():
        raise UserError(f"{where} holds no config.json: not a checkpoint, or an unfinished one")
    made = read_config(files.read_json(local / "config.json"), f"{where}/config.json")
    if made.tied_head and _has_own_head(local, families.FAMILIES[made.family]):
        return dataclasses.replace(made, tied_head=False)
    return made


def _has_own_head(local: LocalPath, family: families.Family) -> bool:
    """Whether a checkpoint that calls its head tied holds another one all the same.

    transformers loads that one, untied. Tensors that can be no head and no embedding are two, so
    that loading names what is wrong with them.
    """
    if not any((local / name).exists() for name in (SINGLE, INDEX)):
        return False
    tensors = Tensors(local)
    pair = [layout.name(family, path, tensors.where) for path in ("head", "embed")]
    if any(name not in tensors.where for name in pair):
        return False
    one, other = (tensors.slice(name) for name in pair)
    shape = one.get_shape()
    floats = one.get_dtype() in FLOATS and other.get_dtype() in FLOATS
    if not floats or len(shape) != 2 or other.get_shape() != shape:
        return True
    blocks = (slice(i, min(shape[0], i + HEAD_ROWS)) for i in range(0, shape[0], HEAD_ROWS))
    return any(not np.array_equal(one[b], other[b]) for b in blocks)


def dtype_of(path: files.PathLike) -> str:
    """The dtype of the embedding, such as `bfloat16`; errors as for `load`.

    It stands for most of a checkpoint's parameters.
    """
    local = folder(path)
    made, tensors = config(local, os.fspath(path)), Tensors(local)
    _, found = layout.names(made, tensors.where, os.fspath(path))["embed"]
    return str(own_dtype([tensors.slice(n) for n in found]))


def raw_config(path: files.PathLike) -> dict[str, Any]:
    """The `config.json` of a checkpoint as it stands, to keep beside changed weights.

    Raises:
      UserError: no such folder, or a file that is missing or no JSON.
    """
    file = folder(path) / "config.json"
    return foreign.record(files.read_json(file), os.fspath(file))


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
