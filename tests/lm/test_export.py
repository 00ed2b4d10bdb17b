import jax
import numpy as np
import pytest

from forget_jax.commands import config as configs
from forget_jax.commands import export, report
from forget_jax.errors import UserError
from forget_jax.lm import lora
from forget_jax.lm.hf import checkpoint, peft
from forget_jax.lm.hf import tokenizer as tokenizers


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    monkeypatch.setattr(report, "build", lambda workdir: None)


@pytest.fixture
def finetuned(tiny_base, tmp_path):
    """A workdir as finetune leaves it: an adapter that names its base."""
    config, params = checkpoint.load(tiny_base)
    lora_config = lora.LoRAConfig(rank=2, alpha=4)
    adapter = lora.init(lora_config, params, jax.random.key(0))
    adapter = jax.tree.map(lambda x: x + 0.05, adapter)
    peft.save(tmp_path / "run" / "adapter", lora_config, adapter, config, str(tiny_base))
    return tmp_path / "run", lora.merge(lora_config, params, adapter)


def configured(source, **fields):
    c = configs.load(f"export:{source}")
    for key, value in fields.items():
        configs.override(c, key, value)
    return c


def test_merged_checkpoint_is_base_plus_adapter_with_its_tokenizer(finetuned, tiny_base, tmp_path):
    run, merged = finetuned
    export.run(configured(run, shard_mib="1"), tmp_path / "out")
    config, params = checkpoint.load(tmp_path / "out" / "model")
    assert config == checkpoint.config_of(tiny_base)
    jax.tree.map(np.testing.assert_array_equal, params, merged)
    a, b = tokenizers.load(tiny_base), tokenizers.load(tmp_path / "out" / "model")
    assert a("the old sailor 42")["input_ids"] == b("the old sailor 42")["input_ids"]


def test_other_dtype_and_adapter_format(finetuned, tmp_path):
    run, _ = finetuned
    export.run(configured(run, dtype="bfloat16"), tmp_path / "half")
    _, params = checkpoint.load(tmp_path / "half" / "model")
    assert {str(x.dtype) for x in jax.tree.leaves(params)} == {"bfloat16"}
    assert checkpoint.raw_config(tmp_path / "half" / "model")["dtype"] == "bfloat16"
    export.run(configured(run / "adapter", format="adapter"), tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter" / peft.CONFIG).exists()
    export.run(configured(tmp_path / "half" / "model", dtype="float32"), tmp_path / "whole")
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
        export.run(configured(**fields), tmp_path / "out")
