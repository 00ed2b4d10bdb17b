"""The model families as data: Hugging Face configuration keys and weight names, both ways.

Every key that transformers' own configuration class of a family knows is either mapped onto a
`DecoderConfig` field, required to have the one value that the decoder implements, or listed as
without effect on the function computed. A key outside these three is refused, so a model can never
be silently different; keys unknown to transformers have no effect there either.
"""

import dataclasses
from typing import Any

from forget_jax.errors import UserError
from forget_jax.lm.decoder import DecoderConfig
from forget_jax.lm.tokenizer import transformers

# Known to every configuration class, without effect on log-probabilities.
HARMLESS = frozenset(
    """transformers_version architectures output_hidden_states return_dict dtype torch_dtype
    chunk_size_feed_forward is_encoder_decoder id2label label2id problem_type initializer_range
    use_cache pad_token_id bos_token_id eos_token_id pretraining_tp attention_dropout
    _name_or_path model_type output_attentions""".split()  # noqa: SIM905
)


@dataclasses.dataclass(frozen=True)
class Weight:
    """Where a parameter lies in both trees.

    Attributes:
      path: in ours; everything under `layers/` is stacked over a leading layer axis.
      name: of the safetensors entry, `{}` being the layer.
      transposed: stored out x in (torch Linear) rather than in x out.
      interleaved: the output axis runs over (head, q/k/v, head_dim) rather than (q/k/v, head, ...).
    """

    path: str
    name: str
    transposed: bool = False
    interleaved: bool = False


@dataclasses.dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
      fields: HF key -> DecoderConfig field.
      required: HF key -> the values that the decoder implements.
      fixed: DecoderConfig fields that the family implies.
      weights: every tensor a model of the family may have.
      ignored: regular expression of tensors without effect (buffers of old checkpoints).
      prefix: of weight names, left out by some checkpoints of bare models.
    """

    model_type: str
    architecture: str
    fields: dict[str, str]
    required: dict[str, tuple[Any, ...]]
    fixed: dict[str, Any]
    weights: tuple[Weight, ...]
    ignored: str
    prefix: str
    harmless: frozenset[str] = frozenset()


LLAMA_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "mlp_width",
    "max_position_embeddings": "context",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tied_head",
}


def _linear(path: str, name: str) -> tuple[Weight, ...]:
    return (Weight(f"{path}/kernel", f"{name}.weight", transposed=True),)


LLAMA_WEIGHTS = (
    Weight("embed", "model.embed_tokens.weight"),
    Weight("head", "lm_head.weight", transposed=True),
    Weight("final_norm/scale", "model.norm.weight"),
    Weight("layers/attn_norm/scale", "model.layers.{}.input_layernorm.weight"),
    Weight("layers/mlp_norm/scale", "model.layers.{}.post_attention_layernorm.weight"),
    *(
        w
        for x in "qkvo"
        for w in _linear(f"layers/attn/{x}", f"model.layers.{{}}.self_attn.{x}_proj")
    ),
    *(
        w
        for x in ("gate", "up", "down")
        for w in _linear(f"layers/mlp/{x}", f"model.layers.{{}}.mlp.{x}_proj")
    ),
)

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    fields=LLAMA_FIELDS,
    required={"hidden_act": ("silu",), "attention_bias": (False,), "mlp_bias": (False,)},
    fixed={},
    weights=LLAMA_WEIGHTS,
    ignored=r".*rotary_emb\.inv_freq",
    prefix="model.",
)

FAMILIES = {family.model_type: family for family in (LLAMA,)}


def read(raw: dict[str, Any], where: str) -> DecoderConfig:
    """The decoder of a Hugging Face `config.json`.

    Raises:
      UserError: an unsupported family, an unsupported setting of a known family (both named), a
        quantised checkpoint, or one that needs code of its own.
    """
    if "auto_map" in raw:
        raise UserError(f"{where}: the checkpoint needs code of its own (auto_map), never run here")
    if "quantization_config" in raw:
        raise UserError(f"{where}: a quantised checkpoint; load the unquantised original instead")
    family = FAMILIES.get(str(raw.get("model_type")))
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise UserError(f"{where}: model family {raw.get('model_type')!r} is not one of {known}")
    try:
        hf = transformers().CONFIG_MAPPING[family.model_type](**raw).to_dict()
    except Exception as e:
        raise UserError(f"{where}: {' '.join(str(e).split())[:300]}") from e
    rope = hf.pop("rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        raise UserError(f"{where}: rope_type {rope['rope_type']!r} is not supported")
    for key, value in hf.items():
        if key in family.required:
            if value not in family.required[key]:
                allowed = " or ".join(map(repr, family.required[key]))
                raise UserError(
                    f"{where}: {key}={value!r} is not supported for {family.model_type} "
                    f"(supported: {allowed})"
                )
        elif key not in family.fields and key not in HARMLESS | family.harmless:
            raise UserError(f"{where}: setting {key}={value!r} of {family.model_type} is not known")
    values = {field: hf[key] for key, field in family.fields.items()}
    if rope:
        values["rope_theta"] = float(rope["rope_theta"])
    return DecoderConfig(family=family.model_type, **family.fixed, **values)


def write(config: DecoderConfig, dtype: str) -> dict[str, Any]:
    """The `config.json` from which transformers builds the same model; the inverse of `read`."""
    family = FAMILIES[config.family]
    hf: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "dtype": dtype,
        "torch_dtype": dtype,  # as transformers before 5 and its followers spell it
    }
    hf |= {key: getattr(config, field) for key, field in family.fields.items()}
    hf |= {key: values[0] for key, values in family.required.items()}
    hf["rope_theta"] = config.rope_theta
    return hf
