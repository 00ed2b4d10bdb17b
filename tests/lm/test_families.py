"""Every family against golden figures of transformers (fp32), made by tests/golden/parity.py."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.errors import UserError
from forget_jax.lm import decoder, generate
from forget_jax.lm.hf import checkpoint, families, hf_config
from forget_jax.lm.hf.tokenizer import transformers
from forget_jax.lm.logprob import logits
from forget_jax.lm.model import Batch

CASES = sorted(f.stem for f in (Path(__file__).parents[1] / "golden").glob("*.json"))


def test_golden_files_cover_every_family(golden):
    assert {case["config"]["model_type"] for case in golden.values()} == set(families.FAMILIES)


@pytest.mark.parametrize("name", CASES)
def test_log_probabilities_and_greedy_choices_are_transformers(name, golden, checkpoint_of):
    case = golden[name]
    model = checkpoint.load(checkpoint_of(name))
    rows = [p + c for p, c in zip(case["prompts"], case["continuation"], strict=True)]
    ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens

    @jax.jit
    def forward(model):
        h = decoder.hidden(model, None, Batch(ids))
        logits_BxLxV = logits(h, decoder.head(model.params))
        logp = jax.nn.log_softmax(logits_BxLxV[:, :-1])
        chosen = jnp.take_along_axis(logp, ids[:, 1:, None], axis=-1)[..., 0]
        return chosen, logits_BxLxV.argmax(-1)

    logp, best = map(np.asarray, forward(model))
    for i, prompt in enumerate(case["prompts"]):
        n = len(prompt)
        np.testing.assert_allclose(logp[i, : n - 1], case["logp"][i], atol=1e-4)
        assert best[i, n - 1 : n + 63].tolist() == case["continuation"][i]


@pytest.mark.parametrize("name", ["mistral_sliding_window", "mpt", "gpt2", "gpt_neox"])
def test_generation_from_the_cache_is_transformers(name, golden, checkpoint_of):
    case = golden[name]
    model = checkpoint.load(checkpoint_of(name))
    ids = np.zeros((8, 64), np.int32)
    for row, tokens in zip(ids, case["prompts"], strict=True):
        row[: len(tokens)] = tokens
    new = generate.greedy(model, None, case["prompts"], generate.Until(64), batch_size=8)
    assert new == case["continuation"]


@pytest.mark.parametrize("name", CASES)
def test_hf_to_us_to_hf_is_bit_identical(name, golden, checkpoint_of, tmp_path):
    from safetensors.numpy import load_file

    source = checkpoint_of(name)
    model = checkpoint.load(source)
    checkpoint.save(tmp_path / "back", model)
    a, b = (load_file(f / "model.safetensors") for f in (source, tmp_path / "back"))
    assert a.keys() == b.keys()
    assert all(a[k].tobytes() == b[k].tobytes() for k in a)
    assert checkpoint.config_of(tmp_path / "back") == model.config


@pytest.mark.parametrize("name", sorted(families.FAMILIES))
def test_every_setting_that_transformers_knows_is_accounted_for(name):
    family = families.FAMILIES[name]
    known = hf_config.flat(transformers().CONFIG_MAPPING[name]().to_dict()).keys()
    accounted = {"rope_parameters"} | family.fields.keys() | family.required.keys()
    assert known <= accounted | families.HARMLESS | family.harmless


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("llama", {"model_type": "gemma3"}, "family 'gemma3' is not supported"),
        ("llama", {"hidden_act": "quick_gelu"}, "hidden_act='quick_gelu'"),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "short_factor": [1] * 4,
                    "long_factor": [1] * 4,
                }
            },
            "rope_type='longrope'",
        ),
        (
            "qwen2",
            {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 8},
            "use_sliding_window=True",
        ),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention=True"),
        ("mpt", {"attn_config": {"qk_ln": True}}, "qk_ln=True"),
        ("mpt", {"attn_config": {"alibi": False}}, "alibi=False"),
        ("mpt", {"logit_scale": 0.5}, "logit_scale=0.5"),
        ("mpt", {"expansion_ratio": 2}, "expansion_ratio=2"),
        ("olmo2", {"head_dim": 12}, "head_dim=12"),
        ("llama", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}, "evil.Model"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantised"),
        ("llama", {"vocab_size": "many"}, "vocab_size"),
    ],
)
def test_unsupported_settings_are_named(name, change, says, golden):
    raw = golden[name]["config"] | change
    with pytest.raises(UserError, match=says) as e:
        hf_config.read(raw, "here/config.json")
    assert "here/config.json" in str(e.value) and "\n" not in str(e.value)


def test_old_and_new_spellings_mean_the_same(golden):
    new = golden["llama_linear_rope"]["config"]
    old = {k: v for k, v in new.items() if k != "rope_parameters"} | {
        "rope_theta": 1e4,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    }
    assert hf_config.read(old, "") == hf_config.read(new, "")
    neox = golden["gpt_neox"]["config"]
    old = {k: v for k, v in neox.items() if k != "rope_parameters"} | {
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
    }
    assert hf_config.read(old, "") == hf_config.read(neox, "")


@pytest.mark.parametrize("name", CASES)
def test_written_config_reads_back_the_same(name, golden):
    config = hf_config.read(golden[name]["config"], "")
    assert hf_config.read(hf_config.write(config, "float32"), "") == config
