"""Broken or hostile checkpoints: one clear line each, never a silently other model."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from forget_jax.errors import UserError
from forget_jax.lm.hf import about, checkpoint, fingerprint
from forget_jax.lm.hf import tokenizer as tokenizers


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


HEADERS = [
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
]


@pytest.mark.fault("safetensors headers", "one line")
@pytest.mark.parametrize("data", HEADERS)
def test_headers_that_are_none(folder, data):
    (folder / "model.safetensors").write_bytes(data)
    refused(lambda: checkpoint.load(folder), ".")
    refused(lambda: fingerprint.of(folder), ".")


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
