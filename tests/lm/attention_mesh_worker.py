"""Prints how far attention that each device computes for itself is from one device's, with slopes.

Run on eight devices; plain XLA's attention stands where cuDNN's would be.
"""

import jax
import numpy as np

from forget_jax.lm import attention, sharding

MESHES = ((1, 8, 1, 1), (1, 1, 1, 8), (2, 1, 2, 2))


def main() -> None:
    plain = jax.nn.dot_product_attention
    jax.nn.dot_product_attention = lambda *x, implementation, **how: plain(*x, **how)
    attention.has_cudnn = lambda dtype, head_dim: True
    keys = jax.random.split(jax.random.key(0), 4)
    furthest = 0.0
    for heads, groups in ((8, 8), (8, 2)):
        *qkv, weight = (
            jax.random.normal(key, (8, 16, count, 4))
            for key, count in zip(keys, (heads, groups, groups, heads), strict=True)
        )

        def loss(q, k, v, weight=weight):
            return (attention.attend(q, k, v) * weight).sum()

        alone = jax.value_and_grad(loss, argnums=(0, 1, 2))(*qkv)
        for mesh in MESHES:
            jax.clear_caches()
            with sharding.entered(sharding.make(sharding.MeshShape(*mesh))):
                found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*qkv)
            apart = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), found, alone)
            furthest = max(furthest, *jax.tree.leaves(apart))
    print(furthest)


main()
