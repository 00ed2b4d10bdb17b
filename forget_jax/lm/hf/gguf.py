"""GGUF files as checkpoints: made into a Hugging Face folder once, which lies in the cache.

Blocks are dequantised to float32 by the `gguf` package; tensors that are stored as floats keep
their type. Everything that reads checkpoints then reads the folder, so a model out of a GGUF file
is like any other.
"""

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path as LocalPath
from typing import Any

import numpy as np

from forget_jax import files, foreign
from forget_jax.errors import UserError, one_line
from forget_jax.lm.config import MOST
from forget_jax.lm.hf import families, gguf_tokenizer
from forget_jax.lm.hf.tensor_files import INDEX, SINGLE, write_tensors

FORMAT = 2  # of the folders in the cache; another conversion is another number
SHARD_BYTES = 2**31
HEADER_BYTES = 24  # magic, version, and how many tensors and entries follow
# Entries about a file that do not change what its model computes.
HARMLESS = (
    *("vocab_size", "rope.dimension_count", "expert_count", "expert_used_count"),
    *("attention.causal", "attention.key_length", "attention.value_length", "tensor_data_layout"),
    "rope.scaling.finetuned",
)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One architecture of GGUF files.

    Attributes:
      model_type: of the family that it is here.
      fixed: entries of `config.json` that it implies.
      permuted: query and key rows lie in pairs of rotated halves, as llama.cpp turns them.
      norm_offset: what the file has added to the scales of norms.
      entries: of metadata, beside those that all have, and the keys of `config.json` they fill.
    """

    model_type: str
    fixed: dict[str, Any] = dataclasses.field(default_factory=dict)
    permuted: bool = False
    norm_offset: float = 0.0
    entries: dict[str, str] = dataclasses.field(default_factory=dict)


ENTRIES = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
ARCHITECTURES = {
    "llama": Architecture("llama", permuted=True, fixed={"hidden_act": "silu"}),
    "qwen2": Architecture("qwen2", fixed={"hidden_act": "silu"}),
    "qwen3": Architecture("qwen3", fixed={"hidden_act": "silu"}),
    "gemma3": Architecture(
        "gemma3_text",
        fixed={"hidden_activation": "gelu_pytorch_tanh", "sliding_window_pattern": 6},
        norm_offset=1.0,
        entries={
            "attention.sliding_window": "sliding_window",
            "attention.sliding_window_pattern": "sliding_window_pattern",
            "rope.freq_base_swa": "rope_local_base_freq",
        },
    ),
}
FRACTIONS = {"attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.freq_base_swa"}
OPTIONAL = {"rope.freq_base", "rope.freq_base_swa", "attention.sliding_window_pattern"}
STRETCH = {f"rope.scaling.{key}" for key in ("type", "factor", "original_context_length")}
GEMMA3_27B = 62  # layers of the one size whose queries are not scaled by the width of a head
# Llama 3.1 and 3.2 stretch their rotary bases; a file holds the factors, a config how they are made
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3_FACTORS = (8.0, 32.0)


def folder(path: str) -> LocalPath:
    """The checkpoint of a GGUF file as a folder, made at the first call.

    It lies in the cache under a digest of the file's content, so a file that is replaced is another
    model, and one that is moved the same.

    Raises:
      UserError: no such file, no GGUF, or an architecture, a setting, a quantisation or a tokenizer
        that is not covered; the line names it.
    """
    source = LocalPath(path).expanduser()
    try:
        with source.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()[:32]
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror or e}") from e
    made = files.cache() / "gguf" / f"{digest}-{FORMAT}"
    if not (made / "config.json").exists():
        _make(source, path, made)
    return made


def _make(source: LocalPath, shown: str, target: LocalPath) -> None:
    """Converts a file beside its place in the cache, then moves it there whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    making = LocalPath(tempfile.mkdtemp(dir=target.parent, prefix=".making."))
    try:
        convert(source, shown, making)
        making.chmod(0o755)
        if not target.exists():
            making.rename(target)
    except OSError as e:
        if not (target / "config.json").exists():  # another process may have been first
            raise UserError(f"cannot write {target}: {e.strerror or e}") from e
    finally:
        shutil.rmtree(making, ignore_errors=True)


def convert(source: LocalPath, shown: str, target: LocalPath) -> None:
    """Writes a GGUF file as a Hugging Face folder: weights, tokenizer, and config.json at the end.

    Args:
      shown: the file's name for people.

    Raises:
      UserError: as `folder`.
    """
    reader = _open(source, shown)
    metadata = _metadata(reader, shown)
    name = str(metadata.get("general.architecture"))
    if name not in ARCHITECTURES:
        known, said = ", ".join(ARCHITECTURES), foreign.in_words(name)
        raise UserError(f"{shown}: general.architecture is {said}, not one of {known}")
    stored = {tensor.name: tensor for tensor in reader.tensors}
    tokenizer = gguf_tokenizer.build(name, metadata, shown)
    config = _config(metadata, stored, name, shown)
    _write_weights(target, _tensors(stored, config, name, shown))
    tokenizer.save_pretrained(target)
    stops = gguf_tokenizer.stops(metadata)
    ends = {"bos_token_id": config.get("bos_token_id"), "eos_token_id": stops or None}
    files.write_json(target / "generation_config.json", ends)
    files.write_json(target / "config.json", config)


