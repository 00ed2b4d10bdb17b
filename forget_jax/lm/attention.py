"""Causal attention: which kernel where.

Right-padded rows with one example each (`segment_BxL is None`) need the causal mask only: no real
token ever sees the padding to its right, so kernels without segment ids (cuDNN) are safe. Packed
rows need the segment mask and take the XLA path.
"""

import jax
import jax.numpy as jnp


def _implementation(dtype: jnp.dtype) -> str:
    half = dtype in (jnp.bfloat16, jnp.float16)
    return "cudnn" if jax.default_backend() == "gpu" and half else "xla"


def attend(
    q_BxLxHxDh: jax.Array,
    k_BxLxGxDh: jax.Array,
    v_BxLxGxDh: jax.Array,
    segment_BxL: jax.Array | None,
) -> jax.Array:
    """Causal scaled dot-product attention, grouped-query where G < H.

    Args:
      q_BxLxHxDh, k_BxLxGxDh, v_BxLxGxDh: queries, keys and values after the rotary embedding.
      segment_BxL: which packed example each token belongs to (0: padding), or None for rows that
        hold one right-padded example each.

    Returns:
      BxLxHxDh, in the dtype of the queries; softmax in fp32.
    """
    if segment_BxL is None:
        return jax.nn.dot_product_attention(
            q_BxLxHxDh,
            k_BxLxGxDh,
            v_BxLxGxDh,
            is_causal=True,
            implementation=_implementation(q_BxLxHxDh.dtype),
        )
    L = segment_BxL.shape[1]
    same_BxLxL = segment_BxL[:, :, None] == segment_BxL[:, None, :]
    mask_Bx1xLxL = (same_BxLxL & jnp.tril(jnp.ones((L, L), bool)))[:, None]
    return jax.nn.dot_product_attention(
        q_BxLxHxDh, k_BxLxGxDh, v_BxLxGxDh, mask=mask_Bx1xLxL, implementation="xla"
    )
