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

Adapters = dict[str, Any]


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


def init(config: LoRAConfig, params: dict[str, Any], key: jax.Array) -> Adapters:
    """One fresh adapter with PEFT's initialisation: `a` uniform in ±1/sqrt(D), `b` zero.

    Each kernel draws from its own stream (the key folded with its path), so an adapter does not
    depend on what else is adapted or trained beside it.
    """
    adapters: Adapters = {}
    for path, (layers, D, F) in kernels(params).items():
        if not re.fullmatch(config.targets, path):
            continue
        bound = D**-0.5  # kaiming_uniform(a=sqrt(5)) over fan-in D
        stream = jax.random.fold_in(key, zlib.crc32(path.encode()))
        rank = config.rank_of(path)
        a = jax.random.uniform(stream, (layers, D, rank), jnp.float32, -bound, bound)
        node = adapters
        for part in path.split("/"):
            node = node.setdefault(part, {})
        node |= {"a": a, "b": jnp.zeros((layers, rank, F), jnp.float32)}
    return adapters


def scaled(config: LoRAConfig, adapters: Adapters) -> Adapters:
    """The adapters with the scaling folded into `b`, as `decoder.hidden` wants them."""

    def walk(node: Adapters, path: str) -> Adapters:
        if "a" in node:
            return node | {"b": node["b"] * config.scale_of(path)}
        return {name: walk(child, f"{path}/{name}".lstrip("/")) for name, child in node.items()}

    return walk(adapters, "")


def delta(x_BxLxD: jax.Array, a: jax.Array, b: jax.Array, task_BxM: jax.Array | None) -> jax.Array:
    """The low-rank update x·a·b, BxLxF in the dtype of `x`.

    With a task axis (`a` MxDxr, `b` MxrxF), each row takes its own task's matrices by a one-hot
    product: exact, and its transpose sums the gradients per task in a fixed order, where a gather's
    would be a scatter-add.
    """
    dtype = x_BxLxD.dtype
    if task_BxM is None:
        return (x_BxLxD @ a.astype(dtype)) @ b.astype(dtype)
    exact = jax.lax.Precision.HIGHEST
    a_BxDxr = jnp.einsum("bm,mdr->bdr", task_BxM, a, precision=exact).astype(dtype)
    b_BxrxF = jnp.einsum("bm,mrf->brf", task_BxM, b, precision=exact).astype(dtype)
    return jnp.einsum("blr,brf->blf", jnp.einsum("bld,bdr->blr", x_BxLxD, a_BxDxr), b_BxrxF)


def merge(config: LoRAConfig, params: dict[str, Any], adapters: Adapters) -> dict[str, Any]:
    """The base with one adapter added into its kernels, in the dtype of each kernel."""

    def walk(base: dict[str, Any], adapter: Adapters) -> dict[str, Any]:
        if "a" in adapter:
            kernel = base["kernel"]
            update = jnp.einsum(
                "kdr,krf->kdf", adapter["a"], adapter["b"], precision=jax.lax.Precision.HIGHEST
            )
            return base | {"kernel": (kernel.astype(jnp.float32) + update).astype(kernel.dtype)}
        return base | {name: walk(base[name], child) for name, child in adapter.items()}

    return walk(params, scaled(config, adapters))
