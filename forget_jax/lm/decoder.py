"""One Flax Linen decoder: pure `apply({"params": base, "lora": adapters}, ...)`, layers scanned.

Linen because its `apply` is the pure-functional contract; the parameters are plain nested dicts
with a leading layer axis under `layers`. LoRA adapters live in their own collection at the paths of
the kernels they adapt, so the base never changes shape or name.

In half precision only the inputs of matrix products are rounded. The residual stream, norms, sums
over products, the adapter's share of them and the MLP's inner activation stay fp32: forgetting is a
small difference of two scores, and rounding those parts too doubles its error (docs/families.md).
What the backward pass keeps of the MLP is rounded, as gradients are.
"""

import dataclasses
import functools
import threading
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from forget_jax.lm import lora
from forget_jax.lm.attention import Weighting, attend
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.logprob import Head
from forget_jax.lm.lora import delta
from forget_jax.lm.model import Adapters, Batch, Model
from forget_jax.lm.positions import alibi_slopes, local_rotary, rotary, rotate
from forget_jax.lm.sharding import constrain_looked_up, constrain_rows
from forget_jax.types import Tree

__all__ = ["Decoder", "DecoderConfig", "empty_cache", "head", "hidden", "init"]

Cache = dict[str, jax.Array]

ACTIVATIONS = {
    "silu": nn.silu,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
    "relu": nn.relu,
}


@jax.custom_vjp
def _half_matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """X @ w in half precision, summed and returned in fp32; its gradients are half precision."""
    return jnp.matmul(x, w, preferred_element_type=jnp.float32)


def _half_matmul_backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, w = saved
    g = gradient.astype(x.dtype)  # an fp32 cotangent would make both products fp32, and slow
    return g @ w.T, jnp.einsum("...d,...f->df", x, g)


_half_matmul.defvjp(lambda x, w: (_half_matmul(x, w), (x, w)), _half_matmul_backward)


# What `remat="dots"` keeps: products with weights, as what follows wants them.
_named = functools.partial(checkpoint_name, name="product")


class Linear(nn.Module):
    """`x @ kernel + bias` in fp32, plus the low-rank update where an adapter lies at this path."""

    features: int
    config: DecoderConfig
    bias: bool = False

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, choice: jax.Array | None) -> jax.Array:
        normal, zeros = nn.initializers.normal(0.02), nn.initializers.zeros
        kernel = self.param("kernel", normal, (x_BxLxD.shape[-1], self.features))
        matmul = jnp.matmul if x_BxLxD.dtype == jnp.float32 else _half_matmul
        y_BxLxF = matmul(x_BxLxD, kernel.astype(x_BxLxD.dtype))
        if self.bias:
            y_BxLxF += self.param("bias", zeros, (self.features,)).astype(jnp.float32)
        if self.has_variable("lora", "a"):
            a: jax.Array = self.get_variable("lora", "a")
            b: jax.Array = self.get_variable("lora", "b")
            if self.config.lora_dropout and self.has_rng("dropout"):
                x_BxLxD = nn.Dropout(self.config.lora_dropout, deterministic=False)(x_BxLxD)
            y_BxLxF += delta(x_BxLxD, a, b, choice).astype(jnp.float32)
        return y_BxLxF


