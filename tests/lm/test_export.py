import jax
import numpy as np
import pytest

from forget_jax.commands import driver, report
from forget_jax.commands.settings import Export
from forget_jax.errors import UserError
from forget_jax.lm import lora
from forget_jax.lm.hf import checkpoint, peft
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.model import Adapters


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    monkeypatch.setattr(report, "build", lambda workdir: None)


@pytest.fixture
def finetuned(tiny_base, tmp_path):
    """A workdir as finetune leaves it: an adapter that names its base."""
    model = checkpoint.load(tiny_base)
    lora_config = lora.LoRAConfig(rank=2, alpha=4)
    tree = lora.init(lora_config, model.params, jax.random.key(0))
    tree = jax.tree.map(lambda x: x + 0.05, tree)
    adapter = Adapters(lora_config, tree)
    peft.save(tmp_path / "run" / "adapter", adapter, model.config, str(tiny_base))
    return tmp_path / "run", lora.merge(lora_config, model.params, tree)


def export(source, workdir, **fields):
    driver.drive("export", Export(str(source), **fields), workdir)


def test_merged_checkpoint_is_base_plus_adapter_with_its_tokenizer(finetuned, tiny_base, tmp_path):
    run, merged = finetuned
    export(run, tmp_path / "out", shard_mib=1)
    model = checkpoint.load(tmp_path / "out" / "model")
    assert model.config == checkpoint.config_of(tiny_base)
    jax.tree.map(np.testing.assert_array_equal, model.params, merged)
    a, b = tokenizers.load(tiny_base), tokenizers.load(tmp_path / "out" / "model")
    assert a("the old sailor 42")["input_ids"] == b("the old sailor 42")["input_ids"]


def test_other_dtype_and_adapter_format(finetuned, tmp_path):
    run, _ = finetuned
    export(run, tmp_path / "half", dtype="bfloat16")
    half = checkpoint.load(tmp_path / "half" / "model")
    assert {str(x.dtype) for x in jax.tree.leaves(half.params)} == {"bfloat16"}
    assert checkpoint.raw_config(tmp_path / "half" / "model")["dtype"] == "bfloat16"
    export(run / "adapter", tmp_path / "adapter", format="adapter")
    assert (tmp_path / "adapter" / "adapter" / peft.CONFIG).exists()
    export(tmp_path / "half" / "model", tmp_path / "whole", dtype="float32")
    assert (tmp_path / "whole" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"source": ""}, "source is not given"),
        ({"source": "/nowhere"}, "no adapter and no model"),
        ({"format": "gguf"}, "format is 'gguf'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
    ],
)
def test_mistakes_are_named(finetuned, tmp_path, fields, says):
    fields = {"source": str(finetuned[0]), **fields}
    with pytest.raises(UserError, match=says):
        export(workdir=tmp_path / "out", **fields)
