"""The shape of a decoder and every switch between the model families."""

import dataclasses

from forget_jax.errors import UserError

# The largest sizes: far beyond any model's, so that no shape made of them is beyond 64 bits.
MOST = {
    "vocab_size": 2**27,
    "width": 2**20,
    "layers": 2**14,
    "heads": 2**14,
    "kv_heads": 2**14,
    "head_dim": 2**16,
    "mlp_width": 2**24,
    "context": 2**31 - 1,
}
MOST_PARAMETERS = 2**50  # of one kind, over all layers

# Which values each switch may have; `decoder` implements exactly these.
SWITCHES = {
    "norm": ("rms", "layer"),
    "residual": ("pre", "post", "sandwich", "parallel"),
    "qk_norm": ("", "head", "full"),
    "position": ("rotary", "alibi", "learned"),
    "activation": ("silu", "gelu", "gelu_tanh", "relu"),
    "remat": ("none", "dots", "full"),
}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder and the switches between families (defaults: Llama 2).

    Attributes:
      context: the most tokens a row may have, special tokens included.
      dtype: of activations and matrix products; parameters keep the dtype they were given.
      remat: what the backward pass computes again: nothing (`none`), all but the products with
        weights (`dots`), or each layer from its input (`full`).
      unroll: layers per iteration of the scan; 0 means all (faster on CPU, slower to compile; remat
        then saves nothing there, where XLA joins what is computed twice).
      family: whose names and layouts a checkpoint of it has; the decoder itself never asks.
      norm: `rms` or `layer`, with a learned scale and bias or without.
      norm_offset: what a norm's scale is counted from: 1 where it is stored as its distance from 1
        (Gemma).
      residual: norms before attention and MLP (`pre`), on their outputs (`post`, OLMo 2), both
        (`sandwich`, Gemma 3), or both branches beside each other on the same residual stream
        (`parallel`, GPT-NeoX).
      qk_norm: normalise queries and keys: not (empty), per head (`head`, Qwen 3) or over all heads
        together (`full`, OLMo 2).
      position: `rotary`, `alibi` (arXiv 2108.12409) or `learned` embeddings.
      rotary_fraction: of each head's dimensions that rotate.
      rope_scaling: Hugging Face `rope_parameters` beside theta, as sorted (key, value) pairs.
      alibi_max: the largest exponent of an ALiBi slope.
      attention_scale: of the attention logits; None means head_dim**-0.5.
      window: keys a query sees, itself included (sliding window); None means all before it.
      local: of every layer, whether the window holds there (Gemma 3, OLMo 3); empty: in all.
      local_theta: rotary base of the layers where it does, without scaling; None: as elsewhere.
      scaled_embed: embeddings are multiplied by sqrt(width), rounded to their own dtype (Gemma).
      clip_qkv: queries, keys and values are clipped to ± this.
      fused_qkv: one kernel for queries, keys and values (and so one adapter).
      gated: MLP down(act(gate) · up) rather than down(act(up)).
      lora_dropout: on the input of adapters, where `decoder.hidden` is given a key.

    Raises:
      UserError: sizes that no decoder has; names the fields.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    context: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tied_head: bool = True
    dtype: str = "float32"
    remat: str = "none"
    unroll: int = 1
    family: str = "llama"
    norm: str = "rms"
    norm_scale: bool = True
    norm_offset: float = 0.0
    norm_bias: bool = False
    residual: str = "pre"
    qk_norm: str = ""
    position: str = "rotary"
    rotary_fraction: float = 1.0
    rope_scaling: tuple[tuple[str, float | int | str | bool], ...] = ()
    alibi_max: float = 8.0
    attention_scale: float | None = None
    window: int | None = None
    local: tuple[bool, ...] = ()
    local_theta: float | None = None
    scaled_embed: bool = False
    clip_qkv: float | None = None
    fused_qkv: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    activation: str = "silu"
    gated: bool = True
    lora_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in SWITCHES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {allowed}")
        for name, most in MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise UserError(
                    f"{name}={getattr(self, name)} is no size of a model: give 1 to {most}"
                )
        if self.heads % self.kv_heads:
            raise UserError(f"kv_heads={self.kv_heads} does not divide heads={self.heads}")
        if self.position == "rotary" and self.rotary_fraction == 1 and self.head_dim % 2:
            raise UserError(f"head_dim={self.head_dim} is odd: rotary positions turn pairs")
        if len(self.local) not in (0, self.layers):
            raise UserError(f"local names {len(self.local)} layers, but layers={self.layers}")
        layer = max(3 * self.heads * self.head_dim, self.mlp_width)
        if self.width * max(self.vocab_size, self.layers * layer) > MOST_PARAMETERS:
            raise UserError(
                f"width={self.width}, vocab_size={self.vocab_size}, layers={self.layers}, "
                f"heads={self.heads}, head_dim={self.head_dim} and mlp_width={self.mlp_width} make "
                "more parameters than any machine holds: give smaller ones"
            )
