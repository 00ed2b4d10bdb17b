"""Broken or hostile checkpoints and adapters: one clear line each, never a silently other model."""

import json
import os
import re
import shutil
import time

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from forget_jax.errors import UserError
from forget_jax.lm import lora
from forget_jax.lm.hf import about, checkpoint, fingerprint, peft, peft_config, peft_merge
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.model import Adapters


def refused(action, says):
    with pytest.raises(UserError, match=says) as e:
        action()
    line = str(e.value)
    assert "\n" not in line
    print(line)


@pytest.fixture
def folder(checkpoint_of):
    return checkpoint_of("llama")


def edit(folder, change):
    """Rewrites the tensors of a single-file checkpoint."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_truncated_safetensors(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    refused(lambda: checkpoint.load(folder), "broken or truncated safetensors")
    file.write_bytes(b"\xff" * 40)
    refused(lambda: checkpoint.load(folder), "broken or truncated safetensors")
    file.write_bytes(b"")
    refused(lambda: checkpoint.load(folder), "broken or truncated safetensors")


@pytest.fixture
def sharded(folder, tmp_path):
    checkpoint.save(tmp_path / "sharded", checkpoint.load(folder), shard_bytes=20_000)
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    return tmp_path / "sharded"


def test_sharded_checkpoint_is_the_same(folder, sharded):
    a, b = checkpoint.load(folder), checkpoint.load(sharded)
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


def test_missing_shard(sharded):
    next(iter(sorted(sharded.glob("*-00002-*")))).unlink()
    refused(lambda: checkpoint.load(sharded), "shard model-00002-of-.* is missing")


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin"]
)
def test_index_that_names_a_path_outside(sharded, name):
    index = sharded / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"]["lm_head.weight"] = name
    index.write_text(json.dumps(raw))
    refused(lambda: checkpoint.load(sharded), "not a safetensors file of this folder")


def test_index_that_is_wrong_about_a_shard(sharded):
    index = sharded / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    names = sorted(set(raw["weight_map"].values()))
    tensor = next(k for k, v in raw["weight_map"].items() if v == names[0])
    raw["weight_map"][tensor] = names[1]
    index.write_text(json.dumps(raw))
    refused(lambda: checkpoint.load(sharded), f"tensor {tensor} is missing from the shard")
    index.write_text("{}")
    refused(lambda: checkpoint.load(sharded), "weight_map is missing")
    index.write_text("[1]")
    refused(lambda: checkpoint.load(sharded), "holds a list, not a JSON object")
    index.write_text('{"weight_map": {"a": 3}}')
    refused(lambda: checkpoint.load(sharded), "a is a number .*; it must be text")
    index.write_text("{")
    refused(lambda: checkpoint.load(sharded), "not valid JSON")


@pytest.mark.fault("heads and files that disagree", "one line")
def test_a_tensor_in_two_shards(sharded):
    first, second = sorted(sharded.glob("*.safetensors"))[:2]
    name, tensor = next(iter(load_file(first).items()))
    save_file(load_file(second) | {name: tensor * 2}, second)
    refused(lambda: checkpoint.load(sharded), f"{first.name} and {second.name} both hold .* {name}")


@pytest.mark.fault("heads and files that disagree", "as it should be")
def test_tensors_that_the_index_does_not_list(sharded, folder):
    """As transformers does, all that the shards hold is loaded."""
    index = sharded / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    del raw["weight_map"]["lm_head.weight"]
    index.write_text(json.dumps(raw))
    a, b = checkpoint.load(folder), checkpoint.load(sharded)
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


def test_missing_and_extra_tensors(folder):
    name = "model.layers.1.mlp.up_proj.weight"
    edit(folder, lambda t: t.pop(name))
    refused(lambda: checkpoint.load(folder), f"tensor {name} is missing")
    extra = "model.layers.1.self_attn.q_proj.bias"
    edit(
        folder,
        lambda t: t.update({name: np.zeros((48, 32), np.float32), extra: np.zeros(32, np.float32)}),
    )
    refused(lambda: checkpoint.load(folder), f"tensor {extra} has no place")


def test_layers_beyond_the_config_are_extra(folder):
    raw = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(raw))
    refused(lambda: checkpoint.load(folder), r"tensor model.layers.1.* has no place")


def test_wrong_shape_nan_and_integers(folder):
    name = "model.layers.0.mlp.up_proj.weight"
    edit(folder, lambda t: t.update({name: t[name].T.copy()}))
    refused(lambda: checkpoint.load(folder), rf"{name} has shape \(32, 48\)")
    bad = np.ones((48, 32), np.float32)
    bad[3, 4] = np.nan
    edit(folder, lambda t: t.update({name: bad}))
    refused(lambda: checkpoint.load(folder), f"{name} holds NaN")
    edit(folder, lambda t: t.update({name: np.ones((48, 32), np.int8)}))
    refused(lambda: checkpoint.load(folder), f"{name} is I8, not floating point")


def test_pickles_and_unfinished_folders(folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(lambda: checkpoint.load(folder), "pickle.*save_pretrained")
    (folder / "pytorch_model.bin").unlink()
    refused(lambda: checkpoint.load(folder), "holds no model.safetensors")
    (folder / "config.json").unlink()
    refused(lambda: checkpoint.load(folder), "no config.json")
    refused(lambda: checkpoint.load(tmp_path / "absent"), "not a folder")


def test_hub_name_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(lambda: checkpoint.load("nobody/no-such-model"), "neither a folder nor a model on the")


def test_config_with_remote_code(folder):
    raw = json.loads((folder / "config.json").read_text())
    raw["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps(raw))
    refused(lambda: checkpoint.load(folder), "modeling_evil.Evil.*never run")


def test_vocabulary_that_disagrees_with_the_tokenizer(folder):
    tokenizer = tokenizers.train(["some text"] * 3, 300)
    model = checkpoint.load(folder)
    refused(
        lambda: about.check_tokenizer(model.config, tokenizer, "m"),
        "tokenizer knows .* vocab_size=61",
    )


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


@pytest.mark.fault("heads and files that disagree", "as it should be")
def test_a_head_of_its_own_under_a_tied_flag(golden, tmp_path):
    """As transformers does: what differs from the embedding is loaded, untied."""
    from tests.lm.conftest import write_checkpoint

    name = "llama_tied_llama3_rope"
    folder = write_checkpoint(golden[name], tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    embed = tensors["model.embed_tokens.weight"]
    save_file(tensors | {"lm_head.weight": embed}, folder / "model.safetensors")
    assert checkpoint.load(folder).config.tied_head
    save_file(tensors | {"lm_head.weight": embed * 2}, folder / "model.safetensors")
    model = checkpoint.load(folder)
    assert not model.config.tied_head
    np.testing.assert_array_equal(model.params["head"], embed.T * 2)
    checkpoint.save(tmp_path / "again", model, hf_config=about.raw_config(folder))
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "again").params["head"], embed.T * 2)


EMBED_TOKENS, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.fault("heads and files that disagree", "one line")
@pytest.mark.parametrize(
    ("embed", "head", "says"),
    [
        (None, (61, 32), f"{EMBED_TOKENS} is missing"),
        ((), (), rf"{EMBED_TOKENS} has shape \(\), but config.json asks for \(61, 32\)"),
        ((61, 32), (), rf"{LM_HEAD} has shape \(\)"),
        ((), (61, 32), rf"{EMBED_TOKENS} has shape \(\)"),
        ((61,), (61,), rf"{EMBED_TOKENS} has shape \(61,\)"),
        ((61, 32), (61,), rf"{LM_HEAD} has shape \(61,\)"),
        ((61, 32), (32, 61), rf"{LM_HEAD} has shape \(32, 61\)"),
        ((0, 32), (0, 32), rf"{EMBED_TOKENS} has shape \(0, 32\)"),
        ((61, 0), (61, 0), rf"{EMBED_TOKENS} has shape \(61, 0\)"),
        ((61, 32), "int8", f"{LM_HEAD} is I8, not floating point"),
        ((61, 32), "nan", f"{LM_HEAD} holds NaN"),
    ],
)
def test_a_tied_head_that_can_be_none(golden, tmp_path, embed, head, says):
    from tests.lm.conftest import write_checkpoint

    folder = write_checkpoint(golden["llama_tied_llama3_rope"], tmp_path / "model")
    odd = {"int8": np.ones((61, 32), np.int8), "nan": np.full((61, 32), np.nan, np.float32)}
    given = odd[head] if isinstance(head, str) else np.ones(head, np.float32)

    def change(tensors):
        tensors[LM_HEAD] = given
        if embed != (61, 32):
            del tensors[EMBED_TOKENS]
        if embed not in (None, (61, 32)):
            tensors[EMBED_TOKENS] = np.ones(embed, np.float32)

    edit(folder, change)
    about.config_of(folder)  # which a command asks for before it loads
    refused(lambda: checkpoint.load(folder), says)


@pytest.mark.fault("heads and files that disagree", "one line")
def test_a_single_file_beside_an_index(folder, sharded):
    shutil.copy(folder / "model.safetensors", sharded / "model.safetensors")
    refused(lambda: checkpoint.load(sharded), "which names other files: remove the one")


@pytest.mark.fault("heads and files that disagree", "as it should be")
def test_the_fingerprint_reads_what_the_loader_reads(golden, tmp_path):
    from tests.lm.conftest import write_checkpoint

    folder = write_checkpoint(golden["llama_tied_llama3_rope"], tmp_path / "model")
    tied = fingerprint.of(folder)
    tensors = load_file(folder / "model.safetensors")
    embed = tensors["model.embed_tokens.weight"]
    save_file(tensors | {"lm_head.weight": embed}, folder / "model.safetensors")
    assert fingerprint.of(folder) == tied
    save_file(tensors | {"lm_head.weight": embed * 2}, folder / "model.safetensors")
    assert fingerprint.of(folder) != tied


def entry(**fields):
    """A safetensors file with one tensor of 8 bytes, so described."""
    held = {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | fields}
    text = json.dumps(held).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


@pytest.mark.fault("safetensors headers", "one line")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        (2**63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"{}",
        (3).to_bytes(8, "little") + b'{"\xff',
        entry(dtype=3),
        entry(shape=[2**62, 2**62]),
        entry(shape="2"),
        entry(shape=[-2]),
        entry(shape=[[2]]),
        entry(data_offsets=[0, 2**70]),
        entry(data_offsets=[8, 0]),
        entry(data_offsets=[0]),
        entry(data_offsets=None),
        entry(dtype="F32\n"),
    ],
)
def test_headers_that_are_none(folder, adapter, data):
    (folder / "model.safetensors").write_bytes(data)
    refused(lambda: checkpoint.load(folder), ".")
    refused(lambda: fingerprint.of(folder), ".")
    (adapter[0] / "adapter_model.safetensors").write_bytes(data)
    refused(lambda: peft.load(*adapter), ".")


def test_files_have_the_mode_that_the_umask_says(folder, tmp_path):
    old = os.umask(0o027)
    try:
        checkpoint.save(tmp_path / "saved", checkpoint.load(folder))
    finally:
        os.umask(old)
    modes = {f.name: oct(f.stat().st_mode & 0o777) for f in (tmp_path / "saved").iterdir()}
    assert set(modes.values()) == {"0o640"}, modes


@pytest.mark.fault("heads and files that disagree", "as it should be")
def test_saving_over_a_checkpoint_leaves_none_of_it(folder, tmp_path):
    model, target = checkpoint.load(folder), tmp_path / "target"
    for bytes_, names in ((4096, "model-"), (2**30, "model."), (4096, "model-")):
        checkpoint.save(target, model, shard_bytes=bytes_)
        found = [f.name for f in target.glob("*.safetensors")]
        assert found and all(name.startswith(names) for name in found)
        jax.tree.map(np.testing.assert_array_equal, checkpoint.load(target).params, model.params)


@pytest.mark.fault("ends of answers", "as it should be")
def test_ends_come_from_the_generation_config_first(folder):
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": 7}))
    assert about.eos_ids(folder) == (7,)
    (folder / "generation_config.json").write_text('{"eos_token_id": [3, 1, 2]}')
    assert about.eos_ids(folder) == (3, 1, 2)


@pytest.mark.fault("ends of answers", "one line")
@pytest.mark.parametrize("value", ['"a"', "[true]", "[1.5]", "-1", "{}", '["a"]'])
def test_ends_that_are_no_ids(folder, value):
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": {value}}}')
    refused(lambda: about.eos_ids(folder), "eos_token_id is .* a token's id or a list")
