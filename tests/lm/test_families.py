"""Every family against golden figures of transformers (fp32), made by tests/golden/parity.py."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.errors import UserError
from forget_jax.lm import decoder, generate
from forget_jax.lm.hf import about, checkpoint, families, hf_config
from forget_jax.lm.hf.tokenizer import transformers
from forget_jax.lm.logprob import logits
from forget_jax.lm.model import Batch, Model

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


@pytest.mark.parametrize(
    "name", ["mistral_sliding_window", "gemma3_text", "olmo3", "mpt", "gpt2", "gpt_neox"]
)
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
    assert about.config_of(tmp_path / "back") == model.config


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
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ("gemma3_text", {"sliding_window": None}, "sliding_window=None"),
        ("olmo3", {"layer_types": ["chunked_attention"] * 3}, "layer_types=.'chunked_attention'"),
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


def test_spellings_of_alternating_layers_mean_the_same(golden):
    for name in ("gemma3_text", "olmo3"):
        new = golden[name]["config"]
        rope = dict(new["rope_parameters"]["full_attention"])
        old = {k: v for k, v in new.items() if k != "rope_parameters"} | {
            "rope_theta": rope.pop("rope_theta"),
            "rope_scaling": rope,
            "rope_local_base_freq": 1e3,
        }
        if name == "olmo3":  # whose old spelling has one base, transformers' own default
            old |= {"rope_theta": 5e5}
            for of in new["rope_parameters"].values():
                of["rope_theta"] = 5e5
        assert hf_config.read(old, "") == hf_config.read(new, "")
    layers = {"num_hidden_layers": 7, "layer_types": None}
    read = hf_config.read(golden["gemma3_text"]["config"] | layers, "")
    assert read.local == (True,) * 5 + (False, True)
    layers["sliding_window_pattern"] = 3
    read = hf_config.read(golden["gemma3_text"]["config"] | layers, "")
    assert read.local == (True, True, False) * 2 + (True,)
    assert (
        hf_config.read(golden["olmo3"]["config"] | layers, "").local
        == (True,) * 3 + (False,) + (True,) * 3
    )


def test_local_layers_turn_by_a_base_that_no_scaling_stretches(golden):
    read = hf_config.read(golden["gemma3_text"]["config"], "")
    assert (read.rope_theta, read.local_theta, read.window) == (5e4, 1e3, 7)
    assert dict(read.rope_scaling) == {"rope_type": "linear", "factor": 8.0}
    assert read.attention_scale == 24**-0.5 and read.scaled_embed and read.norm_offset == 1


def test_embeddings_are_scaled_in_their_own_dtype(golden, checkpoint_of):
    """Sqrt(32) is 5.656 in fp32 and 5.65625 in bfloat16, as transformers' buffer is."""
    model = checkpoint.load(checkpoint_of("gemma3_text"))
    half = checkpoint.load(checkpoint_of("gemma3_text"), dtype="bfloat16")
    whole = {"embed": half.params["embed"].astype(jnp.float32) * (5.65625 / 32**0.5)}
    batch = Batch(np.array([golden["gemma3_text"]["prompts"][5]], np.int32))
    rest = jax.tree.map(lambda x: x.astype(jnp.float32), half.params)
    expected = decoder.hidden(Model(model.config, rest | whole), None, batch)
    np.testing.assert_allclose(decoder.hidden(half, None, batch), expected, atol=1e-4)
    plain = decoder.hidden(Model(model.config, rest), None, batch)
    assert np.abs(plain - expected).max() > 5e-4


@pytest.mark.parametrize("name", ["gemma3_text", "olmo3"])
def test_packed_rows_of_alternating_layers_score_like_rows_of_their_own(
    name, golden, checkpoint_of
):
    """The window and both rotary bases start again with each example."""
    model = checkpoint.load(checkpoint_of(name))
    prompts = golden[name]["prompts"][3:7]
    packed = decoder.hidden(
        model,
        None,
        Batch(
            np.concatenate(prompts)[None].astype(np.int32),
            np.concatenate([np.arange(len(p)) for p in prompts])[None],
            np.concatenate([[i + 1] * len(p) for i, p in enumerate(prompts)])[None],
        ),
    )[0]
    at = 0
    for prompt in prompts:
        alone = decoder.hidden(model, None, Batch(np.array([prompt], np.int32)))[0]
        np.testing.assert_allclose(packed[at : at + len(prompt)], alone, atol=1e-4)
        at += len(prompt)


