"""Causal attention: which kernel where.

Right-padded rows with one example each (`segment_BxL is None`) need the causal mask only: no real
token ever sees the padding to its right, so kernels without segment ids (cuDNN) are safe. Packed
rows, ALiBi and reading from a key-value cache need a mask or a bias, which cuDNN does not take.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from forget_jax.lm import sharding
from forget_jax.lm.causal import Aside, causal
from forget_jax.lm.config import DecoderConfig


def has_cudnn(dtype: DTypeLike, head_dim: int) -> bool:
    """Whether cuDNN's fused attention serves here: half precision on NVIDIA's Ampere and later.

    Its heads are a multiple of 8 wide, at most 128, or 256 from Hopper on.
    """
    if jax.default_backend() != "gpu" or jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        return False
    device = jax.local_devices()[0]
    if "cuda" not in device.client.platform_version:
        return False
    generation = int(device.compute_capability.split(".")[0])
    widest = {8: 128}.get(generation, 256 if generation > 8 else 0)
    return head_dim % 8 == 0 and head_dim <= widest


def fused(config: DecoderConfig) -> bool:
    """Whether a model's rows of one example each go through cuDNN's attention."""
    return config.position != "alibi" and has_cudnn(config.dtype, config.head_dim)


def by_device(kernel: Callable[..., jax.Array], groups: int) -> Callable[..., jax.Array]:
    """Attention that each device of a mesh computes for its own rows and heads.

    XLA cannot see into a kernel: mapped over adapters, it would give every device all rows.
    """
    sizes = sharding.sizes()
    if not sizes:
        return kernel
    mine = jax.P(sharding.ROWS, None, "tensor" if groups % sizes["tensor"] == 0 else None, None)
    return jax.shard_map(kernel, in_specs=(mine,) * 3, out_specs=mine, check_vma=False)


class Weighting(NamedTuple):
    """What decides, beside queries and keys, how much each key weighs.

    Attributes:
      scale: of the logits; None means Dh**-0.5.
      window: how many keys a query sees, itself included; None means all before it.
      slopes_H: ALiBi slopes, or None.
      local: bool scalar: whether the window holds in this layer; None where it holds in all.
    """

    scale: float | None = None
    window: int | None = None
    slopes_H: np.ndarray | None = None
    local: jax.Array | None = None


def attend(
    q_BxLxHxDh: jax.Array,
    k_BxJxGxDh: jax.Array,
    v_BxJxGxDh: jax.Array,
    segment_BxL: jax.Array | None = None,
    cached_BxL: jax.Array | None = None,
    weighting: Weighting = Weighting(),  # noqa: B008 - immutable
) -> jax.Array:
    """Causal scaled dot-product attention, grouped-query where G < H.

    Args:
      q_BxLxHxDh, k_BxJxGxDh, v_BxJxGxDh: queries, keys and values after the rotary embedding.
      segment_BxL: which packed example each token belongs to (0: padding), or None for rows that
        hold one right-padded example each.
      cached_BxL: where keys and values are a cache in which each key lies at its position, the
        positions of the queries; None where they belong to the same tokens as the queries.

    Returns:
      BxLxHxDh, in the dtype of the queries; softmax in fp32.
    """
    scale, window, slopes_H, local = weighting
    if cached_BxL is None:
        plain = segment_BxL is None and slopes_H is None
        if not (plain and has_cudnn(q_BxLxHxDh.dtype, q_BxLxHxDh.shape[-1])):
            scale = q_BxLxHxDh.shape[-1] ** -0.5 if scale is None else scale
            aside = Aside(segment_BxL, slopes_H, local)
            return causal(q_BxLxHxDh, k_BxJxGxDh, v_BxJxGxDh, aside, scale, window)

        def kernel(seen: int | None) -> Callable[..., jax.Array]:
            fused = functools.partial(
                jax.nn.dot_product_attention,
                scale=scale,
                is_causal=True,
                local_window_size=None if seen is None else (seen - 1, 0),
                implementation="cudnn",
            )
            return by_device(fused, k_BxJxGxDh.shape[2])

        qkv = (q_BxLxHxDh, k_BxJxGxDh, v_BxJxGxDh)
        if local is None:
            return kernel(window)(*qkv)
        out: jax.Array = jax.lax.cond(local, kernel(window), kernel(None), *qkv)
        return out
    distance_BxLxJ = cached_BxL[:, :, None] - jnp.arange(k_BxJxGxDh.shape[1])
    mask_BxLxJ = distance_BxLxJ >= 0
    if window is not None:
        near_BxLxJ = distance_BxLxJ < window
        mask_BxLxJ &= near_BxLxJ if local is None else near_BxLxJ | ~local
    bias_BxHxLxJ = None
    if slopes_H is not None:
        bias_BxHxLxJ = -slopes_H[:, None, None] * distance_BxLxJ[:, None].astype(jnp.float32)
    return jax.nn.dot_product_attention(
        q_BxLxHxDh,
        k_BxJxGxDh,
        v_BxJxGxDh,
        bias=bias_BxHxLxJ,
        mask=mask_BxLxJ[:, None],
        scale=scale,
        implementation="xla",
    )
