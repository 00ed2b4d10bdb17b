"""Which base an adapter belongs to: what changes a fingerprint, what does not, and refusals."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from forget_jax.errors import UserError
from forget_jax.lm import lora
from forget_jax.lm.hf import about, checkpoint, fingerprint, peft
from forget_jax.lm.model import Adapters, Model

LORA = lora.LoRAConfig(rank=2, alpha=4)


@pytest.fixture
def base(checkpoint_of):
    return checkpoint_of("llama")


@pytest.fixture
def adapter(base, tmp_path):
    """An adapter of the base, trained a little, as the commands save it."""
    model = checkpoint.load(base)
    one = jax.tree.map(lambda x: x + 0.05, fresh(model.params, 0))
    peft.save(tmp_path / "adapter", one, model.config, str(base))
    return tmp_path / "adapter"


def fresh(params, seed):
    return Adapters(LORA, lora.init(LORA, params, jax.random.key(seed)))


def changed(base, folder, change):
    """A copy of a single-file checkpoint with other tensors."""
    shutil.copytree(base, folder)
    tensors = load_file(base / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", {"format": "pt"})
    return folder


def load(adapter, base):
    return peft.load(adapter, checkpoint.load(base), str(base))


def test_shards_order_and_place_do_not_matter(base, tmp_path):
    checkpoint.save(tmp_path / "sharded", checkpoint.load(base), shard_bytes=20_000)
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    moved = changed(base, tmp_path / "moved", lambda t: dict(reversed(t.items())))
    found = {fingerprint.of(f) for f in (base, tmp_path / "sharded", moved)}
    assert len(found) == 1 and len(found.pop()) == 32


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "lm_head.weight", "model.layers.1.mlp.down_proj.weight"]
)
def test_training_any_tensor_changes_it(base, tmp_path, name):
    other = changed(base, tmp_path / "other", lambda t: t | {name: t[name] * np.float32(1.01)})
    assert fingerprint.of(other) != fingerprint.of(base)


def test_precision_and_shape_change_it(base, tmp_path):
    checkpoint.save(tmp_path / "half", checkpoint.load(base), dtype="bfloat16")
    assert fingerprint.of(tmp_path / "half") != fingerprint.of(base)
    heads = shutil.copytree(base, tmp_path / "heads")
    raw = json.loads((heads / "config.json").read_text())
    many = raw["num_attention_heads"] // 2
    raw |= {"num_attention_heads": many, "head_dim": about.config_of(base).head_dim * 2}
    raw["num_key_value_heads"] //= 2
    (heads / "config.json").write_text(json.dumps(raw))
    assert fingerprint.of(heads) != fingerprint.of(base)


def test_a_base_that_changes_in_its_place_is_read_again(base):
    before = fingerprint.of(base)
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] += 1
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    assert fingerprint.of(base) != before


def test_only_pefts_files_and_ours_are_written(adapter, base):
    assert sorted(f.name for f in adapter.iterdir()) == [
        peft.CONFIG,
        peft.TENSORS,
        fingerprint.FILE,
    ]
    kept = json.loads((adapter / fingerprint.FILE).read_text())
    assert kept == {"base": str(base), "fingerprint": fingerprint.of(base)}
    assert json.loads((adapter / peft.CONFIG).read_text())["base_model_name_or_path"] == str(base)


def test_its_own_base_is_taken_wherever_it_lies(adapter, base, tmp_path, capsys):
    load(adapter, base)
    moved = tmp_path / "elsewhere"
    base.rename(moved)
    load(adapter, moved)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("foreign", [False, True])
def test_another_base_of_the_same_shape_is_refused(adapter, base, tmp_path, foreign):
    if foreign:  # PEFT's own files name a folder that is still there
        (adapter / fingerprint.FILE).unlink()
    other = changed(base, tmp_path / "other", lambda t: {n: x * 2 for n, x in t.items()})
    with pytest.raises(UserError) as e:
        load(adapter, other)
    line = str(e.value)
    assert f"{adapter} was trained on {base} (" in line and f"the base here is {other} (" in line
    assert "\n" not in line and (fingerprint.FILE in line) is not foreign
    peft.load(adapter, checkpoint.load(other))  # shapes alone: they fit


def test_a_base_that_was_trained_on_in_its_place_is_refused(adapter, base):
    tensors = {n: x * 2 for n, x in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="whose weights are others"):
        load(adapter, base)


@pytest.mark.parametrize("named", ["some/hub-name", None, "a folder without a checkpoint"])
def test_what_cannot_be_told_is_said(adapter, base, tmp_path, named, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder without a checkpoint").mkdir()
    (adapter / fingerprint.FILE).unlink()
    raw = json.loads((adapter / peft.CONFIG).read_text()) | {"base_model_name_or_path": named}
    (adapter / peft.CONFIG).write_text(json.dumps(raw))
    load(adapter, base)
    (line,) = capsys.readouterr().err.splitlines()
    assert str(adapter) in line and (named or "does not name its base") in line
    assert f"only its shapes are compared with {base}" in line


def test_an_adapter_of_a_merged_base(adapter, base, tmp_path):
    """Chained training: the second adapter belongs to the merged base, not to the first one."""
    model = checkpoint.load(base)
    merged = lora.merge(LORA, model.params, load(adapter, base).tree)
    checkpoint.save(tmp_path / "merged", Model(model.config, merged))
    one = fresh(merged, 1)
    peft.save(tmp_path / "second", one, model.config, str(tmp_path / "merged"))
    load(tmp_path / "second", tmp_path / "merged")
    for wrong, on in ((tmp_path / "second", base), (adapter, tmp_path / "merged")):
        with pytest.raises(UserError, match="was trained on"):
            load(wrong, on)


def test_a_base_gone_at_the_end_of_training_costs_no_adapter(adapter, base, tmp_path, capsys):
    model = checkpoint.load(base)
    shutil.rmtree(base)
    peft.save(tmp_path / "late", fresh(model.params, 0), model.config, str(base))
    assert "saved without its base's fingerprint" in capsys.readouterr().err
    assert (tmp_path / "late" / peft.CONFIG).exists()
    peft.load(tmp_path / "late", model)


@pytest.mark.parametrize("text", ["[1]", '{"base": "x"}', "{"])
def test_a_broken_file_of_ours(adapter, base, text):
    (adapter / fingerprint.FILE).write_text(text)
    with pytest.raises(UserError, match=fingerprint.FILE):
        load(adapter, base)


@pytest.mark.parametrize("size", [0, 3, 40, 300])
def test_a_truncated_base(base, size):
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError, match="broken or truncated safetensors"):
        fingerprint.of(base)
