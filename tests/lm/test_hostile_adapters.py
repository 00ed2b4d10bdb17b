"""Broken or hostile adapters: one clear line each, never a silently other model."""

import json
import re
import shutil
import time

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from forget_jax.lm import lora
from forget_jax.lm.hf import checkpoint, peft, peft_config, peft_merge
from forget_jax.lm.model import Adapters
from tests.lm.test_hostile import HEADERS, refused


@pytest.fixture
def folder(checkpoint_of):
    return checkpoint_of("llama")


@pytest.fixture
def adapter(folder, tmp_path):
    model = checkpoint.load(folder)
    lora_config = lora.LoRAConfig(rank=3, alpha=6)
    one = Adapters(lora_config, lora.init(lora_config, model.params, jax.random.key(0)))
    peft.save(tmp_path / "adapter", one, model.config)
    return tmp_path / "adapter", model


@pytest.mark.fault("adapters' configs", "one line")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"use_dora": True}, "use_dora, bias or modules_to_save"),
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING"),
        ({"bias": "all"}, "use_dora, bias or modules_to_save"),
        ({"modules_to_save": ["lm_head"]}, "use_dora, bias or modules_to_save"),
        *(({"r": r}, "r is .*; it must be") for r in (8.5, "8", 0, -1, None, [], True, 2**20)),
        *(({"lora_alpha": a}, "lora_alpha is ") for a in (float("nan"), float("inf"), "16", None)),
        ({"use_rslora": "yes"}, "use_rslora is the text 'yes'; it must be true or false"),
        ({"lora_dropout": 2}, "lora_dropout is a number .*1 or less"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is a list; it must be an object"),
        ({"rank_pattern": {"q_proj": "8"}}, "q_proj is the text '8'; it must be a whole number"),
        ({"alpha_pattern": {"q_proj": float("nan")}}, "q_proj is a number"),
        ({"rank_pattern": {"q_proj": 8.5}}, "q_proj is a number .8.5.; it must be a whole"),
        ({"rank_pattern": {r"(q)\1": 8}}, "not matched here, for it may take for ever"),
        ({"rank_pattern": {"(?=q).*": 8}}, "not matched here, for it may take for ever"),
        ({"rank_pattern": {"q{,3}": 8}}, "not matched here, for it may take for ever"),
        ({"rank_pattern": {"[[q]": 8}}, "not a regular expression"),
        ({"alpha_pattern": {"q" * 1000: 8}}, "names no modules"),
        ({"alpha_pattern": {"q\nk": "x"}}, "names no modules"),
        ({"alpha_pattern": {"q\ud800": 8}}, "names no modules"),
        ({"alpha_pattern": {"[": 8}}, "not a regular expression"),
        ({"alpha_pattern": None, "rank_pattern": 8}, "rank_pattern is a number"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path is a number"),
        ({"base_model_name_or_path": "a\nb"}, "not a name"),
        ({"target_modules": 3}, "target_modules is a number .*; it must be a list"),
        ({"target_modules": [["q_proj"]]}, "target_modules holds a list among the modules' names"),
        ({"modules_to_save": "lm_head"}, "modules_to_save is the text 'lm_head'"),
        ({"modules_to_save": [None]}, "modules_to_save holds null"),
        ({"bias": True}, "bias is true"),
        ({"bias": "some"}, "bias is 'some'; it must be none, all or lora_only"),
        ({"use_dora": 1}, "use_dora is a number"),
        ({"lora_dropout": "0.1"}, "lora_dropout is the text"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"r": 5}, r"shapes \(3, "),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
    ],
)
def test_other_adapters_are_named(adapter, change, says):
    folder, model = adapter
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refused(lambda: peft.load(folder, model), says)


@pytest.mark.fault("adapters' configs", "one line")
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not valid JSON"),
        (b"[]", "holds a list, not a JSON object"),
        ('{"r": 3}'.encode("utf-16"), "UTF-16"),
        (b'{"r": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"r": 1' + b"0" * 5000 + b"}", "thousands of digits"),
        (None, "cannot read"),
    ],
)
def test_configs_that_are_no_json(adapter, data, says):
    folder, model = adapter
    (folder / "adapter_config.json").unlink()
    if data is None:
        (folder / "adapter_config.json").mkdir()
    else:
        (folder / "adapter_config.json").write_bytes(data)
    refused(lambda: peft.load(folder, model), says)


@pytest.mark.fault("expensive expressions in adapters' configs", "as it should be")
@pytest.mark.parametrize(
    "key", ["(m|.)(o|.)(d|.)(e|.)(l|.)" * 12, "((.*)*)*=", "(.*.*.*.*)+=", "(.{1,9}){1,90}="]
)
def test_an_expensive_expression_costs_nothing(adapter, key):
    folder, model = adapter
    file = folder / "adapter_config.json"
    pattern = {"rank_pattern": {key: 8}, "alpha_pattern": {key: 8}}
    file.write_text(json.dumps(json.loads(file.read_text()) | pattern))
    began = time.process_time()
    assert peft.load(folder, model).config.rank_of("layers/attn/q") == 3
    assert time.process_time() - began < 5