class Norm(nn.Module):
    """Root-mean-square or layer normalisation over the last axis: fp32 in, `config.dtype` out."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        x32 = x.astype(jnp.float32)
        if c.norm == "layer":
            x32 -= jnp.mean(x32, axis=-1, keepdims=True)
        x32 *= jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + c.norm_eps)
        if c.norm_scale:
            plain = nn.initializers.constant(1.0 - c.norm_offset)
            scale = self.param("scale", plain, (x.shape[-1],)).astype(jnp.float32)
            x32 *= scale + c.norm_offset if c.norm_offset else scale
        if c.norm_bias:
            x32 += self.param("bias", nn.initializers.zeros, (x.shape[-1],)).astype(jnp.float32)
        return x32.astype(c.dtype)


class Attention(nn.Module):
    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BxLxD, place, local, position_BxL, rope, segment_BxL, choice):  # type: ignore[no-untyped-def]
        c, (cache, number) = self.config, place
        B, L, D = x_BxLxD.shape
        Fq, Fk = c.heads * c.head_dim, c.kv_heads * c.head_dim
        if c.fused_qkv:
            qkv = Linear(Fq + 2 * Fk, c, c.qkv_bias, name="qkv")(x_BxLxD, choice)
            q, k, v = jnp.split(qkv, (Fq, Fq + Fk), axis=-1)
        else:
            q = Linear(Fq, c, c.qkv_bias, name="q")(x_BxLxD, choice)
            k = Linear(Fk, c, c.qkv_bias, name="k")(x_BxLxD, choice)
            v = Linear(Fk, c, c.qkv_bias, name="v")(x_BxLxD, choice)
        if c.qk_norm or c.clip_qkv is not None:  # whose backward passes want what they are given
            q, k, v = _named(q), _named(k), _named(v)
        if c.clip_qkv is not None:
            q, k, v = (jnp.clip(x, -c.clip_qkv, c.clip_qkv) for x in (q, k, v))
        if c.qk_norm == "full":
            q, k = Norm(c, name="q_norm")(q), Norm(c, name="k_norm")(k)
        q_BxLxHxDh = q.reshape(B, L, c.heads, c.head_dim)
        k_BxLxGxDh = k.reshape(B, L, c.kv_heads, c.head_dim)
        v_BxLxGxDh = v.reshape(B, L, c.kv_heads, c.head_dim)
        if c.qk_norm == "head":
            q_BxLxHxDh = Norm(c, name="q_norm")(q_BxLxHxDh)
            k_BxLxGxDh = Norm(c, name="k_norm")(k_BxLxGxDh)
        if c.position == "rotary":
            if local is not None:
                rope = [jnp.where(local, near, far) for near, far in zip(*rope, strict=True)]
            q_BxLxHxDh, k_BxLxGxDh = rotate(q_BxLxHxDh, *rope), rotate(k_BxLxGxDh, *rope)
        q_BxLxHxDh, keys, values = (
            _named(x.astype(c.dtype)) for x in (q_BxLxHxDh, k_BxLxGxDh, v_BxLxGxDh)
        )
        if cache is not None:  # every key lies at its own position, so padding is overwritten
            at = number, jnp.arange(B)[:, None], slice(None), position_BxL
            cache = {"k": cache["k"].at[at].set(keys), "v": cache["v"].at[at].set(values)}
            keys, values = (
                jax.lax.dynamic_index_in_dim(cache[x], number, keepdims=False).swapaxes(1, 2)
                for x in ("k", "v")
            )
        slopes_H = alibi_slopes(c.heads, c.alibi_max) if c.position == "alibi" else None
        o_BxLxHxDh = attend(
            q_BxLxHxDh,
            keys,
            values,
            segment_BxL,
            None if cache is None else position_BxL,
            Weighting(c.attention_scale, c.window, slopes_H, local),
        )
        o = Linear(D, c, c.o_bias, name="o")(o_BxLxHxDh.reshape(B, L, -1), choice)
        return _named(o), cache


def _activate(activation: str, *values: jax.Array) -> jax.Array:
    """act(gate) · up, or act(up)."""
    first, *rest = values
    return functools.reduce(jnp.multiply, rest, ACTIVATIONS[activation](first))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _inner(activation: str, dtype: DTypeLike, *values: jax.Array) -> jax.Array:
    """The MLP's inner values in fp32, rounded to `dtype`.

    The backward pass computes it again from its values as `dtype` rounds them: two arrays of the
    MLP's width are kept, not five of fp32 (at 7 B, 10 GiB of values rather than 21 in all).
    """
    return _activate(activation, *values).astype(dtype)


def _inner_forward(
    activation: str, dtype: DTypeLike, *values: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    saved = tuple(_named(x.astype(dtype)) for x in values)
    return _named(_inner(activation, dtype, *values)), saved


def _inner_backward(
    activation: str, dtype: DTypeLike, saved: tuple[jax.Array, ...], gradient: jax.Array
) -> tuple[jax.Array, ...]:
    values = (x.astype(jnp.float32) for x in saved)
    _, pull = jax.vjp(functools.partial(_activate, activation), *values)
    found: tuple[jax.Array, ...] = pull(gradient.astype(jnp.float32))
    return found


_inner.defvjp(_inner_forward, _inner_backward)


class MLP(nn.Module):
    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BxLxD, choice):  # type: ignore[no-untyped-def]
        c = self.config
        values = [Linear(c.mlp_width, c, c.mlp_bias, name="up")(x_BxLxD, choice)]
        if c.gated:
            gate = Linear(c.mlp_width, c, c.mlp_bias, name="gate")(x_BxLxD, choice)
            values.insert(0, gate)
        inner_BxLxF = _inner(c.activation, c.dtype, *values)
        down = Linear(x_BxLxD.shape[-1], c, c.mlp_bias, name="down")
        return _named(down(inner_BxLxF, choice))


class Layer(nn.Module):
    """One residual layer, shaped for `nn.scan`: the carry is the residual stream, and the cache.

    The cache is that of all layers, so that each writes to its own place of it and nothing of it is
    copied.
    """

    config: DecoderConfig

    @nn.compact
    def __call__(self, carry, number, local, position_BxL, rope, segment_BxL, choice):  # type: ignore[no-untyped-def]
        c, (h_BxLxD, cache) = self.config, carry
        attn, mlp = Attention(c, name="attn"), MLP(c, name="mlp")
        attn_norm, mlp_norm = Norm(c, name="attn_norm"), Norm(c, name="mlp_norm")
        where = ((cache, number), local, position_BxL, rope, segment_BxL, choice)
        h_BxLxD = constrain_rows(h_BxLxD)  # else XLA may cut features, and have all rows everywhere
        if c.residual == "post":
            y_BxLxD, cache = attn(h_BxLxD.astype(c.dtype), *where)
            h_BxLxD += attn_norm(y_BxLxD)
            return (h_BxLxD + mlp_norm(mlp(h_BxLxD.astype(c.dtype), choice)), cache), None
        y_BxLxD, cache = attn(attn_norm(h_BxLxD), *where)
        if c.residual == "sandwich":
            h_BxLxD += Norm(c, name="attn_post_norm")(y_BxLxD)
            y_BxLxD = mlp(mlp_norm(h_BxLxD), choice)
            return (h_BxLxD + Norm(c, name="mlp_post_norm")(y_BxLxD), cache), None
        if c.residual == "parallel":
            return (h_BxLxD + y_BxLxD + mlp(mlp_norm(h_BxLxD), choice), cache), None
        h_BxLxD += y_BxLxD
        return (h_BxLxD + mlp(mlp_norm(h_BxLxD), choice), cache), None


def _remat(config: DecoderConfig) -> Any:
    """The layer as the backward pass is to see it."""
    if config.remat == "none":
        return Layer
    names = jax.checkpoint_policies.save_only_these_names("product")
    kept = names if config.remat == "dots" else None
    in_loop = 0 < config.unroll < config.layers  # where XLA cannot see both passes
    return nn.remat(Layer, prevent_cse=not in_loop, policy=kept)


class Decoder(nn.Module):
    """Token ids to final hidden states; `logprob` turns these into log-probabilities."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        ids_BxL: jax.Array,
        position_BxL: jax.Array | None = None,
        segment_BxL: jax.Array | None = None,
        choice: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """Final hidden states after the last norm, and the cache with these tokens in it.

        Args:
          ids_BxL: int32 token ids, right-padded with any id.
          position_BxL: int32 positions; None counts from 0 in every row.
          segment_BxL: packed-example ids, 0 for padding; None for one example per row.
          choice: choice_BxS (or choice_AxBxS, see `lora.delta`): one-hot fp32, which adapter of a
            stack each row takes; None where there is a single one, or none.
          cache: keys and values of earlier tokens, from `empty_cache`; None to use none.

        Returns:
          h_BxLxD in `config.dtype`, and the new cache.
        """
        c = self.config
        normal = nn.initializers.normal(0.02)
        if position_BxL is None:
            position_BxL = jnp.broadcast_to(jnp.arange(ids_BxL.shape[1]), ids_BxL.shape)
        embedding = self.param("embed", normal, (c.vocab_size, c.width), jnp.float32)
        h_BxLxD = embedding[ids_BxL].astype(jnp.float32)
        if c.scaled_embed:
            h_BxLxD *= jnp.asarray(c.width**0.5, embedding.dtype).astype(jnp.float32)
        if c.position == "learned":
            table = self.param("embed_position", normal, (c.context, c.width), jnp.float32)
            h_BxLxD += table[position_BxL].astype(jnp.float32)
        h_BxLxD = constrain_looked_up(h_BxLxD)
        rope: Any = rotary(c, position_BxL) if c.position == "rotary" else None
        local = jnp.array(c.local) if c.local else None
        if local is not None and rope is not None:
            rope = local_rotary(c, position_BxL), rope
        layers = nn.scan(
            _remat(c),
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, 0, nn.broadcast, nn.broadcast, nn.broadcast, nn.broadcast),
            length=c.layers,
            unroll=c.unroll or c.layers,
        )(c, name="layers")
        number = None if cache is None else jnp.arange(c.layers)
        (h_BxLxD, cache), _ = layers(
            (h_BxLxD, cache), number, local, position_BxL, rope, segment_BxL, choice
        )
        if not c.tied_head:
            self.param("head", normal, (c.width, c.vocab_size), jnp.float32)
        return Norm(c, name="final_norm")(h_BxLxD), cache


