"""A memory plan per device, before anything is allocated, and advice where it cannot fit.

Parameters, adapters and optimizer are exact (from shapes). Activations are an estimate: what the
backward pass keeps per token and layer, from the decoder's own structure; tests hold it against the
compiler's figure.
"""

import ctypes
import dataclasses
import gc
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.errors import UserError
from forget_jax.lm import lora
from forget_jax.lm.attention import fused
from forget_jax.lm.causal import BLOCK, kept
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.hf.layout import shapes
from forget_jax.lm.logprob import CHUNK_LOGITS

USABLE = 0.9  # of a device's memory; the rest goes to the runtime and to fragmentation


@dataclasses.dataclass(frozen=True)
class Plan:
    """Bytes per device.

    Attributes:
      parameters: the frozen base, with the copy that an adapter is merged into; nothing in full
        fine-tuning.
      trainable: adapters of all tasks, or the whole model, in fp32.
      optimizer: Adam's two moments, the gradient's sum and what a microbatch adds to it; 0 where
        nothing is trained.
      gathered: the matrices of a layer, and the embeddings, while they are whole (`fsdp`).
      activations: an estimate, of one microbatch.
      logits: an estimate, of one chunk of log-probabilities.
    """

    parameters: int
    trainable: int
    optimizer: int
    gathered: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))

    def line(self) -> str:
        """One line for people."""
        parts = ", ".join(
            f"{f.name} {_gib(getattr(self, f.name))}"
            for f in dataclasses.fields(self)
            if getattr(self, f.name)
        )
        return f"memory per device: {parts}; {_gib(self.total)} in all (activations estimated)"


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


@dataclasses.dataclass(frozen=True)
class Work:
    """What one device computes at a time.

    Attributes:
      rows: of a microbatch, on one device.
      length: tokens of its longest row.
      dtype: of the base parameters.
      adapter: None trains (or scores) the whole model.
      adapters: how many are held at once.
      train: a training step, rather than scoring.
      shards: devices along the mesh's `fsdp` and `tensor`, which share each parameter.
      merge: adapters are added into a copy of the kernels that they adapt.
    """

    rows: int
    length: int
    dtype: str = "float32"
    adapter: lora.LoRAConfig | None = None
    adapters: int = 1
    train: bool = True
    shards: tuple[int, int] = (1, 1)
    merge: bool = False


