"""Safetensors files: memory-mapped reading with every flaw named, and atomic writing.

Only safetensors are read: the other formats are pickles, which can run code.
"""

import os
import tempfile
from pathlib import Path as LocalPath
from typing import Any

import numpy as np

from forget_jax import distributed, files, foreign
from forget_jax.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
FLOATS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


class Tensors:
    """The tensors of a folder by name, memory-mapped; every flaw of the files is a UserError.

    Attributes:
      where: the file of each tensor, by the tensor's name.

    Args:
      path: the folder.
      single: name of the file that holds all tensors; where it is the default one, an index of
        shards is read instead if there is one.
    """

    def __init__(self, path: LocalPath, single: str = SINGLE):
        self.path = path
        self.files: dict[LocalPath, Any] = {}
        sharded = single == SINGLE and (path / INDEX).exists()
        if sharded and (path / SINGLE).exists() and set(self._named()) != {SINGLE}:
            raise UserError(
                f"{path} holds {SINGLE} and {INDEX}, which names other files: remove the one that "
                "is out of date"
            )
        self.where = self._index() if sharded else self._single(path / single)

    def _single(self, file: LocalPath) -> dict[str, LocalPath]:
        if not file.exists():
            pickles = sorted(f.name for f in self.path.iterdir() if f.suffix in PICKLES)
            if pickles:
                raise UserError(
                    f"{self.path}: only {pickles[0]}, a pickle, which can run code when read; "
                    'convert it once where you trust it: python -c "import transformers as t; '
                    f"t.AutoModelForCausalLM.from_pretrained('{self.path}')"
                    ".save_pretrained('converted')\""
                )
            raise UserError(f"{self.path} holds no {SINGLE} and no {INDEX}")
        return dict.fromkeys(self._open(file).keys(), file)

    def _map(self) -> dict[str, str]:
        """The file of each tensor, as the index names it."""
        file = self.path / INDEX
        held = foreign.field(
            foreign.record(files.read_json(file), str(file)), "weight_map", dict, str(file)
        )
        return {tensor: foreign.field(held, tensor, str, str(file)) for tensor in held}

    def _named(self) -> list[str]:
        return sorted(set(self._map().values()))

    def _index(self) -> dict[str, LocalPath]:
        weight_map = self._map()
        for name in self._named():
            if name != LocalPath(name).name or not name.endswith(".safetensors"):
                raise UserError(
                    f"{self.path / INDEX} names {name!r}: not a safetensors file of this folder"
                )
            if not (self.path / name).exists():
                raise UserError(f"{self.path}: shard {name} is missing; download it again")
            self._open(self.path / name)
        for tensor, name in weight_map.items():
            if tensor not in self._open(self.path / name).keys():  # noqa: SIM118 - not a dict
                raise UserError(f"{self.path / name}: tensor {tensor} is missing from the shard")
        return {tensor: self.path / name for tensor, name in weight_map.items()}

    def _open(self, file: LocalPath) -> Any:
        from safetensors import safe_open

        if file not in self.files:
            try:
                self.files[file] = safe_open(file, "numpy")
            except Exception as e:
                raise UserError(
                    f"{file}: broken or truncated safetensors ({e}); download it again"
                ) from e
        return self.files[file]

    def slice(self, name: str) -> Any:
        """The tensor for slicing: has `get_shape()`, `get_dtype()` and `[...]`."""
        return self._open(self.where[name]).get_slice(name)

    def read(self, name: str) -> np.ndarray:
        """The whole tensor, checked for NaN and infinities."""
        x = self._open(self.where[name]).get_tensor(name)
        check_finite(x, name, str(self.path))
        return np.asarray(x)


def check_finite(x: np.ndarray, name: str, where: str) -> None:
    """Refuses weights that are not finite.

    Args:
      x: some or all of a tensor's values.
      name: the tensor's.
      where: the checkpoint's name for people.

    Raises:
      UserError: NaN or an infinity among them.
    """
    if not np.isfinite(x).all():
        raise UserError(f"{where}: tensor {name} holds NaN or infinite weights")


def write_tensors(file: files.Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes one safetensors file atomically, straight to a local disk or through memory.

    In a run of many processes only process 0 writes.

    Args:
      file: local or on a store; its folder is made where it is missing.
      tensors: contiguous arrays by name.

    Raises:
      UserError: the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes
    from safetensors.numpy import save_file

    metadata = {"format": "pt"}
    if not files.is_local(file):
        files.write_bytes(file, to_bytes(tensors, metadata))
        return
    if not distributed.is_writer():
        return
    try:
        LocalPath(file).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=LocalPath(file).parent) as temporary:
            save_file(tensors, LocalPath(temporary) / "x", metadata)
            os.replace(LocalPath(temporary) / "x", file)  # noqa: PTH105
    except OSError as e:
        raise UserError(
            f"cannot write {file}: {e.strerror or e}; free space and start again"
        ) from e