def init(config: DecoderConfig, key: jax.Array) -> Tree:
    """Fresh fp32 parameters: normal(0, 0.02), residual projections scaled by 1/sqrt(2·layers).

    The scaling is GPT-2's (Radford et al. 2019, §2.3).
    """
    plain = dataclasses.replace(config, dtype="float32")  # runs wherever, and draws the same
    params = Decoder(plain).init(key, jnp.zeros((1, 2), jnp.int32))["params"]
    for block, name in (("attn", "o"), ("mlp", "down")):
        params["layers"][block][name]["kernel"] /= (2 * config.layers) ** 0.5
    return params


def head(params: Tree) -> Head:
    """The output projection: a matrix of its own, or the tied embedding."""
    return Head(params["head"], False) if "head" in params else Head(params["embed"], True)


def empty_cache(config: DecoderConfig, rows: int, length: int) -> Cache:
    """A key-value cache for `rows` sequences of up to `length` tokens, in `config.dtype`.

    Heads lie outside of positions, as products with single queries want them.
    """
    shape = (config.layers, rows, config.kv_heads, length, config.head_dim)
    return {name: jnp.zeros(shape, config.dtype) for name in ("k", "v")}


# While flax makes a class for `nn.scan`, the fields of the layer's own are gone for every thread.
_tracing = threading.RLock()


