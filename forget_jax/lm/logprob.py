"""Log-probabilities of target tokens, chunked and rematerialised: B x L x V logits never exist.

The loss and the scorer both use this. Only positions that predict a target reach the output
projection: with prompts much longer than completions, that saves most of its work.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

CHUNK_LOGITS = 2**25  # logits alive at a time (fp32: 128 MiB)


class Head(NamedTuple):
    """The output projection: its own matrix (DxV), or a tied embedding as it lies (VxD).

    An embedding is not transposed in front of the loop over chunks: XLA would copy it there.
    """

    matrix: jax.Array
    tied: bool

    @property
    def kernel_DxV(self) -> jax.Array:
        return self.matrix.T if self.tied else self.matrix

    @property
    def vocab_size(self) -> int:
        return int(self.matrix.shape[0 if self.tied else 1])


def logits(h_BxCxD: jax.Array, head: Head) -> jax.Array:
    """Logits_BxCxV in fp32, from a product in the dtype of the hidden states."""
    return jnp.einsum(
        "bcd,vd->bcv" if head.tied else "bcd,dv->bcv",
        h_BxCxD,
        head.matrix.astype(h_BxCxD.dtype),
        preferred_element_type=jnp.float32,
    )


def target_logprobs(
    h_BxLxD: jax.Array,
    head: Head,
    at_BxT: jax.Array,
    target_BxT: jax.Array,
    chunk_logits: int = CHUNK_LOGITS,
) -> jax.Array:
    """Log p(target | all before it) at the given positions.

    Args:
      h_BxLxD: final hidden states.
      head: output projection.
      at_BxT: position in the row whose hidden state predicts the target.
      target_BxT: the token id predicted there.
      chunk_logits: how many logits may be alive at a time.

    Returns:
      logp_BxT in nats, fp32.
    """
    B = at_BxT.shape[0]
    h_BxTxD = jnp.take_along_axis(h_BxLxD, at_BxT[:, :, None], axis=1)

    def chunk(h_BxCxD: jax.Array, target_BxC: jax.Array) -> jax.Array:
        logits_BxCxV = logits(h_BxCxD, head)
        chosen = jnp.take_along_axis(logits_BxCxV, target_BxC[:, :, None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits_BxCxV, axis=-1)

    return _in_chunks(chunk, chunk_logits // (B * head.vocab_size), h_BxTxD, target_BxT)


def target_kl(
    base_BxLxD: jax.Array,
    h_BxLxD: jax.Array,
    head: Head,
    at_BxT: jax.Array,
    chunk_logits: int = CHUNK_LOGITS,
    base_head: Head | None = None,
) -> jax.Array:
    """KL(base || tuned) of the next token's distribution at the given positions.

    Args:
      base_BxLxD, h_BxLxD: final hidden states of the base and of what is tuned.
      head: output projection, of both where the base has none of its own.
      at_BxT, chunk_logits: as for `target_logprobs`.
      base_head: the base's.

    Returns:
      kl_BxT in nats, fp32.
    """
    B = at_BxT.shape[0]

    def chunk(base_BxCxD: jax.Array, h_BxCxD: jax.Array) -> jax.Array:
        p_BxCxV = jax.nn.log_softmax(logits(base_BxCxD, base_head or head))
        q_BxCxV = jax.nn.log_softmax(logits(h_BxCxD, head))
        return jnp.sum(jnp.exp(p_BxCxV) * (p_BxCxV - q_BxCxV), -1)

    both = (jnp.take_along_axis(h, at_BxT[:, :, None], axis=1) for h in (base_BxLxD, h_BxLxD))
    return _in_chunks(chunk, chunk_logits // (2 * B * head.vocab_size), *both)


def _in_chunks(chunk: Callable[..., jax.Array], most: int, *given_BxT: jax.Array) -> jax.Array:
    """A function of targets, so many at a time at most; computed again in the backward pass."""
    B, T = given_BxT[0].shape[:2]
    C = max(1, min(T, most))
    if C == T:  # one chunk: its logits fit, so keep them for the backward pass
        return chunk(*given_BxT)
    n = -(-T // C)
    pad = n * C - T

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, pad)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(B, n, C, *x.shape[2:]), 1, 0)

    remat = jax.checkpoint(chunk)
    found_nxBxC = jax.lax.map(lambda args: remat(*args), tuple(split(x) for x in given_BxT))
    return jnp.moveaxis(found_nxBxC, 0, 1).reshape(B, n * C)[:, :T]
