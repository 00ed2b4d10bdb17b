"""The model families as data: Hugging Face configuration keys and weight names.

Every key that transformers' own configuration class of a family knows is either mapped onto a
`DecoderConfig` field, required to have the one value that the decoder implements, or listed as
without effect on the function computed. A key outside these three is refused, so a model can never
be silently different; keys unknown to transformers have no effect there either.
"""

import dataclasses
from typing import Any

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
      model_type, architecture: as `config.json` names the family and its class.
      fields: HF key -> DecoderConfig field, or several of them; a dot in a key goes one dict down.
      required: HF key -> the values that the decoder implements (the first is written).
      fixed: DecoderConfig fields that the family implies.
      weights: every tensor a model of the family may have.
      prefix: of weight names, left out by some checkpoints of bare models.
      ignored: regular expression of tensors without effect (buffers of old checkpoints).
      harmless: further keys without effect on log-probabilities.
      known_code: `auto_map` entries of official checkpoints that older transformers needed; the
        code is never run, and the decoder computes the same function.
    """

    model_type: str
    architecture: str
    fields: dict[str, str | tuple[str, ...]]
    required: dict[str, tuple[Any, ...]]
    fixed: dict[str, Any]
    weights: tuple[Weight, ...]
    prefix: str = "model."
    ignored: str = r".*rotary_emb\.inv_freq"
    harmless: frozenset[str] = frozenset()
    known_code: frozenset[str] = frozenset()


# How transformers spells the values of a field; the first spelling of a value is written.
SPELLINGS: dict[str, dict[Any, Any]] = {
    "activation": {
        "silu": "silu",
        "swish": "silu",
        "gelu": "gelu",
        "gelu_new": "gelu_tanh",
        "gelu_pytorch_tanh": "gelu_tanh",
        "gelu_fast": "gelu_tanh",
        "relu": "relu",
    },
    "residual": {True: "parallel", False: "pre"},
}
# What is written where it is not the first: some that load exports insist on it.
OWN_SPELLINGS = {("hidden_activation", "gelu_tanh"): "gelu_pytorch_tanh"}
LAYER_TYPES = {"full_attention": False, "sliding_attention": True}  # kind of layer -> local


def _linear(path: str, name: str, conv1d: bool = False, interleaved: bool = False) -> list[Weight]:
    return [
        Weight(f"{path}/kernel", f"{name}.weight", not conv1d, interleaved),
        Weight(f"{path}/bias", f"{name}.bias", False, interleaved),
    ]


def _norm(path: str, name: str) -> list[Weight]:
    return [Weight(f"{path}/scale", f"{name}.weight"), Weight(f"{path}/bias", f"{name}.bias")]


def _llama_weights(attn_norm: str, mlp_norm: str) -> tuple[Weight, ...]:
    """The names of Llama, shared by all that descend from it but for the norms of a layer."""
    layer = "model.layers.{}."
    entries = [
        Weight("embed", "model.embed_tokens.weight"),
        Weight("head", "lm_head.weight", transposed=True),
        *_norm("final_norm", "model.norm"),
        *_norm("layers/attn_norm", f"{layer}{attn_norm}"),
        *_norm("layers/mlp_norm", f"{layer}{mlp_norm}"),
        *_norm("layers/attn/q_norm", f"{layer}self_attn.q_norm"),
        *_norm("layers/attn/k_norm", f"{layer}self_attn.k_norm"),
    ]
    for x in "qkvo":
        entries += _linear(f"layers/attn/{x}", f"{layer}self_attn.{x}_proj")
    for x in ("gate", "up", "down"):
        entries += _linear(f"layers/mlp/{x}", f"{layer}mlp.{x}_proj")
    return tuple(entries)


LLAMA_FIELDS: dict[str, str | tuple[str, ...]] = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "intermediate_size": "mlp_width",
    "max_position_embeddings": "context",
    "tie_word_embeddings": "tied_head",
    "hidden_act": "activation",
}
HEAD_DIM: dict[str, str | tuple[str, ...]] = {"head_dim": "head_dim"}
RMS_EPS: dict[str, str | tuple[str, ...]] = {"rms_norm_eps": "norm_eps"}
ATTN_BIAS: dict[str, str | tuple[str, ...]] = {"attention_bias": ("qkv_bias", "o_bias")}
PRE_NORM = _llama_weights("input_layernorm", "post_attention_layernorm")
FULL_WINDOW = {"use_sliding_window": (False,)}
WINDOWS: dict[str, str | tuple[str, ...]] = {"sliding_window": "window", "layer_types": "local"}
LAYER_NORM = {"norm": "layer", "norm_bias": True, "gated": False, "fused_qkv": True}

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    fields=LLAMA_FIELDS | HEAD_DIM | RMS_EPS | ATTN_BIAS | {"mlp_bias": "mlp_bias"},
    required={},
    fixed={},
    weights=PRE_NORM,
)
MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    fields=LLAMA_FIELDS | HEAD_DIM | RMS_EPS | {"sliding_window": "window"},
    required={},
    fixed={},
    weights=PRE_NORM,
)
QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    fields=LLAMA_FIELDS | RMS_EPS,
    required=FULL_WINDOW,
    fixed={"qkv_bias": True},
    weights=PRE_NORM,
    harmless=frozenset({"sliding_window", "max_window_layers", "layer_types"}),
)
QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    fields=LLAMA_FIELDS | HEAD_DIM | RMS_EPS | ATTN_BIAS,
    required=FULL_WINDOW,
    fixed={"qk_norm": "head"},
    weights=PRE_NORM,
    harmless=QWEN2.harmless,
)
GEMMA3 = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    fields={k: v for k, v in LLAMA_FIELDS.items() if k != "hidden_act"}
    | HEAD_DIM
    | RMS_EPS
    | ATTN_BIAS
    | WINDOWS
    | {"hidden_activation": "activation", "query_pre_attn_scalar": "attention_scale"},
    required={
        "final_logit_softcapping": (None,),
        "attn_logit_softcapping": (None,),
        "use_bidirectional_attention": (False, None),
    },
    fixed={"residual": "sandwich", "qk_norm": "head", "norm_offset": 1.0, "scaled_embed": True},
    weights=(
        *_llama_weights("input_layernorm", "pre_feedforward_layernorm"),
        *_norm("layers/attn_post_norm", "model.layers.{}.post_attention_layernorm"),
        *_norm("layers/mlp_post_norm", "model.layers.{}.post_feedforward_layernorm"),
    ),
    harmless=frozenset({"_sliding_window_pattern"}),  # of which transformers makes layer_types
)
OLMO = Family(
    model_type="olmo",
    architecture="OlmoForCausalLM",
    fields=LLAMA_FIELDS | ATTN_BIAS | {"clip_qkv": "clip_qkv"},
    required={},
    fixed={"norm": "layer", "norm_scale": False, "norm_eps": 1e-5},
    weights=PRE_NORM,
)
OLMO2 = Family(
    model_type="olmo2",
    architecture="Olmo2ForCausalLM",
    fields=LLAMA_FIELDS | RMS_EPS | ATTN_BIAS,
    required={},
    fixed={"residual": "post", "qk_norm": "full"},
    weights=_llama_weights("post_attention_layernorm", "post_feedforward_layernorm"),
)
OLMO3 = dataclasses.replace(
    OLMO2,
    model_type="olmo3",
    architecture="Olmo3ForCausalLM",
    fields=OLMO2.fields | WINDOWS,
)
GPT_NEOX = Family(
    model_type="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    fields={k: v for k, v in LLAMA_FIELDS.items() if k != "num_key_value_heads"}
    | ATTN_BIAS
    | {"layer_norm_eps": "norm_eps", "use_parallel_residual": "residual"},
    required={"is_decoder": (False, True)},
    fixed=LAYER_NORM | {"mlp_bias": True},
    weights=(
        Weight("embed", "gpt_neox.embed_in.weight"),
        Weight("head", "embed_out.weight", transposed=True),
        *_norm("final_norm", "gpt_neox.final_layer_norm"),
        *_norm("layers/attn_norm", "gpt_neox.layers.{}.input_layernorm"),
        *_norm("layers/mlp_norm", "gpt_neox.layers.{}.post_attention_layernorm"),
        *_linear(
            "layers/attn/qkv", "gpt_neox.layers.{}.attention.query_key_value", interleaved=True
        ),
        *_linear("layers/attn/o", "gpt_neox.layers.{}.attention.dense"),
        *_linear("layers/mlp/up", "gpt_neox.layers.{}.mlp.dense_h_to_4h"),
        *_linear("layers/mlp/down", "gpt_neox.layers.{}.mlp.dense_4h_to_h"),
    ),
    prefix="gpt_neox.",
    ignored=r".*(rotary_emb\.inv_freq|attention\.(bias|masked_bias))",
    harmless=frozenset({"hidden_dropout", "classifier_dropout"}),
)
MPT = Family(
    model_type="mpt",
    architecture="MptForCausalLM",
    fields={
        "vocab_size": "vocab_size",
        "d_model": "width",
        "n_layers": "layers",
        "n_heads": "heads",
        "max_seq_len": "context",
        "layer_norm_epsilon": "norm_eps",
        "tie_word_embeddings": "tied_head",
        "attn_config.clip_qkv": "clip_qkv",
        "attn_config.softmax_scale": "attention_scale",
        "attn_config.alibi_bias_max": "alibi_max",
    },
    required={
        "expansion_ratio": (4,),
        "no_bias": (True,),
        "logit_scale": (None,),
        "norm_type": ("low_precision_layernorm", "layernorm"),
        "attn_config.attn_type": ("multihead_attention",),
        "attn_config.alibi": (True,),
        "attn_config.prefix_lm": (False,),
        "attn_config.qk_ln": (False,),
        "attn_config.attn_uses_sequence_id": (False,),
    },
    fixed=LAYER_NORM | {"norm_bias": False, "position": "alibi", "activation": "gelu"},
    weights=(
        Weight("embed", "transformer.wte.weight"),
        Weight("head", "lm_head.weight", transposed=True),
        *_norm("final_norm", "transformer.norm_f"),
        *_norm("layers/attn_norm", "transformer.blocks.{}.norm_1"),
        *_norm("layers/mlp_norm", "transformer.blocks.{}.norm_2"),
        *_linear("layers/attn/qkv", "transformer.blocks.{}.attn.Wqkv"),
        *_linear("layers/attn/o", "transformer.blocks.{}.attn.out_proj"),
        *_linear("layers/mlp/up", "transformer.blocks.{}.ffn.up_proj"),
        *_linear("layers/mlp/down", "transformer.blocks.{}.ffn.down_proj"),
    ),
    prefix="transformer.",
    harmless=frozenset(
        {"resid_pdrop", "emb_pdrop", "learned_pos_emb", "init_device", "embedding_fraction"}
        | {"attn_config.attn_pdrop", "attn_config.attn_impl"}
    ),
    known_code=frozenset({"configuration_mpt.MPTConfig", "modeling_mpt.MPTForCausalLM"}),
)
GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    fields={
        "vocab_size": "vocab_size",
        "n_embd": "width",
        "n_layer": "layers",
        "n_head": "heads",
        "n_positions": "context",
        "n_inner": "mlp_width",
        "layer_norm_epsilon": "norm_eps",
        "tie_word_embeddings": "tied_head",
        "activation_function": "activation",
    },
    required={
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    fixed=LAYER_NORM | {"position": "learned", "qkv_bias": True, "o_bias": True, "mlp_bias": True},
    weights=(
        Weight("embed", "transformer.wte.weight"),
        Weight("embed_position", "transformer.wpe.weight"),
        Weight("head", "lm_head.weight", transposed=True),
        *_norm("final_norm", "transformer.ln_f"),
        *_norm("layers/attn_norm", "transformer.h.{}.ln_1"),
        *_norm("layers/mlp_norm", "transformer.h.{}.ln_2"),
        *_linear("layers/attn/qkv", "transformer.h.{}.attn.c_attn", conv1d=True),
        *_linear("layers/attn/o", "transformer.h.{}.attn.c_proj", conv1d=True),
        *_linear("layers/mlp/up", "transformer.h.{}.mlp.c_fc", conv1d=True),
        *_linear("layers/mlp/down", "transformer.h.{}.mlp.c_proj", conv1d=True),
    ),
    prefix="transformer.",
    ignored=r".*attn\.(bias|masked_bias)",
    harmless=frozenset(
        """resid_pdrop embd_pdrop attn_pdrop summary_type summary_use_proj summary_activation
        summary_proj_to_labels summary_first_dropout reorder_and_upcast_attn""".split()  # noqa: SIM905
    ),
)

FAMILIES = {
    family.model_type: family
    for family in (
        LLAMA,
        MISTRAL,
        QWEN2,
        QWEN3,
        GEMMA3,
        OLMO,
        OLMO2,
        OLMO3,
        GPT_NEOX,
        MPT,
        GPT2,
    )
}