def hidden_and_cache(
    model: Model,
    adapters: Adapters | None,
    batch: Batch,
    choice: jax.Array | None = None,
    cache: Cache | None = None,
    dropout_key: jax.Array | None = None,
) -> tuple[jax.Array, Cache | None]:
    """The decoder as one pure function of base and adapters: final hidden states, and the cache.

    Args:
      adapters: a single one, or with `choice` a stack; None for the base alone.
      batch: of which the tokens, positions and segments are used.
      choice: choice_BxS (or choice_AxBxS, see `lora.delta`), one-hot fp32: which of a stack's
        adapters each row takes.
      cache: keys and values of earlier tokens, from `empty_cache`; None to use none.
      dropout_key: switches on `config.lora_dropout` (on the input of adapters only, like PEFT's).

    Returns:
      h_BxLxD in `config.dtype`, after the last norm; and the cache with these tokens in it.
    """
    variables = {"params": model.params}
    if adapters is not None:
        tree = lora.scaled(adapters.config, adapters.tree)
        if choice is not None:  # the scan runs over layers, which lie behind the axis of adapters
            tree = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), tree)
        variables["lora"] = tree
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    inputs = (batch.ids_BxL, batch.position_BxL, batch.segment_BxL, choice, cache)
    with _tracing:
        out: Any = Decoder(model.config).apply(variables, *inputs, rngs=rngs)
    return out


def hidden(
    model: Model,
    adapters: Adapters | None,
    batch: Batch,
    choice: jax.Array | None = None,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Final hidden states h_BxLxD; arguments as for `hidden_and_cache`, which it calls."""
    return hidden_and_cache(model, adapters, batch, choice, dropout_key=dropout_key)[0]