def plan(config: DecoderConfig, work: Work) -> Plan:
    """The memory of one training step, or of scoring, on each device.

    Args:
      config: with the `dtype` and, in training, the `remat` that the work is done with.
    """
    adapter, train = work.adapter, work.train
    tree = shapes(config)
    size_of = {path: math.prod(shape) for path, shape in tree.items()}
    count = sum(size_of.values())
    full = train and adapter is None
    trained = count if full else 0
    if adapter is not None:
        kernels = {p.removesuffix("/kernel"): s for p, s in tree.items() if p.endswith("/kernel")}
        one = jax.eval_shape(
            lambda: lora.init(
                adapter,
                _nested({p: jnp.zeros(s) for p, s in kernels.items()}),
                jax.random.key(0),
            )
        )
        trained = work.adapters * sum(math.prod(x.shape) for x in jax.tree.leaves(one))
        if work.merge:
            count += sum(
                size_of[f"{path}/kernel"] for path in kernels if re.fullmatch(adapter.targets, path)
            )
    fsdp, tensor = work.shards
    tokens = work.rows * work.length
    chunk = min(CHUNK_LOGITS, tokens * config.vocab_size)
    beside = adapter is not None and not work.merge
    activations = tokens * activation_bytes_per_token(config, work.length, train, beside, tensor)
    layers = sum(size for path, size in size_of.items() if path.startswith("layers/"))
    outside = sum(size_of.get(path, 0) for path in ("embed", "head"))
    whole = _share(layers // config.layers + outside, tensor) if fsdp > 1 else 0
    # Training keeps both at once; a scorer is done with its layers when it makes logits.
    logits = 8 * chunk if train else max(0, 4 * chunk - activations)
    return Plan(
        parameters=0 if full else _share(count * jnp.dtype(work.dtype).itemsize, fsdp * tensor),
        trainable=_share(4 * trained, fsdp * tensor if full else 1),
        optimizer=_share(16 * trained, fsdp * tensor if full else 1) if train else 0,
        gathered=8 * whole if full else whole * jnp.dtype(work.dtype).itemsize,  # and its gradients
        activations=activations,
        logits=logits,
    )


def _nested(kernels: dict[str, jax.Array]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, kernel in kernels.items():
        node = tree
        for part in path.split("/"):
            node = node.setdefault(part, {})
        node["kernel"] = kernel
    return tree


def _share(size: int, shards: int) -> int:
    return -(-size // shards)


def activation_bytes_per_token(
    config: DecoderConfig, length: int, train: bool, adapted: bool = False, tensor: int = 1
) -> int:
    """What one token keeps alive: all layers' saved values in training, one layer's in scoring.

    Of each layer the backward pass wants the fp32 values that norms are given, the rounded inputs
    of products, queries, keys and values, attention's output (twice: as its own backward pass and
    as the next product wants it), the MLP's inner values rounded, and on the XLA path the attention
    weights, which grow with the row.

    Args:
      length: tokens of a row.
      train: a training step, rather than scoring.
      adapted: scored with a stack of adapters, whose updates lie beside the base's.
      tensor: devices that share heads and the MLP's inner values.
    """
    c, half = config, np.dtype(jnp.dtype(config.dtype)).itemsize
    heads, inner = _share(c.heads, tensor), _share(c.mlp_width, tensor)
    wide = (2 if c.gated else 1) * inner
    qkv = (heads + 2 * _share(c.kv_heads, tensor)) * c.head_dim
    if not train:
        weights = 0 if fused(c) else heads * (4 + half) * min(length, BLOCK)
        inside = max(4 * wide + half * inner, half * qkv + weights)
        return 4 * c.width + inside + (16 * c.width if adapted else 0)
    rounded = half * (wide + inner)
    layer = (
        4 * (4 if c.residual == "sandwich" else 2) * c.width
        + half * 2 * c.width
        + half * (qkv + 2 * heads * c.head_dim)
        + (0 if fused(c) else half * heads * (kept(length) // length))
        + rounded
    )
    if c.remat == "none":  # and what is in work while a layer's gradients are taken
        return c.layers * layer + 4 * (wide + inner)
    saved = 4 * c.width  # the residual stream between layers
    if c.remat == "dots":
        saved += half * qkv + 4 * c.width + rounded
    return c.layers * saved + layer + 4 * inner  # one layer's are there again


def available() -> int:
    """Bytes that one device has: its own limit, or its share of the machine's memory on CPU."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return machine() // jax.local_device_count()


WORTH_GIVING_BACK = 64 * 2**20  # bytes of arrays
GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine() -> int:
    """Bytes of this machine's memory, or of its container's share of it."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in GROUPS:
        try:
            found = min(found, int(Path(file).read_text()))
        except (OSError, ValueError):  # no such group, or one without a limit
            continue
    return found


def give_back() -> None:
    """Gives what was freed back to the system.

    The C library keeps it otherwise: after a whole model was trained, gigabytes that the next
    training does not reuse. Nothing happens where the library has no such call, or where arrays
    take little, those in cycles included: looking for cycles costs a third of a second.
    """
    if sum(array.nbytes for array in jax.live_arrays()) < WORTH_GIVING_BACK:
        return
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def fits(wanted: Plan, has: int | None = None) -> bool:
    """Whether a plan takes at most 90 % of what a device has.

    Args:
      has: bytes of a device; None asks `available`.
    """
    return wanted.total <= USABLE * (available() if has is None else has)


def check(
    wanted: Plan, config: DecoderConfig, has: int | None = None, fit: Sequence[str] = ()
) -> None:
    """Refuses a plan that cannot fit, and says what would help most.

    Args:
      config: of the model, as the plan was made for it.
      has: bytes of a device; None asks `available`.
      fit: the largest values that each would make it fit, such as `lora.rank of 8 or less`.

    Raises:
      UserError: the plan takes more than 90 % of the device's memory.
    """
    has = available() if has is None else has
    if fits(wanted, has):
        return
    fixed = wanted.parameters + wanted.trainable + wanted.optimizer
    advice = [" or ".join(fit)] if fit else []
    if wanted.activations + wanted.logits > fixed:
        advice.append("fewer rows at a time (train.microbatch, score.rows) or a shorter context")
        if wanted.optimizer and config.remat != "full":
            advice.append("recomputing activations (train.remat=full)")
    if wanted.optimizer and not wanted.parameters:
        advice.append("a smaller model, or adapters")
    elif wanted.optimizer > wanted.parameters:
        advice.append("a smaller lora.rank or fewer tasks together")
    if fixed > USABLE * has:
        advice.append(
            f"sharding the model over {math.ceil(fixed / (USABLE * has))} or more devices"
        )
        if wanted.parameters:
            advice.append("loading it in bfloat16")
    raise UserError(
        f"{wanted.line()}, but a device has {_gib(has)}; what helps: "
        f"{'; '.join(advice) or 'a smaller model'}"
    )