def _open(source: LocalPath, shown: str) -> Any:
    """The file's reader, after a look at its first bytes."""
    try:
        import gguf
    except ImportError as e:
        raise UserError(f"{shown}: GGUF files need `pip install 'forget-jax[gguf]'`") from e
    with source.open("rb") as f:
        head = f.read(HEADER_BYTES)
    size = source.stat().st_size
    counts = [int.from_bytes(head[at : at + 8], "little") for at in (8, 16)]
    if head[:4] != b"GGUF" or len(head) < HEADER_BYTES or max(counts) > size:
        raise UserError(f"{shown}: not a GGUF file, or a damaged one")
    try:
        return gguf.GGUFReader(source)
    except Exception as e:  # the reader raises whatever damaged bytes make of it
        reason = one_line(str(e), 200)
        raise UserError(f"{shown}: a damaged GGUF file ({reason}); download it again") from e


def _metadata(reader: Any, shown: str) -> dict[str, Any]:
    """The file's entries by name."""
    found = {}
    for name, held in reader.fields.items():
        try:
            found[name] = held.contents()
        except Exception as e:  # such as text that is not UTF-8
            reason = one_line(str(e), 200)
            raise UserError(f"{shown}: {one_line(name, 80)} cannot be read ({reason})") from e
    return found


def _config(
    metadata: dict[str, Any], stored: dict[str, Any], name: str, shown: str
) -> dict[str, Any]:
    """The `config.json` that a file's metadata means."""
    architecture = ARCHITECTURES[name]
    family = families.FAMILIES[architecture.model_type]
    entries = ENTRIES | architecture.entries
    own = {k.removeprefix(f"{name}."): v for k, v in metadata.items() if k.startswith(f"{name}.")}
    config: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "vocab_size": len(metadata.get("tokenizer.ggml.tokens", ())),
        "tie_word_embeddings": "output.weight" not in stored,
        "attention_bias": "blk.0.attn_q.bias" in stored,
        "dtype": "float32",
        **architecture.fixed,
    }
    for key, value in own.items():
        if key in entries:
            config[entries[key]] = value
        elif key not in STRETCH and key not in HARMLESS:
            said = value if isinstance(value, int | float) else foreign.in_words(value)
            raise UserError(f"{shown}: setting {name}.{one_line(key, 80)}={said} is not covered")
    for key in entries:
        if key in own or key not in OPTIONAL:
            _check_number(name, key, own, shown)
    if own.get("expert_count"):
        raise UserError(f"{shown}: a mixture of experts, which is not covered")
    config["head_dim"] = own.get("attention.key_length") or (
        config["hidden_size"] // config["num_attention_heads"]
    )
    turned = own.get("rope.dimension_count", config["head_dim"])
    if turned != config["head_dim"] or own.get("attention.value_length", turned) != turned:
        raise UserError(f"{shown}: heads of {config['head_dim']} with other widths are not covered")
    base = config.pop("rope_theta", 10000.0)
    rope = {"rope_theta": base} | _rope(own, stored, base, turned, shown)
    config["rope_parameters"] = rope
    if architecture.model_type == "gemma3_text":
        near = {"rope_type": "default", "rope_theta": config.pop("rope_local_base_freq", 10000.0)}
        config["rope_parameters"] = {"full_attention": rope, "sliding_attention": near}
        shared = config["hidden_size"] // config["num_attention_heads"]
        largest = config["num_hidden_layers"] == GEMMA3_27B
        config["query_pre_attn_scalar"] = shared if largest else config["head_dim"]
    for kind in ("bos", "eos", "padding"):
        token = metadata.get(f"tokenizer.ggml.{kind}_token_id")
        config[f"{'pad' if kind == 'padding' else kind}_token_id"] = token
    return config


def _check_number(name: str, key: str, own: dict[str, Any], shown: str) -> None:
    """Refuses a setting that is missing, or no number of its kind."""
    held = {f"{name}.{key}": own[key]} if key in own else {}
    if key in FRACTIONS:
        foreign.field(held, f"{name}.{key}", float, shown, least=0)
    else:
        most = MOST["layers" if key == "block_count" else "context"]
        foreign.field(held, f"{name}.{key}", int, shown, least=1, most=most)


