"""LoRA adapters (arXiv 2106.09685): fp32 `{path: {a, b}}` trees beside an untouched base.

A single adapter holds `a` (layers x D x r) and `b` (layers x r x F) per adapted kernel; a stack of
M adapters has a leading task axis.
"""

import dataclasses
import re
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from forget_jax.types import Tree


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """Rank, scaling and where.

    Attributes:
      rank: r.
      alpha: the update is scaled by alpha/r, or alpha/sqrt(r) with `rslora` (arXiv 2312.03732).
      targets: a regular expression over kernel paths such as `layers/attn/q`; the default adapts
        every linear layer of attention and MLP.
      rank_pattern, alpha_pattern: (regular expression over kernel paths, value) pairs that override
        `rank` and `alpha`; the first match counts.
      dropout: on the adapters' input while training; a trainer sets `DecoderConfig.lora_dropout` to
        it and gives `decoder.hidden` a key.
    """

    rank: int = 8
    alpha: float = 16.0
    rslora: bool = False
    targets: str = r"layers/(attn|mlp)/\w+"
    rank_pattern: tuple[tuple[str, int], ...] = ()
    alpha_pattern: tuple[tuple[str, float], ...] = ()
    dropout: float = 0.0

    def rank_of(self, path: str) -> int:
        """The rank of the kernel at a path."""
        return next(
            (r for pattern, r in self.rank_pattern if re.fullmatch(pattern, path)), self.rank
        )

    def scale_of(self, path: str) -> float:
        """What the update of the kernel at a path is multiplied by."""
        rank = self.rank_of(path)
        alpha = next(
            (a for pattern, a in self.alpha_pattern if re.fullmatch(pattern, path)), self.alpha
        )
        return alpha / (rank**0.5 if self.rslora else rank)


