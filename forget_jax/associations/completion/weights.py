"""Weights of candidates whose combination errs least (stacking, Wolpert 1992)."""

import jax
import jax.numpy as jnp

Array = jax.Array
STEPS, RATE = 1000, 2.0  # of the descent to the weights
START = 0.7  # weight of the given start where the descent begins; the rest is spread evenly


def weigh(products_MxCxC: Array, start_C: Array) -> Array:
    """Weights of the least squared error over the rows left out, by exponentiated gradient.

    A row counts by the square root of its candidates' median error: neither do a few rows of large
    entries decide alone, nor rows that hold nothing but noise. A candidate that is not finite has
    no weight.
    """
    size_MxC = jnp.diagonal(products_MxCxC, axis1=1, axis2=2)
    usable_C = jnp.isfinite(size_MxC).all(0)
    tiny = jnp.finfo(size_MxC.dtype).tiny
    products = jnp.where(usable_C[:, None] & usable_C, products_MxCxC, 0)
    size_M = jnp.nanmedian(jnp.where(usable_C, size_MxC, jnp.nan), 1)
    rooted = jnp.sqrt(jnp.maximum(size_M, tiny))
    mean_CxC = (products / rooted[:, None, None]).mean(0)
    mean_CxC = mean_CxC / jnp.maximum(jnp.nanmedian(size_M / rooted), tiny)

    def step(_: int, weight_C: Array) -> Array:
        slope_C = mean_CxC @ weight_C
        return jax.nn.softmax(jnp.log(weight_C) - RATE * (slope_C - weight_C @ slope_C))

    even_C = usable_C / jnp.maximum(usable_C.sum(), 1)
    begin_C = jnp.where(usable_C, START * start_C + (1 - START) * even_C, 0)
    found_C = jax.lax.fori_loop(0, STEPS, step, begin_C / begin_C.sum())
    return jnp.where(jnp.isfinite(found_C).all(), found_C, start_C)
