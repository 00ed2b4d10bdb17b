"""Adapters in PEFT's format: golden figures of PEFT itself, and what survives the round trip."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.lm import decoder, lora
from forget_jax.lm.hf import checkpoint, peft
from forget_jax.lm.logprob import target_logprobs
from forget_jax.lm.model import Adapters, Batch, Model

GOLDEN = Path(__file__).parents[1] / "golden"
WITH_ADAPTER = [f.stem for f in sorted(GOLDEN.glob("*.json")) if '"adapter":' in f.read_text()]


@pytest.fixture
def write_adapter():
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parent / "conftest.py")
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    return tiny.write_adapter


def test_a_split_an_interleaved_and_a_conv1d_family_have_golden_adapters():
    assert set(WITH_ADAPTER) == {"llama", "gpt_neox", "gpt2"}


@pytest.mark.parametrize("name", WITH_ADAPTER)
def test_adapter_gives_pefts_log_probabilities(
    name, golden, checkpoint_of, write_adapter, tmp_path
):
    case = golden[name]
    folder = write_adapter(case["adapter"], tmp_path / "adapter")
    model = checkpoint.load(checkpoint_of(name))
    adapter = peft.load(folder, model)
    assert adapter.config.rslora and adapter.config.dropout == 0.1

    ids = np.zeros((8, 48), np.int32)
    for row, tokens in zip(ids, case["prompts"], strict=True):
        row[: len(tokens)] = tokens
    at = np.broadcast_to(np.arange(47), (8, 47))

    @jax.jit
    def score(model, adapter):
        h = decoder.hidden(model, adapter, Batch(ids))
        return target_logprobs(h, decoder.head(model.params), at, ids[:, 1:])

    logp = score(model, adapter)
    for row, tokens, expected, base in zip(
        logp, case["prompts"], case["adapter"]["logp"], case["logp"], strict=True
    ):
        np.testing.assert_allclose(row[: len(tokens) - 1], expected, atol=1e-4)
        if len(tokens) > 9:
            assert np.abs(np.array(expected) - base).max() > 0.1

    peft.save(tmp_path / "back", adapter, model.config)
    again = peft.load(tmp_path / "back", model)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        lora.scaled(adapter.config, adapter.tree),
        lora.scaled(again.config, again.tree),
    )


def test_ranks_and_alphas_by_module_survive(tiny_config, tiny_params, tmp_path):
    lora_config = lora.LoRAConfig(
        rank=4,
        alpha=8.0,
        rslora=True,
        rank_pattern=((".*/q", 2),),
        alpha_pattern=(("layers/mlp/.*", 5.0),),
        dropout=0.25,
    )
    tree = lora.init(lora_config, tiny_params, jax.random.key(0))
    tree = jax.tree.map(lambda x: x + 0.1, tree)
    assert tree["layers"]["attn"]["q"]["a"].shape[-1] == 2
    peft.save(tmp_path, Adapters(lora_config, tree), tiny_config)
    raw = json.loads((tmp_path / "adapter_config.json").read_text())
    assert raw["rank_pattern"] == {"q_proj": 2} and raw["use_rslora"]
    again = peft.load(tmp_path, Model(tiny_config, tiny_params))
    jax.tree.map(np.testing.assert_array_equal, tree, again.tree)
    for path in ("layers/attn/q", "layers/attn/k", "layers/mlp/up"):
        assert again.config.scale_of(path) == pytest.approx(lora_config.scale_of(path))
    assert again.config.dropout == 0.25


def test_dropout_acts_on_adapters_alone_and_keeps_their_mean(tiny_config, tiny_params):
    model = Model(dataclasses.replace(tiny_config, lora_dropout=0.5), tiny_params)
    lora_config = lora.LoRAConfig(rank=2, alpha=1, targets="layers/mlp/down")
    tree = lora.init(lora_config, tiny_params, jax.random.key(0))
    adapter = Adapters(lora_config, jax.tree.map(lambda x: x + 0.02, tree))
    batch = Batch(jnp.arange(12).reshape(2, 6))

    @jax.jit
    def run(adapter, key):
        return decoder.hidden(model, adapter, batch, dropout_key=key)

    keys = jax.random.split(jax.random.key(1), 400)
    off = jax.jit(lambda a: decoder.hidden(model, a, batch))(adapter)
    on = jax.vmap(lambda k: run(adapter, k))(keys)
    assert jnp.abs(on[0] - off).max() > 1e-3 and jnp.abs(on[0] - on[1]).max() > 1e-3
    base = jax.jit(lambda: decoder.hidden(model, None, batch))()
    assert jnp.abs(on.mean(0) - off).mean() < 0.2 * jnp.abs(off - base).mean()
    zeros = jax.tree.map(jnp.zeros_like, adapter)
    np.testing.assert_array_equal(run(zeros, keys[0]), run(zeros, keys[1]))