def kernels(params: dict[str, Any], prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Path and shape of every linear kernel of a parameter tree, in sorted order of paths."""
    found = {}
    for name, value in sorted(params.items()):
        path = f"{prefix}/{name}" if prefix else name
        if isinstance(value, dict):
            if "kernel" in value:
                found[path] = tuple(value["kernel"].shape)
            else:
                found |= kernels(value, path)
    return found


def init(config: LoRAConfig, params: dict[str, Any], key: jax.Array) -> Tree:
    """One fresh adapter with PEFT's initialisation: `a` uniform in ±1/sqrt(D), `b` zero.

    Each kernel draws from its own stream (the key folded with its path), so an adapter does not
    depend on what else is adapted or trained beside it.
    """
    adapters: Tree = {}
    for path, (layers, D, F) in kernels(params).items():
        if not re.fullmatch(config.targets, path):
            continue
        bound = D**-0.5  # kaiming_uniform(a=sqrt(5)) over fan-in D
        stream = jax.random.fold_in(key, zlib.crc32(path.encode()))
        rank = config.rank_of(path)
        # Drawn flat: the same numbers, whose program XLA compiles for a CPU in a tenth of the time.
        a = jax.random.uniform(stream, (layers * D * rank,), jnp.float32, -bound, bound)
        node = adapters
        for part in path.split("/"):
            node = node.setdefault(part, {})
        node |= {"a": a.reshape(layers, D, rank), "b": jnp.zeros((layers, rank, F), jnp.float32)}
    return adapters


def scaled(config: LoRAConfig, adapters: Tree) -> Tree:
    """The adapters with the scaling folded into `b`, as `decoder.hidden` wants them."""

    def walk(node: Tree, path: str) -> Tree:
        if "a" in node:
            return node | {"b": node["b"] * config.scale_of(path)}
        return {name: walk(child, f"{path}/{name}".lstrip("/")) for name, child in node.items()}

    return walk(adapters, "")


@jax.custom_vjp
def _low_rank(x_NxD: jax.Array, a_Dxr: jax.Array, b_rxF: jax.Array) -> jax.Array:
    """X·a·b, with any leading axes in common.

    Its own backward pass transposes the narrow operands only: x, which XLA would copy on CPU, and
    the gradient of the output stay as they lie.
    """
    return (x_NxD @ a_Dxr) @ b_rxF


def _low_rank_forward(
    x_NxD: jax.Array, a_Dxr: jax.Array, b_rxF: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    xa_Nxr = x_NxD @ a_Dxr
    return xa_Nxr @ b_rxF, (x_NxD, xa_Nxr, a_Dxr, b_rxF)


def _low_rank_backward(
    saved: tuple[jax.Array, ...], g_NxF: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x_NxD, xa_Nxr, a_Dxr, b_rxF = saved
    # On GPU XLA would join this product with the base's: beside b, each kernel would be copied.
    g_NxF = jax.lax.optimization_barrier(g_NxF)
    g_Nxr = g_NxF @ b_rxF.mT
    return g_Nxr @ a_Dxr.mT, (g_Nxr.mT @ x_NxD).mT, xa_Nxr.mT @ g_NxF


_low_rank.defvjp(_low_rank_forward, _low_rank_backward)


@jax.custom_vjp
def _choose(choice_AxBxS: jax.Array, x_AxSxDxF: jax.Array) -> jax.Array:
    """Every row's own matrix, by a one-hot product.

    Its transpose adds the rows' gradients per task. There 0 x NaN would carry what is not finite in
    one task's rows to all tasks, so such values are taken out of the product and given back to
    their own task alone.
    """
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("tbm,tmdf->tbdf", choice_AxBxS, x_AxSxDxF, precision=exact)


def _choose_backward(
    choice_AxBxS: jax.Array, gradient_AxBxDxF: jax.Array
) -> tuple[jax.Array, jax.Array]:
    finite_AxBxDxF = jnp.isfinite(gradient_AxBxDxF)
    clean_AxBxDxF = jnp.where(finite_AxBxDxF, gradient_AxBxDxF, 0)
    bad_AxBx1 = ~jnp.all(finite_AxBxDxF, axis=(2, 3))[..., None]
    bad_AxS = jnp.any((choice_AxBxS > 0) & bad_AxBx1, axis=1)
    exact = jax.lax.Precision.HIGHEST
    sums_AxSxDxF = jnp.einsum("tbm,tbdf->tmdf", choice_AxBxS, clean_AxBxDxF, precision=exact)
    return jnp.zeros_like(choice_AxBxS), jnp.where(bad_AxS[..., None, None], jnp.nan, sums_AxSxDxF)


_choose.defvjp(lambda choice, x: (_choose(choice, x), choice), _choose_backward)


def delta(x_BxLxD: jax.Array, a: jax.Array, b: jax.Array, choice: jax.Array | None) -> jax.Array:
    """The low-rank update x·a·b, BxLxF in the dtype of `x`.

    With a stack (`a` SxDxr, `b` SxrxF), each row takes its own matrices by a one-hot product with
    `choice` (choice_BxS): exact, and its transpose sums the gradients per adapter in a fixed order,
    where a gather's would be a scatter-add. Rows and adapters may come in A blocks that never mix
    (choice_AxBxS, with A·B rows and A·S adapters): on a mesh each block lies on its own devices,
    which need no other's.
    """
    dtype = x_BxLxD.dtype
    if choice is None:
        x_NxD = x_BxLxD.reshape(-1, x_BxLxD.shape[-1])
        return _low_rank(x_NxD, a.astype(dtype), b.astype(dtype)).reshape(*x_BxLxD.shape[:2], -1)
    choice_AxBxS = choice if choice.ndim == 3 else choice[None]
    A, B, S = choice_AxBxS.shape

    def of_rows(x: jax.Array) -> jax.Array:
        return _choose(choice_AxBxS, x.reshape(A, S, *x.shape[1:])).astype(dtype)

    x_AxBxLxD = x_BxLxD.reshape(A, B, *x_BxLxD.shape[1:])
    y_AxBxLxF = _low_rank(x_AxBxLxD, of_rows(a), of_rows(b))
    return y_AxBxLxF.reshape(*x_BxLxD.shape[:2], -1)


def merge(config: LoRAConfig, params: dict[str, Any], adapters: Tree) -> dict[str, Any]:
    """The base with one adapter added into its kernels, in the dtype of each kernel."""

    def walk(base: dict[str, Any], adapter: Tree) -> dict[str, Any]:
        if "a" in adapter:
            kernel = base["kernel"]
            update = jnp.einsum(
                "kdr,krf->kdf", adapter["a"], adapter["b"], precision=jax.lax.Precision.HIGHEST
            )
            return base | {"kernel": (kernel.astype(jnp.float32) + update).astype(kernel.dtype)}
        return base | {name: walk(base[name], child) for name, child in adapter.items()}

    return walk(params, scaled(config, adapters))
