"""Blockwise causal attention against `jax.nn.dot_product_attention`, values and gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.lm import causal as blockwise
from forget_jax.lm.positions import alibi_slopes


def reference(q, k, v, segment, slopes, scale, window):
    L = q.shape[1]
    distance = jnp.arange(L)[:, None] - jnp.arange(L)
    mask = (distance >= 0) & (distance < (window or L))
    mask = jnp.broadcast_to(mask, (q.shape[0], 1, L, L))
    if segment is not None:
        mask &= (segment[:, :, None] == segment[:, None, :])[:, None]
    bias = None if slopes is None else -slopes[:, None, None] * distance
    bias = None if bias is None else bias.astype(jnp.float32)[None]
    return jax.nn.dot_product_attention(
        q, k, v, bias=bias, mask=mask, scale=scale, implementation="xla"
    )


@pytest.mark.parametrize(
    ("packed", "alibi", "window"),
    [*itertools.product((False, True), (False, True), (None,)), (True, True, 5)],
)
def test_agrees_with_the_dense_kernel(packed, alibi, window, monkeypatch):
    """Several uneven blocks, grouped queries; the segments end with padding."""
    monkeypatch.setattr(blockwise, "BLOCK", 8)
    B, L, H, G, Dh = 2, 29, 4, 2, 6
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, w = (
        jax.random.normal(key, (B, L, heads, Dh))
        for key, heads in zip(keys, (H, G, G, H), strict=True)
    )
    segment = jnp.asarray(np.repeat([[1, 2, 3, 0], [1, 1, 2, 0]], [9, 8, 7, 5], axis=1))
    rest = (segment if packed else None, alibi_slopes(H, 8.0) if alibi else None, 0.3, window)

    def loss(attention):
        return lambda *qkv: jnp.sum(attention(*qkv, *rest) * w)

    np.testing.assert_allclose(
        blockwise.causal(q, k, v, *rest), reference(q, k, v, *rest), atol=2e-6
    )
    ours = jax.grad(loss(blockwise.causal), (0, 1, 2))(q, k, v)
    theirs = jax.grad(loss(reference), (0, 1, 2))(q, k, v)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6)


def test_half_precision_keeps_its_dtype():
    q = jax.random.normal(jax.random.key(0), (1, 12, 2, 4), jnp.bfloat16)
    o, back = jax.vjp(lambda x: blockwise.causal(x, x, x, None, None, 0.5, None), q)
    assert o.dtype == jnp.bfloat16 and back(o)[0].dtype == jnp.bfloat16
