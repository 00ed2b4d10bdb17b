"""Safetensors files: memory-mapped reading with every flaw named, and atomic writing.

Only safetensors are read: the other formats are pickles, which can run code.
"""

import functools
import os
import tempfile
from pathlib import Path as LocalPath
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from forget_jax import distributed, files, foreign
from forget_jax.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
LONGEST_NAME = 500  # of a tensor
MOST_HEADER = 100_000_000  # bytes, as safetensors has it
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

    Raises:
      UserError: no such files, broken ones, or a single file beside shards.
    """

    def __init__(self, path: LocalPath, single: str = SINGLE):
        self.path = path
        self.files: dict[LocalPath, Any] = {}
        sharded = single == SINGLE and (path / INDEX).exists()
        both = sharded and (path / SINGLE).exists()
        if both and set(weight_map(path / INDEX).values()) != {SINGLE}:
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

    def _index(self) -> dict[str, LocalPath]:
        """What the shards hold, whether the index lists it or not: transformers loads it all."""
        found = weight_map(self.path / INDEX)
        held: dict[str, LocalPath] = {}
        for shard in sorted(set(found.values())):
            file = self.path / shard
            if not file.exists():
                raise UserError(f"{self.path}: shard {shard} is missing; download it again")
            for tensor in self._open(file).keys():  # noqa: SIM118 - not a dict
                if tensor in held:
                    raise UserError(
                        f"{self.path}: {held[tensor].name} and {shard} both hold tensor {tensor}; "
                        "download it again"
                    )
                held[tensor] = file
        for tensor, shard in found.items():
            if held.get(tensor) != self.path / shard:
                raise UserError(f"{self.path / shard}: tensor {tensor} is missing from the shard")
        return held

    def _open(self, file: LocalPath) -> Any:
        from safetensors import safe_open

        if file not in self.files:
            try:
                held = safe_open(file, "numpy")
            except Exception as e:
                reason = "".join(c if c.isprintable() else " " for c in str(e))[:200]
                raise UserError(
                    f"{file}: broken or truncated safetensors ({reason}); download it again"
                ) from e
            for name in held.keys():  # noqa: SIM118 - not a dict
                if not _is_name(name):
                    raise UserError(f"{file}: {foreign.in_words(name)} is no name of a tensor")
            self.files[file] = held
        return self.files[file]

    def slice(self, name: str) -> Any:
        """The tensor for slicing: has `get_shape()`, `get_dtype()` and `[...]`."""
        return self._open(self.where[name]).get_slice(name)

    def read(self, name: str) -> np.ndarray:
        """The whole tensor in fp32, checked for NaN and infinities."""
        kind = self.slice(name).get_dtype()
        if kind not in FLOATS:
            raise UserError(f"{self.where[name]}: tensor {name} is {kind}, not floating point")
        with np.errstate(over="ignore"):
            x = np.asarray(self._open(self.where[name]).get_tensor(name), np.float32)
        check_finite(x, name, str(self.path))
        return x


def weight_map(index: files.PathLike) -> dict[str, str]:
    """The shard of every tensor, as an index says.

    Raises:
      UserError: no index, or one that names anything but safetensors files beside it.
    """
    where = os.fspath(index)
    held = foreign.field(foreign.record(files.read_json(index), where), "weight_map", dict, where)
    for tensor in held:
        if not _is_name(tensor):
            raise UserError(f"{where}: {foreign.in_words(tensor)} is no name of a tensor")
        name = foreign.field(held, tensor, str, where)
        plain = name.isprintable() and len(name.encode()) < 256 and name == LocalPath(name).name
        if not plain or not name.endswith(".safetensors"):
            raise UserError(f"{where} names {name[:200]!r}: not a safetensors file of this folder")
    return held


def _is_name(tensor: str) -> bool:
    return len(tensor) <= LONGEST_NAME and tensor.isprintable()


class Entry(NamedTuple):
    """Where a tensor lies in a safetensors file: its bytes from `start` to `end`."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def header(f: BinaryIO, size: int, where: str) -> dict[str, Entry]:
    """The entries of a safetensors file, local or on a store, of which only the header is read.

    Args:
      f: the file, at its beginning.
      size: its bytes.
      where: its name for people.

    Raises:
      UserError: another kind of file, or one that is cut short.
    """
    length = int.from_bytes(f.read(8), "little")
    begin = 8 + length
    if length > MOST_HEADER or begin > size:
        raise UserError(f"{where}: broken or truncated safetensors; download it again")
    held = foreign.record(foreign.parse(f.read(length), where), where)
    found = {}
    for name, value in held.items():
        if name == "__metadata__":
            continue
        at = f"{where}: {foreign.in_words(name)}"
        entry = foreign.record(value, at)
        shape = foreign.field(entry, "shape", list, at)
        span = foreign.field(entry, "data_offsets", list, at)
        whole = all(type(n) is int and n >= 0 for n in (*shape, *span))
        if not whole or len(span) != 2 or not span[0] <= span[1] <= size - begin:
            raise UserError(f"{at}: its shape or place is not in the file; download it again")
        kind = foreign.field(entry, "dtype", str, at)
        found[name] = Entry(kind, tuple(shape), begin + span[0], begin + span[1])
    return found


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


def own_dtype(slices: list[Any]) -> np.dtype:
    """The dtype of a parameter's tensors; where layers differ, the one that holds them all."""
    kinds = [np.dtype(kind) for kind in sorted({FLOATS[s.get_dtype()] for s in slices})]
    return np.dtype(functools.reduce(jnp.promote_types, kinds))


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
            made = LocalPath(temporary) / "x"
            made.touch()
            mode = made.stat().st_mode  # the umask's, which safetensors does not ask
            save_file(tensors, made, metadata)
            made.chmod(mode)
            os.replace(made, file)  # noqa: PTH105
    except OSError as e:
        raise UserError(
            f"cannot write {file}: {e.strerror or e}; free space and start again"
        ) from e
