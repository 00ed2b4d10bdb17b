"""Model FLOPs: the arithmetic a model needs for its real tokens, whatever the program computes.

A multiply and an add count as two. Counted are matrix products alone (as by Kaplan et al.,
arXiv 2001.08361, §2.1, and Chowdhery et al., arXiv 2204.02311, appendix B): every linear kernel for
every real token, attention over the pairs that the causal mask keeps, and the output projection
where there is a target. Embedding lookups, norms, padding and recomputation count nothing, so a
utilisation from these figures cannot be raised by computing more.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable

import numpy as np

from forget_jax.lm import lora
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.hf.layout import shapes


@dataclasses.dataclass(frozen=True)
class Work:
    """What is computed on, without padding; amounts of work add up.

    Attributes:
      tokens: real tokens.
      pairs: (query, key) pairs that attention looks at, in one head of one layer; the mean of
        layers where some are local.
      targets: positions whose next token is predicted.
    """

    tokens: int = 0
    pairs: int = 0
    targets: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.tokens + other.tokens, self.pairs + other.pairs, self.targets + other.targets
        )


def work(config: DecoderConfig, lengths: Iterable[int], targets: int) -> Work:
    """The work of a number of examples.

    Args:
      lengths: tokens of each example.
      targets: of all examples together.
    """
    n = np.asarray(list(lengths), np.int64)
    near = n if config.window is None else np.minimum(n, config.window)

    def pairs(seen: np.ndarray) -> int:
        # the first `seen` queries look at 1, 2, …, seen keys; each one after them at `seen`
        return int((seen * (seen + 1) // 2 + (n - seen) * seen).sum())

    local = sum(config.local) if config.local else config.layers
    mean = (local * pairs(near) + (config.layers - local) * pairs(n)) // config.layers
    return Work(int(n.sum()), mean, int(targets))


def _kernels(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    found = shapes(config).items()
    return {p.removesuffix("/kernel"): shape for p, shape in found if p.endswith("/kernel")}


def linear_parameters(config: DecoderConfig) -> int:
    """Parameters of all linear kernels of all layers: not embeddings, norms, biases or the head."""
    return sum(math.prod(shape) for shape in _kernels(config).values())


def adapter_parameters(config: DecoderConfig, adapter: lora.LoRAConfig) -> int:
    """Parameters of one adapter: r·(D + F) for every adapted D x F kernel of every layer."""
    return sum(
        adapter.rank_of(path) * layers * (inner + outer)
        for path, (layers, inner, outer) in _kernels(config).items()
        if re.fullmatch(adapter.targets, path)
    )


def _attention(config: DecoderConfig, done: Work) -> float:
    """Forward: queries by keys and weights by values, in every head of every layer."""
    return 4.0 * done.pairs * config.heads * config.head_dim * config.layers


def _head(config: DecoderConfig, done: Work) -> float:
    """Forward: the output projection."""
    return 2.0 * done.targets * config.width * config.vocab_size


def scoring(
    config: DecoderConfig, done: Work, adapter: lora.LoRAConfig | None = None, models: int = 1
) -> float:
    """FLOPs of a forward pass: 2 per parameter and token, and attention; so many models' in all.

    Args:
      done: the work of one model.
      adapter: of each model, beside the base; None for merged or whole models.
      models: scored on the same examples.
    """
    extra = 0 if adapter is None else adapter_parameters(config, adapter)
    linear = 2.0 * (linear_parameters(config) + extra) * done.tokens
    return models * (linear + _attention(config, done) + _head(config, done))


def training(config: DecoderConfig, done: Work, adapter: lora.LoRAConfig | None) -> float:
    """FLOPs of forward and backward passes; the optimizer's are none of the model's.

    Full fine-tuning takes 6 per parameter and token: 2 forward, 2 for the gradient of the inputs
    and 2 for that of the weights. With an adapter the base has no gradient of its weights, so it
    takes 4, and the adapter's own parameters 6. Attention has two products forward and four back.

    Args:
      done: the work of all steps, or of one.
      adapter: None trains the whole model.
    """
    linear = linear_parameters(config)
    if adapter is None:
        per_token, head = 6.0 * linear, 3.0
    else:
        per_token, head = 4.0 * linear + 6.0 * adapter_parameters(config, adapter), 2.0
    return per_token * done.tokens + 3 * _attention(config, done) + head * _head(config, done)


def of_training(config: DecoderConfig, adapter: lora.LoRAConfig | None) -> Callable[[Work], float]:
    """`training` as a function of the work alone, whose factors are worked out once.

    Args:
      adapter: None trains the whole model.
    """
    units = Work(tokens=1), Work(pairs=1), Work(targets=1)
    token, pair, target = (training(config, unit, adapter) for unit in units)
    return lambda done: token * done.tokens + pair * done.pairs + target * done.targets