def test_patterns_match_as_pefts_rule_has_it(adapter):
    """A key is a whole name or an ending of it at a dot; the first that matches counts."""
    folder, _ = adapter
    file = folder / "adapter_config.json"
    pattern = {r"layers\.1\..*\.(q|k)_proj": 2, "^model.layers.0.mlp.up_proj": 5, "_proj": 6,
               "proj": 6, "q_proj": 4, r"layers\.\d+\.self_attn\.q_proj": 7}  # fmt: skip
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rank_pattern": pattern}))
    config = peft_config.read(folder, "here")
    modules = [f"model.layers.{i}.{m}" for i in (0, 1, 11) for m in
               ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj")]  # fmt: skip
    expected = [
        next((r for key, r in pattern.items() if re.match(rf"(.*\.)?({key})$", m)), 3)
        for m in modules
    ]
    assert expected == [4, 3, 5, 2, 2, 3, 4, 3, 3]
    assert [rank for rank, _ in config.of(modules).values()] == expected


@pytest.mark.fault("adapters' tensors", "one line")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t, n: {n: t[n].astype(np.int8)}, "is I8, not floating point"),
        (lambda t, n: {n: t[n].astype(np.float64) + 1e300}, "NaN or infinite"),
        (lambda t, n: {n: t[n][None]}, "has shapes"),
        (lambda t, n: {n: np.zeros((0, 2**40), np.float32)}, "has shapes"),
        (lambda t, n: {n.replace(".lora_", ".default.lora_"): t[n]}, "are both"),
        (lambda t, n: {"a\nb": t[n]}, "no name of a tensor"),
        (lambda t, n: {"a" * 1000: t[n]}, "no name of a tensor"),
        (lambda t, n: {"model.layers.7.x.lora_A.weight": t[n]}, "has no place"),
    ],
)
def test_adapters_whose_tensors_are_others(adapter, change, says):
    folder, model = adapter
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file(tensors | change(tensors, sorted(tensors)[0]), file)
    refused(lambda: peft.load(folder, model), says)


HEAD, EMBED = "base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight"
UP = "base_model.model.model.layers.1.mlp.up_proj"
MAGNITUDE = f"{UP}.lora_magnitude_vector"


@pytest.mark.fault("adapters that are merged", "one line")
@pytest.mark.parametrize(
    ("config", "more", "says"),
    [
        ({}, {MAGNITUDE: (48,)}, "lora_magnitude_vector is there, but use_dora is false"),
        ({"use_dora": True}, {}, "lora_magnitude_vector is missing, but use_dora is true"),
        ({"use_dora": True}, "magnitudes", "these magnitudes of DoRA are not covered"),
        ({}, {HEAD: (70, 32)}, "embedding has 61 tokens, the head 70: a vocabulary that was resiz"),
        ({}, {EMBED: (70, 32)}, "embedding has 70 tokens, the head 61: a vocabulary that was resi"),
        ({}, {EMBED: (60, 32)}, r"embed_tokens.weight has shape \(60, 32\), the base \(61, 32\)"),
        ({}, {HEAD: (61, 31)}, r"lm_head.weight has shape \(61, 31\), the base \(61, 32\)"),
        ({}, {HEAD: (61,)}, r"lm_head.weight has shape \(61,\)"),
        ({}, {f"{UP}.lora_E.weight": (3,)}, "tensor model.layers.1.mlp.up_proj.lora_E.weight has"),
        (
            {},
            {"base_model.model.x.lora_A.weight": (3, 3), HEAD: (61, 32)},
            "x.lora_A.weight has no",
        ),
        ({}, {f"{UP}.lora_embedding_A": (3, 48), HEAD: (61, 32)}, "up_proj has shapes"),
        ({"lora_alpha": 1e300, "bias": "all"}, {HEAD: (61, 32)}, "holds NaN or infinite"),
    ],
)
def test_merged_adapters_that_do_not_fit(adapter, config, more, says):
    folder, model = adapter
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    tensors = load_file(folder / "adapter_model.safetensors")
    if more == "magnitudes":
        modules = {n.rsplit(".lora_", 1)[0] for n in tensors}
        more = {f"{m}.lora_magnitude_vector": (7,) for m in modules}
    made = {name: np.ones(shape, np.float32) for name, shape in more.items()}
    save_file(
        {n: x + np.float32(0.1) for n, x in tensors.items()} | made,
        folder / "adapter_model.safetensors",
    )
    assert not peft.is_plain(folder)
    refused(lambda: peft_merge.load(folder, model), says)


def test_adapters_that_do_not_fit(adapter, checkpoint_of, tmp_path):
    folder, model = adapter
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    last = sorted(tensors)[-1]
    save_file({k: v for k, v in tensors.items() if k != last}, file)
    refused(lambda: peft.load(folder, model), "is missing")
    save_file(tensors | {"base_model.model.lm_head.lora_A.weight": tensors[last]}, file)
    refused(lambda: peft.load(folder, model), "lm_head.* no place")
    save_file(tensors | {last: np.full_like(tensors[last], np.inf)}, file)
    refused(lambda: peft.load(folder, model), "NaN or infinite")
    file.unlink()
    refused(lambda: peft.load(folder, model), "holds no adapter_model")
    shutil.rmtree(folder)
    refused(lambda: peft.load(folder, model), "no adapter_config.json")


@pytest.mark.fault("safetensors headers", "one line")
@pytest.mark.parametrize("data", HEADERS)
def test_headers_that_are_none(adapter, data):
    (adapter[0] / "adapter_model.safetensors").write_bytes(data)
    refused(lambda: peft.load(*adapter), ".")
