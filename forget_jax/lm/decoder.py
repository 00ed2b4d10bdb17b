"""One Flax Linen decoder: pure `apply({"params": base, "lora": adapters}, ...)`, layers scanned.

Linen because its `apply` is the pure-functional contract; the parameters are plain nested dicts with
a leading layer axis under `layers`. LoRA adapters live in their own collection at the paths of the
kernels they adapt, so the base never changes shape or name.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from forget_jax.lm.attention import attend
from forget_jax.lm.lora import delta

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder and the switches between families.

    Attributes:
      context: the most tokens a row may have, special tokens included.
      dtype: of activations and matrix products; parameters keep the dtype they were given.
      remat: recompute each layer's activations in the backward pass.
      unroll: layers per iteration of the scan; 0 means all (faster on CPU, slower to compile).
      family: whose names and layouts a checkpoint of it has; the decoder itself never asks.
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
    remat: bool = False
    unroll: int = 1
    family: str = "llama"


class Linear(nn.Module):
    """`x @ kernel`, plus the low-rank update where an adapter lies at this path."""

    features: int
    dtype: str

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, task_BxM: jax.Array | None) -> jax.Array:
        kernel = self.param(
            "kernel", nn.initializers.normal(0.02), (x_BxLxD.shape[-1], self.features)
        )
        y_BxLxF = x_BxLxD @ kernel.astype(self.dtype)
        if self.has_variable("lora", "a"):
            a, b = self.get_variable("lora", "a"), self.get_variable("lora", "b")
            y_BxLxF += delta(x_BxLxD, a, b, task_BxM)
        return y_BxLxF


class RMSNorm(nn.Module):
    """Root-mean-square normalisation, computed in fp32 (Llama 2)."""

    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        x32 *= jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return (scale * x32.astype(x.dtype)).astype(x.dtype)


def rotary(position_BxL: jax.Array, head_dim: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine tables, BxLx1x(Dh/2), fp32 (RoFormer, arXiv 2104.09864)."""
    frequency = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle = position_BxL[:, :, None, None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x_BxLxHxDh: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates the two halves of each head against each other (the layout of HF Llama weights)."""
    x1, x2 = jnp.split(x_BxLxHxDh.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1).astype(x_BxLxHxDh.dtype)


class Attention(nn.Module):
    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BxLxD, rope, segment_BxL, task_BxM):  # type: ignore[no-untyped-def]
        c = self.config
        B, L, D = x_BxLxD.shape
        q = Linear(c.heads * c.head_dim, c.dtype, name="q")(x_BxLxD, task_BxM)
        k = Linear(c.kv_heads * c.head_dim, c.dtype, name="k")(x_BxLxD, task_BxM)
        v = Linear(c.kv_heads * c.head_dim, c.dtype, name="v")(x_BxLxD, task_BxM)
        q_BxLxHxDh = rotate(q.reshape(B, L, c.heads, c.head_dim), *rope)
        k_BxLxGxDh = rotate(k.reshape(B, L, c.kv_heads, c.head_dim), *rope)
        v_BxLxGxDh = v.reshape(B, L, c.kv_heads, c.head_dim)
        o_BxLxHxDh = attend(q_BxLxHxDh, k_BxLxGxDh, v_BxLxGxDh, segment_BxL)
        return Linear(D, c.dtype, name="o")(o_BxLxHxDh.reshape(B, L, -1), task_BxM)


class MLP(nn.Module):
    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BxLxD, task_BxM):  # type: ignore[no-untyped-def]
        c = self.config
        gate = Linear(c.mlp_width, c.dtype, name="gate")(x_BxLxD, task_BxM)
        up = Linear(c.mlp_width, c.dtype, name="up")(x_BxLxD, task_BxM)
        return Linear(x_BxLxD.shape[-1], c.dtype, name="down")(nn.silu(gate) * up, task_BxM)


class Layer(nn.Module):
    """One pre-norm residual layer, shaped for `nn.scan`: the carry is the residual stream."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, h_BxLxD, rope, segment_BxL, task_BxM):  # type: ignore[no-untyped-def]
        eps = self.config.norm_eps
        x_BxLxD = RMSNorm(eps, name="attn_norm")(h_BxLxD)
        h_BxLxD += Attention(self.config, name="attn")(x_BxLxD, rope, segment_BxL, task_BxM)
        x_BxLxD = RMSNorm(eps, name="mlp_norm")(h_BxLxD)
        return h_BxLxD + MLP(self.config, name="mlp")(x_BxLxD, task_BxM), None


class Decoder(nn.Module):
    """Token ids to final hidden states; `logprob` turns these into log-probabilities."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        ids_BxL: jax.Array,
        position_BxL: jax.Array | None = None,
        segment_BxL: jax.Array | None = None,
        task_BxM: jax.Array | None = None,
    ) -> jax.Array:
        """Final hidden states after the last norm.

        Args:
          ids_BxL: int32 token ids, right-padded with any id.
          position_BxL: int32 positions; None counts from 0 in every row.
          segment_BxL: packed-example ids, 0 for padding; None for one example per row.
          task_BxM: one-hot fp32 choice of adapter per row; None where the adapters have no task
            axis (or there are none).

        Returns:
          h_BxLxD in `config.dtype`.
        """
        c = self.config
        if position_BxL is None:
            position_BxL = jnp.broadcast_to(jnp.arange(ids_BxL.shape[1]), ids_BxL.shape)
        embedding = self.param(
            "embed", nn.initializers.normal(0.02), (c.vocab_size, c.width), jnp.float32
        )
        h_BxLxD = embedding[ids_BxL].astype(c.dtype)
        rope = rotary(position_BxL, c.head_dim, c.rope_theta)
        layers = nn.scan(
            nn.remat(Layer, prevent_cse=False) if c.remat else Layer,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=c.layers,
            unroll=c.unroll or c.layers,
        )(c, name="layers")
        h_BxLxD, _ = layers(h_BxLxD, rope, segment_BxL, task_BxM)
        if not c.tied_head:
            self.param("head", nn.initializers.normal(0.02), (c.width, c.vocab_size), jnp.float32)
        return RMSNorm(c.norm_eps, name="final_norm")(h_BxLxD)


def init(config: DecoderConfig, key: jax.Array) -> Params:
    """Fresh fp32 parameters: normal(0, 0.02), residual projections scaled by 1/sqrt(2·layers).

    The scaling is GPT-2's (Radford et al. 2019, §2.3).
    """
    params = Decoder(config).init(key, jnp.zeros((1, 2), jnp.int32))["params"]
    for block, name in (("attn", "o"), ("mlp", "down")):
        params["layers"][block][name]["kernel"] /= (2 * config.layers) ** 0.5
    return params


def head_kernel(params: Params) -> jax.Array:
    """The output projection head_DxV: its own matrix, or the tied embedding transposed."""
    return params["head"] if "head" in params else params["embed"].T


def hidden(
    config: DecoderConfig,
    params: Params,
    adapters: Params | None,
    ids_BxL: jax.Array,
    position_BxL: jax.Array | None = None,
    segment_BxL: jax.Array | None = None,
    task_BxM: jax.Array | None = None,
) -> jax.Array:
    """The decoder as one pure function of base and adapters; see `Decoder.__call__`.

    `adapters` is a tree from `lora.init` already scaled by `lora.scaled`: without a task axis when
    `task_BxM` is None, with it as the leading axis otherwise.
    """
    variables = {"params": params}
    if adapters:
        if task_BxM is not None:  # the scan runs over layers, which lie behind the task axis
            adapters = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), adapters)
        variables["lora"] = adapters
    return Decoder(config).apply(variables, ids_BxL, position_BxL, segment_BxL, task_BxM)