@pytest.mark.parametrize("name", CASES)
def test_written_config_reads_back_the_same(name, golden):
    config = hf_config.read(golden[name]["config"], "")
    assert hf_config.read(hf_config.write(config, "float32"), "") == config


WRONG = (None, [], {}, "x", True, -1, 0, 1.5, float("nan"), 10**9, 2**31, 2**64, 10**40)
ROPE = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


def one_line(raw, says="."):
    with pytest.raises(UserError, match=says) as e:
        hf_config.read(raw, "here/config.json")
    line = str(e.value)
    assert line.startswith("here/config.json: ") and line.isprintable() and len(line) < 1000


@pytest.mark.fault("models' configs", "one line")
@pytest.mark.parametrize("name", ["llama", "gpt2", "mpt", "qwen3"])
@pytest.mark.parametrize("field", ["width", "layers", "heads", "vocab_size", "context"])
def test_sizes_that_no_model_has(name, field, golden):
    """Of every type, negative, zero and huge: nothing is traced and no list of layers is made."""
    fields = families.FAMILIES[name].fields
    key = next(key for key, of in fields.items() if of == field)
    for value in WRONG:
        if field != "context" or value not in (10**9, True):
            one_line(golden[name]["config"] | {key: value}, key)


@pytest.mark.fault("models' configs", "one line")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_key_value_heads": 3}, "kv_heads=3 does not divide heads=4"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"head_dim": 7}, "head_dim=7 is odd|even"),
        ({"head_dim": 2**20}, "head_dim is a number"),
        ({"auto_map": ["evil.Model"]}, "auto_map is a list; it must be an object"),
        ({"auto_map": {"AutoModel": [3]}}, "auto_map holds a number"),
        ({"auto_map": {"AutoModel": ["evil.Model", None]}}, "evil.Model"),
        ({"model_type": 3}, "model_type is a number"),
        ({"model_type": None}, "family '' is not supported"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is the text 'yes'"),
        ({"hidden_act": ["silu"]}, "hidden_act is a list"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps is the text"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps is a number .*0 or more"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps"),
        ({"attention_bias": 1}, "attention_bias is a number"),
        ({"layer_types": "full_attention"}, "layer_types"),
        ({"layer_types": [["full_attention"]]}, "layer_types"),
        ({"layer_types": 3}, "layer_types"),
        ({"per_layer_config": {"1": {"head_dim": 8}}}, "per_layer_config"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 0}}, "rope_theta is"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "."),
        ({"rope_parameters": ["linear"]}, "rope_parameters is a list"),
        ({"rope_scaling": "linear"}, "rope_scaling is the text"),
        ({"rope_scaling": {"rope_type": 3}}, "rope_scaling.rope_type is a number"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "4"}}, "factor is the text '4'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor is a number"),
        ({"rope_parameters": ROPE | {"truncate": "no"}}, "truncate is the text"),
        ({"rope_parameters": ROPE | {"beta_fast": [32]}}, "beta_fast is a list"),
        ({"rope_parameters": ROPE | {"rope_theta": 1.0}}, "no finite angles"),
        ({"rope_parameters": None, "rope_scaling": None, "rope_theta": "x"}, "rope_theta"),
    ],
)
def test_settings_of_wrong_types_are_named(change, says, golden):
    one_line(golden["llama"]["config"] | change, says)


NEAR = {"rope_type": "default", "rope_theta": 1e4}


