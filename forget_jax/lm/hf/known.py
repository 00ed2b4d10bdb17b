"""The shape of a checkpoint whose weights need not be here, for plans of runs.

From its config.json where that is here; of the models of arXiv 2406.14026 that are tried most from
the table below. Nothing is downloaded.
"""

from typing import Any, NamedTuple

from forget_jax import files
from forget_jax.errors import UserError
from forget_jax.files import Path
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.hf import about, shipped
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.hf.hf_config import read as read_config

_7B = {
    "model_type": "olmo",
    "vocab_size": 50304,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
_1B = _7B | {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "tie_word_embeddings": True,
}
# By name on the hub: what decides the shape (arXiv 2402.00838, table 1).
KNOWN: dict[str, dict[str, Any]] = {
    "allenai/OLMo-1B-hf": _1B,
    "allenai/OLMo-7B-hf": _7B,
    "allenai/OLMo-7B-Instruct-hf": _7B,
}


class Shape(NamedTuple):
    """What is known of a model without its weights.

    Attributes:
      config: of the decoder.
      dtype: of its parameters; float32, the largest, where nothing says.
      tokenizer: of transformers, where it is here.
      source: where the shape was found, for people.
    """

    config: DecoderConfig
    dtype: str
    tokenizer: Any | None
    source: str


def shape_of(path: str) -> Shape:
    """The shape of the model that `model.path` names.

    Raises:
      UserError: nothing here says it.
    """
    if not path:
        raise UserError("model.path is not given; name a Hugging Face folder or hub name")
    if path.startswith(shipped.PREFIX) or Path(path).exists():
        folder = about.folder(path)
        return Shape(about.config(folder, path), _dtype(path), _tokenizer(folder), "config.json")
    if path in KNOWN:
        config = read_config(KNOWN[path], path)
        return Shape(config, "float32", None, "known by its name; its weights are not here")
    raise UserError(
        f"{path} is not here, and a dry run downloads nothing: give a folder with its config.json, "
        f"or one of {', '.join(KNOWN)}"
    )


def _dtype(path: str) -> str:
    try:
        return about.dtype_of(path)
    except UserError:  # no weights
        raw = about.raw_config(path)
        said = str(raw.get("dtype") or raw.get("torch_dtype") or "float32")
        return said if said in ("float32", "bfloat16", "float16") else "float32"


def _tokenizer(folder: files.PathLike) -> Any | None:
    try:
        return tokenizers.load(folder)
    except UserError:
        return None
