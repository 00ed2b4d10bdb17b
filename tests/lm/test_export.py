import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from forget_jax.commands import driver, report
from forget_jax.commands.settings import Export
from forget_jax.errors import UserError
from forget_jax.lm import lora
from forget_jax.lm.hf import about, checkpoint, fingerprint, peft, peft_config
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.model import Adapters, Model


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
    assert model.config == about.config_of(tiny_base)
    jax.tree.map(np.testing.assert_array_equal, model.params, merged)
    a, b = tokenizers.load(tiny_base), tokenizers.load(tmp_path / "out" / "model")
    assert a("the old sailor 42")["input_ids"] == b("the old sailor 42")["input_ids"]


def test_other_dtype_and_adapter_format(finetuned, tmp_path):
    run, _ = finetuned
    export(run, tmp_path / "half", dtype="bfloat16")
    half = checkpoint.load(tmp_path / "half" / "model")
    assert {str(x.dtype) for x in jax.tree.leaves(half.params)} == {"bfloat16"}
    assert about.raw_config(tmp_path / "half" / "model")["dtype"] == "bfloat16"
    export(run / "adapter", tmp_path / "adapter", format="adapter")
    assert (tmp_path / "adapter" / "adapter" / peft.CONFIG).exists()
    export(tmp_path / "half" / "model", tmp_path / "whole", dtype="float32")
    assert (tmp_path / "whole" / "model" / "model.safetensors").exists()


@pytest.fixture
def large(finetuned, tiny_base, tmp_path):
    """A base with one weight that float16 cannot hold, and an adapter of it."""
    model = checkpoint.load(tiny_base)
    kernel = model.params["layers"]["mlp"]["up"]["kernel"]
    up = {"kernel": kernel.at[1, 2, 3].set(70_000)}
    layers = model.params["layers"] | {"mlp": model.params["layers"]["mlp"] | {"up": up}}
    model = Model(model.config, model.params | {"layers": layers})
    base = str(tmp_path / "large")
    checkpoint.save(base, model, tokenizers.load(tiny_base))
    adapter = peft.load(finetuned[0] / "adapter", model)
    peft.save(tmp_path / "large run" / "adapter", adapter, model.config, base)
    return tmp_path / "large run"


@pytest.mark.fault("exports beyond a precision", "one line")
def test_what_float16_cannot_hold(large, tmp_path):
    name = r"tensor model\.layers\.1\.mlp\.up_proj\.weight"
    with pytest.raises(
        UserError, match=rf"{name} has values as large as 700\d\d.*ends at 65504; give"
    ):
        export(large, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out" / "model" / "config.json").exists()
    export(large, tmp_path / "brain", dtype="bfloat16")
    with pytest.raises(UserError, match=name):
        export(tmp_path / "brain" / "model", tmp_path / "whole", dtype="float16")


@pytest.mark.fault("exports beyond a precision", "one line")
def test_an_adapter_that_leaves_its_half_precision_base(finetuned, tiny_base, tmp_path):
    """It is merged in fp32 where that is asked for, and refused where the base's own overflows."""
    half = str(tmp_path / "half")
    checkpoint.save(half, checkpoint.load(tiny_base), tokenizers.load(tiny_base), "float16")
    file = finetuned[0] / "adapter" / peft_config.CONFIG
    raw = json.loads(file.read_text()) | {"lora_alpha": 1e8, "base_model_name_or_path": half}
    file.write_text(json.dumps(raw))
    (finetuned[0] / "adapter" / fingerprint.FILE).unlink()
    with pytest.raises(UserError, match="has values beyond that, and float16 ends at 65504"):
        export(finetuned[0], tmp_path / "out")
    export(finetuned[0], tmp_path / "single", dtype="float32")
    model = checkpoint.load(tmp_path / "single" / "model")
    adapter = peft.load(finetuned[0] / "adapter", model)
    expected = lora.merge(adapter.config, checkpoint.load(half, "float32").params, adapter.tree)
    jax.tree.map(np.testing.assert_array_equal, model.params, expected)


@pytest.mark.fault("PEFT adapters as people have them", "as it should be")
def test_a_head_and_tokens_of_an_adapter(finetuned, tiny_base, tmp_path):
    """The exported config.json says what the weights are, with the adapter's own tokenizer."""
    model = checkpoint.load(tiny_base)
    assert model.config.tied_head
    count, width = model.params["embed"].shape
    rows = np.random.default_rng(0).standard_normal((2, count + 1, width)).astype(np.float32)
    adapter = finetuned[0] / "adapter"
    more = {"model.embed_tokens.weight": rows[0], "lm_head.weight": rows[1]}
    tensors = load_file(adapter / peft_config.TENSORS)
    more = {f"base_model.model.{name}": x for name, x in more.items()}
    save_file(tensors | more, adapter / peft_config.TENSORS)
    tokenizer = tokenizers.load(tiny_base)
    tokenizer.add_tokens(["<tool>"])
    tokenizers.save(tokenizer, adapter)
    export(finetuned[0], tmp_path / "out")
    out = tmp_path / "out" / "model"
    raw = about.raw_config(out)
    assert (raw["tie_word_embeddings"], raw["vocab_size"]) == (False, count + 1)
    made = checkpoint.load(out)
    np.testing.assert_array_equal(made.params["embed"], rows[0])
    np.testing.assert_array_equal(made.params["head"], rows[1].T)
    assert "<tool>" in tokenizers.load(out).get_vocab()
    with pytest.raises(UserError, match="more than plain LoRA; export it with format=merged"):
        export(finetuned[0], tmp_path / "adapter", format="adapter")


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