def _rope(
    own: dict[str, Any], stored: dict[str, Any], base: float, width: int, shown: str
) -> dict[str, Any]:
    """How the rotary bases of heads of this width are stretched."""
    kind = own.get("rope.scaling.type", "none")
    original = own.get("rope.scaling.original_context_length")
    if "rope_freqs.weight" in stored:
        return _llama3_rope(np.asarray(stored["rope_freqs.weight"].data), base, width, shown)
    if kind == "none":
        return {"rope_type": "default"}
    scaling = {"rope_type": kind, "factor": own.get("rope.scaling.factor", 1.0)}
    if kind == "linear":
        return scaling
    if kind == "yarn" and original:
        return scaling | {"original_max_position_embeddings": original}
    raise UserError(f"{shown}: rope.scaling.type is {foreign.in_words(kind)}, which is not covered")


def _llama3_rope(factors: np.ndarray, base: float, width: int, shown: str) -> dict[str, Any]:
    """The settings of Llama 3's stretching that give the factors in the file."""
    original = 8192
    wave = 2 * np.pi * base ** (np.arange(0, width, 2) / width)
    low, high = (original / LLAMA3_ROPE[f"{end}_freq_factor"] for end in ("low", "high"))
    smooth = (original / wave - 1.0) / 3.0  # 0 at the longest waves that change, 1 at the shortest
    for factor in LLAMA3_FACTORS:
        between = 1 / ((1 - smooth) / factor + smooth)
        expected = np.where(wave < high, 1.0, np.where(wave > low, factor, between))
        if expected.shape == factors.shape and np.allclose(factors, expected, rtol=1e-4):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "original_max_position_embeddings": original,
                **LLAMA3_ROPE,
            }
    raise UserError(f"{shown}: rope_freqs.weight are no factors of Llama 3.1 or 3.2, not covered")


def _tensors(
    stored: dict[str, Any], config: dict[str, Any], name: str, shown: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values of the tensors as `transformers` has them."""
    import gguf

    architecture, layers = ARCHITECTURES[name], config["num_hidden_layers"]
    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == name)
    names = gguf.get_tensor_name_map(arch, layers)
    left = set(stored) - {"rope_freqs.weight"}
    for weight in families.FAMILIES[architecture.model_type].weights:
        for layer in range(layers if "{}" in weight.name else 1):
            wanted = weight.name.format(layer)
            found = names.get_name(wanted, try_suffixes=(".weight", ".bias"))
            if found not in left:
                continue
            left.remove(found)
            x = _floats(stored[found], shown)
            if architecture.permuted and (".attn_q." in found or ".attn_k." in found):
                kind = "num_attention_heads" if ".attn_q." in found else "num_key_value_heads"
                if len(x) % (2 * config[kind]):
                    raise UserError(f"{shown}: {found} has {len(x)} rows for {config[kind]} heads")
                x = unpermuted(x, config[kind])
            if architecture.norm_offset and wanted.endswith("norm.weight"):
                x = x - np.float32(architecture.norm_offset)
            yield wanted, np.ascontiguousarray(x)
    if left:
        raise UserError(f"{shown}: tensor {one_line(min(left), 80)} has no place in a {name}")


def unpermuted(x: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection in the order of `transformers`, from llama.cpp's.

    llama.cpp rotates neighbours, transformers a head's first half against its second.
    """
    half = x.shape[0] // heads // 2
    return x.reshape(heads, half, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def _floats(tensor: Any, shown: str) -> np.ndarray:
    """A tensor's values: as they are stored where they are floats, dequantised otherwise."""
    import gguf
    from gguf.quants import dequantize

    kind = tensor.tensor_type
    if kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
        return np.asarray(tensor.data)
    try:
        return dequantize(tensor.data, kind)
    except Exception as e:
        what = one_line(tensor.name, 80)
        raise UserError(f"{shown}: tensor {what} is {kind.name}, not covered") from e


def _write_weights(target: LocalPath, tensors: Iterator[tuple[str, np.ndarray]]) -> None:
    """Writes tensors as they come, in files of at most SHARD_BYTES and an index of several."""
    shards: list[list[str]] = []
    held: dict[str, np.ndarray] = {}

    def write() -> None:
        write_tensors(files.Path(target / f"{len(shards)}.safetensors"), held)
        shards.append(sorted(held))
        held.clear()

    for name, x in tensors:
        if held and sum(y.nbytes for y in held.values()) + x.nbytes > SHARD_BYTES:
            write()
        held[name] = x
    write()
    if len(shards) == 1:
        (target / "0.safetensors").rename(target / SINGLE)
        return
    where: dict[str, str] = {}
    for number, names in enumerate(shards):
        final = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        (target / f"{number}.safetensors").rename(target / final)
        where |= dict.fromkeys(names, final)
    files.write_json(target / INDEX, {"metadata": {}, "weight_map": where})
