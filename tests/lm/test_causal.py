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
    ("packed", "alibi", "window", "local"),
    [
        *itertools.product((False, True), (False, True), (None,), (None,)),
        *((True, True, 5, None), (True, False, 5, True), (True, False, 5, False)),
    ],
)
def test_agrees_with_the_dense_kernel(packed, alibi, window, local, monkeypatch):
    """Several uneven blocks, grouped queries; the segments end with padding.

    The window of a layer that is not local does not count.
    """
    monkeypatch.setattr(blockwise, "BLOCK", 8)
    B, L, H, G, Dh = 2, 29, 4, 2, 6
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, w = (
        jax.random.normal(key, (B, L, heads, Dh))
        for key, heads in zip(keys, (H, G, G, H), strict=True)
    )
    segment = jnp.asarray(np.repeat([[1, 2, 3, 0], [1, 1, 2, 0]], [9, 8, 7, 5], axis=1))
    what = (segment if packed else None, alibi_slopes(H, 8.0) if alibi else None)
    counts = None if local is not None and not local else window

    def our(*qkv):
        aside = blockwise.Aside(*what, None if local is None else jnp.asarray(local))
        return blockwise.causal(*qkv, aside, 0.3, window)

    def their(*qkv):
        return reference(*qkv, *what, 0.3, counts)

    np.testing.assert_allclose(our(q, k, v), their(q, k, v), atol=2e-6)
    ours = jax.grad(lambda *qkv: jnp.sum(our(*qkv) * w), (0, 1, 2))(q, k, v)
    theirs = jax.grad(lambda *qkv: jnp.sum(their(*qkv) * w), (0, 1, 2))(q, k, v)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6)


def test_half_precision_keeps_its_dtype():
    q = jax.random.normal(jax.random.key(0), (1, 12, 2, 4), jnp.bfloat16)
    o, back = jax.vjp(lambda x: blockwise.causal(x, x, x, blockwise.Aside(), 0.5, None), q)
    assert o.dtype == jnp.bfloat16 and back(o)[0].dtype == jnp.bfloat16
