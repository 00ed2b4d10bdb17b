"""Positions: rotary embeddings with every scaling of the Llama family, and ALiBi slopes.

Frequencies are computed on the host in fp32, like transformers does.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.lm.config import DecoderConfig

# `dynamic` acts beyond `max_position_embeddings` only, which no row of ours exceeds.
ROPE_TYPES = ("default", "dynamic", "linear", "llama3", "yarn")


def rotary_dim(config: DecoderConfig) -> int:
    """How many dimensions of a head rotate."""
    return int(config.head_dim * config.rotary_fraction)


def frequencies(config: DecoderConfig) -> tuple[np.ndarray, float]:
    """Angular frequency per pair of rotating dimensions, and what cosine and sine are scaled by.

    RoFormer (arXiv 2104.09864); position interpolation (2306.15595); YaRN (2309.00071, §3.2–3.4);
    `llama3` is Llama 3.1's (2407.21783), defined by its released code.
    """
    dim = rotary_dim(config)
    exponent = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    inverse = (np.float32(1.0) / np.float32(config.rope_theta) ** exponent).astype(np.float32)
    scaling: dict[str, Any] = dict(config.rope_scaling)
    kind = scaling.get("rope_type", "default")
    if kind in ("default", "dynamic"):
        return inverse, 1.0
    factor = float(scaling["factor"])
    if kind == "linear":
        return (inverse / np.float32(factor)).astype(np.float32), 1.0
    trained = float(scaling.get("original_max_position_embeddings", config.context))
    if kind == "llama3":
        return _llama3(inverse, factor, trained, scaling), 1.0
    if kind == "yarn":
        return _yarn(inverse, dim, config.rope_theta, factor, trained, scaling)
    raise ValueError(f"rope_type={kind!r} is not one of {ROPE_TYPES}")


def _llama3(
    inverse: np.ndarray, factor: float, trained: float, scaling: dict[str, Any]
) -> np.ndarray:
    """Long wavelengths are stretched, short ones kept, those between blended."""
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    turns = trained * inverse / np.float32(2 * math.pi)  # rotations over the trained context
    blend = np.clip((turns - low) / (high - low), 0, 1)
    return ((1 - blend) * inverse / factor + blend * inverse).astype(np.float32)


def _yarn(
    inverse: np.ndarray,
    dim: int,
    theta: float,
    factor: float,
    trained: float,
    scaling: dict[str, Any],
) -> tuple[np.ndarray, float]:
    def dimension(turns: float) -> float:  # that makes this many rotations over the context
        return dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = dimension(float(scaling.get("beta_fast") or 32))
    high = dimension(float(scaling.get("beta_slow") or 1))
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (np.arange(dim // 2, dtype=np.float32) - low) / ((high - low) or 0.001)
    interpolated = np.clip(ramp, 0, 1)
    mixed = inverse / np.float32(factor) * interpolated + inverse * (1 - interpolated)

    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    scale = scaling.get("attention_factor")
    if scale is None:
        one, all_dims = scaling.get("mscale"), scaling.get("mscale_all_dim")
        scale = magnitude(1.0)
        if one and all_dims:
            scale = magnitude(float(one)) / magnitude(float(all_dims))
    return mixed.astype(np.float32), float(scale)


def rotary(config: DecoderConfig, position_BxL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine tables, BxLx1x(rotating pairs), fp32; of layers that are not local."""
    inverse, scale = frequencies(config)
    angle = position_BxL[:, :, None, None].astype(jnp.float32) * inverse
    return jnp.cos(angle) * scale, jnp.sin(angle) * scale


def local_rotary(config: DecoderConfig, position_BxL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The tables of local layers: a base of their own, which no scaling stretches."""
    theta = config.rope_theta if config.local_theta is None else config.local_theta
    return rotary(dataclasses.replace(config, rope_theta=theta, rope_scaling=()), position_BxL)


def rotate(x_BxLxHxDh: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates the two halves of each head's first dimensions against each other; the rest stays."""
    half = cos.shape[-1]
    x32 = x_BxLxHxDh.astype(jnp.float32)
    x1, x2, rest = x32[..., :half], x32[..., half : 2 * half], x32[..., 2 * half :]
    turned = jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin, rest], -1)
    return turned.astype(x_BxLxHxDh.dtype)


def alibi_slopes(heads: int, largest: float) -> np.ndarray:
    """One slope per head, fp32 (H,): the geometric sequence of ALiBi (arXiv 2108.12409, §3).

    Where the heads are no power of two, the sequence of the next power is used, odd places first.
    """
    power = 2 ** math.ceil(math.log2(heads))
    slopes = 2.0 ** -(np.arange(1, power + 1) * (largest / power))
    if power != heads:
        slopes = np.concatenate([slopes[1::2], slopes[::2]])[:heads]
    return slopes.astype(np.float32)