@pytest.mark.fault("models' configs", "one line")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is a number"),
        ({"query_pre_attn_scalar": -1}, "query_pre_attn_scalar is a number"),
        ({"query_pre_attn_scalar": "256"}, "query_pre_attn_scalar is the text"),
        ({"query_pre_attn_scalar": None}, "query_pre_attn_scalar"),
        ({"layer_types": ["full_attention"]}, "layer"),
        ({"layer_types": None, "sliding_window_pattern": 0}, "sliding_window_pattern is"),
        ({"layer_types": None, "sliding_window_pattern": None}, "sliding_window_pattern is null"),
        ({"rope_parameters": NEAR}, "rope_parameters holds 'rope_theta'"),
        ({"rope_parameters": {"full_attention": 3}}, "full_attention is a number"),
        (
            {"rope_parameters": {"full_attention": NEAR | {"rope_theta": "x"}}},
            "rope_parameters.full_attention.rope_theta is the text 'x'",
        ),
        (
            {"rope_parameters": {"sliding_attention": NEAR | {"rope_type": "linear", "factor": 2}}},
            "sliding_attention.rope_type=.*supported: default",
        ),
        ({"rope_parameters": None, "rope_local_base_freq": -3}, "rope_local_base_freq is a number"),
    ],
)
@pytest.mark.parametrize("name", ["gemma3_text", "olmo3"])
def test_settings_of_alternating_layers_are_named(name, change, says, golden):
    if name == "olmo3" and {"query_pre_attn_scalar", "rope_local_base_freq"} & change.keys():
        return
    one_line(golden[name]["config"] | change, says)


@pytest.mark.fault("models' configs", "one line")
@pytest.mark.parametrize("raw", [None, [], "llama", 3, True, [{"model_type": "llama"}], {}])
def test_configs_that_are_no_objects(raw):
    one_line(raw)


@pytest.mark.fault("models' configs", "as it should be")
@pytest.mark.parametrize(
    "change",
    [
        {"num_labels": 10**9},
        {"id2label": {"a": "b"}},
        {"dtype": "__class__", "torch_dtype": 3},
        {"to_dict": 3, "validate": None, "__class__": "x", "_attn_implementation": 3},
        {"problem_type": "no such", "output_attentions": True, "attn_implementation": "flash"},
        {"architectures": 3, "bos_token_id": "x", "eos_token_id": [1, 2, 3]},
        {"keys_to_ignore_at_inference": ["past_key_values"], "pad_token_id": 2**70},
    ],
)
def test_what_says_nothing_of_the_model_changes_nothing(change, golden, capfd):
    """Nor is it handed to transformers, whose class takes any key for an attribute."""
    raw = golden["llama"]["config"]
    assert hf_config.read(raw | change, "") == hf_config.read(raw, "")
    said = capfd.readouterr()
    assert not said.out and not said.err


@pytest.mark.fault("models' configs", "as it should be")
def test_a_config_without_rope_theta_has_the_familys_own(golden):
    raw = golden["llama"]["config"]
    bare = {k: v for k, v in raw.items() if k not in ("rope_parameters", "rope_theta")}
    for rope in ({}, {"rope_parameters": None}, {"rope_parameters": {"rope_type": "default"}}):
        assert hf_config.read(bare | rope, "").rope_theta == 10000.0


@pytest.mark.fault("sizes of models", "one line")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"width": 10**9}, "width=1000000000 is no size"),
        ({"layers": 10**9}, "layers=1000000000 is no size"),
        ({"vocab_size": 2**31}, "vocab_size=2147483648 is no size"),
        ({"heads": 0, "kv_heads": 0}, "heads=0 is no size"),
        ({"kv_heads": 3}, "kv_heads=3 does not divide heads=4"),
        ({"head_dim": 3}, "head_dim=3 is odd"),
        ({"width": 2**20, "layers": 2**14, "mlp_width": 2**24}, "more parameters than any"),
    ],
)
def test_sizes_are_refused_before_anything_is_traced(change, says):
    names = ("vocab_size", "width", "layers", "heads", "kv_heads", "head_dim", "mlp_width")
    sizes = dict(zip(names, (61, 16, 2, 4, 2, 4, 32), strict=True)) | {"context": 64}
    with pytest.raises(UserError, match=says):
        decoder.DecoderConfig(**(sizes | change))
