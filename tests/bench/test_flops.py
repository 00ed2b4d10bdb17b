"""Model FLOPs against hand counts, against XLA's own count, and as properties."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.lm import decoder, lora
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.cost import flops, peak
from forget_jax.lm.logprob import target_logprobs
from forget_jax.lm.model import Adapters, Batch, Model

LLAMA = DecoderConfig(
    vocab_size=96,
    width=32,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp_width=80,
    context=64,
)
GPT_NEOX = dataclasses.replace(
    LLAMA, kv_heads=4, fused_qkv=True, gated=False, residual="parallel", norm="layer", qkv_bias=True
)
RANK_2 = lora.LoRAConfig(rank=2)


def test_linear_parameters_by_hand():
    # q 32·32, k and v 32·16 each, o 32·32; gate, up and down 32·80 each
    assert flops.linear_parameters(LLAMA) == 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 80)
    # qkv 32·96, o 32·32; up and down 32·80 each
    assert flops.linear_parameters(GPT_NEOX) == 3 * (32 * 96 + 32 * 32 + 2 * 32 * 80)


def test_adapter_parameters_by_hand():
    each = 2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 80)  # q and o, k and v, the MLP's three
    assert flops.adapter_parameters(LLAMA, RANK_2) == 3 * 2 * each
    only_q = dataclasses.replace(RANK_2, targets="layers/attn/q", rank_pattern=((".*/q", 5),))
    assert flops.adapter_parameters(LLAMA, only_q) == 3 * 5 * (32 + 32)
    base = decoder.init(LLAMA, jax.random.key(0))
    made = lora.init(RANK_2, base, jax.random.key(0))
    assert flops.adapter_parameters(LLAMA, RANK_2) == sum(x.size for x in jax.tree.leaves(made))


def test_work_counts_the_pairs_that_attention_sees():
    lengths = [1, 5, 8]
    assert flops.work(LLAMA, lengths, 7) == flops.Work(14, 1 + 15 + 36, 7)
    window = dataclasses.replace(LLAMA, window=3)
    pairs = sum(min(q, 3) for n in lengths for q in range(1, n + 1))
    assert flops.work(window, lengths, 7).pairs == pairs
    some = dataclasses.replace(window, local=(True, False, True))
    assert flops.work(some, lengths, 7).pairs == (2 * pairs + 1 + 15 + 36) // 3
    parts = [flops.work(LLAMA, [n], n - 1) for n in lengths]
    assert sum(parts, flops.Work()) == flops.work(LLAMA, lengths, sum(lengths) - 3)


def test_scoring_and_training_by_hand():
    done = flops.work(LLAMA, [10, 20], 12)
    linear, adapter = flops.linear_parameters(LLAMA), flops.adapter_parameters(LLAMA, RANK_2)
    attention = 4 * (55 + 210) * 4 * 8 * 3  # two products of 2·Dh a pair, 4 heads, 3 layers
    head = 2 * 12 * 32 * 96
    assert flops.scoring(LLAMA, done) == 2 * linear * 30 + attention + head
    assert flops.training(LLAMA, done, None) == 6 * linear * 30 + 3 * attention + 3 * head
    with_adapter = (4 * linear + 6 * adapter) * 30 + 3 * attention + 2 * head
    assert flops.training(LLAMA, done, RANK_2) == with_adapter
    eight = flops.scoring(LLAMA, done, RANK_2, models=8)
    assert eight == 8 * (2 * (linear + adapter) * 30 + attention + head)


@pytest.mark.parametrize("config", [LLAMA, GPT_NEOX], ids=["llama", "gpt_neox"])
@pytest.mark.parametrize("mode", ["scoring", "full", "lora"])
def test_agrees_with_what_xla_counts(config, mode):
    """Within 10 %: XLA adds norms, activations and softmax, and computes all L² pairs."""
    B, L = 2, 32
    wide = dataclasses.replace(config, width=128, head_dim=32, mlp_width=512, unroll=0)
    base = decoder.init(wide, jax.random.key(0))
    adapter = lora.LoRAConfig(rank=8)
    tree = lora.init(adapter, base, jax.random.key(0))
    ids = jnp.zeros((B, L), jnp.int32)
    at = jnp.broadcast_to(jnp.arange(L), (B, L))

    def loss(params, adapters):
        h = decoder.hidden(Model(wide, params), adapters, Batch(ids))
        return target_logprobs(h, decoder.head(params), at, ids).sum()

    done = flops.Work(B * L, B * L * L, B * L)
    if mode == "scoring":
        counted, fn = flops.scoring(wide, done), lambda p, a: loss(p, None)
    elif mode == "full":
        counted, fn = flops.training(wide, done, None), jax.grad(lambda p, a: loss(p, None))
    else:
        counted, fn = flops.training(wide, done, adapter), jax.grad(loss, argnums=1)
    by_xla = jax.jit(fn).lower(base, Adapters(adapter, tree)).cost_analysis()["flops"]
    assert counted == pytest.approx(by_xla, rel=0.1)


def test_peak_figures_are_measured():
    before = peak.memory()
    kept = np.ones(64 * 2**20, np.uint8)  # every page is written
    assert peak.memory() >= max(before, kept.nbytes)
    assert peak.matmul() == peak.matmul() > 1e8
