"""Adapters that are more than plain LoRA, as PEFT writes them: the same log-probabilities."""

import numpy as np
import pytest

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

CASES = {
    "dora": {"use_dora": True},
    "dora with rsLoRA and patterns": {
        "use_dora": True,
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {r"layers\.1\..*q_proj": 3},
    },
    "biases of all": {"bias": "all"},
    "biases of the adapted": {"bias": "lora_only"},
    "a head of its own": {"modules_to_save": ["lm_head"]},
    "embeddings and norms": {"modules_to_save": ["embed_tokens", "norm", "input_layernorm"]},
    "on the head": {"target_modules": ["q_proj", "lm_head"]},
    "on the embedding": {"target_modules": ["v_proj", "embed_tokens"]},
}


def saved(config, path):
    """A random model, as transformers saves it."""
    import torch
    import transformers

    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied head"])
def folder(request, tmp_path_factory):
    """A Llama with biases."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=61,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        attention_bias=True,
        tie_word_embeddings=request.param,
        initializer_range=0.5,
    )
    return saved(config, tmp_path_factory.mktemp("llama"))


@pytest.mark.fault("PEFT adapters as people have them", "as it should be")
@pytest.mark.parametrize("default", [False, True], ids=["", ".default."])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_as_peft_computes_it(folder, case, default, tmp_path):
    from safetensors.numpy import load_file, save_file

    settings = {"target_modules": ["q_proj", "down_proj"]} | case
    path, ids, expected = trained(folder, settings, tmp_path)
    if default:  # as `state_dict` names them
        file = path / "adapter_model.safetensors"
        renamed = {
            n.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."): x
            for n, x in load_file(file).items()
        }
        save_file(renamed, file)
    np.testing.assert_allclose(ours(path, folder, ids), expected, atol=1e-4)


@pytest.mark.fault("PEFT adapters as people have them", "as it should be")
@pytest.mark.parametrize("dora", [False, True])
def test_a_vocabulary_that_was_resized(folder, dora, tmp_path):
    """PEFT saves embedding and head by itself where tokens were added before training."""
    settings = {"target_modules": ["q_proj"], "use_dora": dora}
    path, ids, expected = trained(folder, settings, tmp_path, tokens=66)
    np.testing.assert_allclose(ours(path, folder, ids), expected, atol=1e-4)


@pytest.mark.fault("PEFT adapters as people have them", "as it should be")
@pytest.mark.parametrize("family", ["GPT2", "GPTNeoX"])
@pytest.mark.parametrize("case", [{"use_dora": True}, {"bias": "all"}, {"bias": "lora_only"}])
def test_families_that_store_matrices_otherwise(family, case, tmp_path):
    import transformers

    sizes = {"vocab_size": 61, "initializer_range": 0.5}
    if family == "GPT2":  # in x out; c_proj is square
        sizes |= {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64}
        case = case | {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
    else:  # heads interleaved
        sizes |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
        sizes |= {"intermediate_size": 24, "max_position_embeddings": 64}
        case = case | {"target_modules": ["query_key_value", "dense_4h_to_h"]}
    folder = saved(getattr(transformers, f"{family}Config")(**sizes), tmp_path / "base")
    path, ids, expected = trained(folder, case, tmp_path)
    np.testing.assert_allclose(ours(path, folder, ids), expected, atol=1e-4)


def trained(folder, settings, tmp_path, tokens=61):
    """The folder of an adapter with all its weights moved, token ids, and what PEFT computes."""
    import peft
    import torch
    import transformers

    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    if tokens > 61:
        model.resize_token_embeddings(tokens, mean_resizing=False)
    settings = {"r": 3, "lora_alpha": 7, "task_type": "CAUSAL_LM"} | settings
    tuned = peft.get_peft_model(model.eval(), peft.LoraConfig(**settings)).eval()
    with torch.no_grad():
        for x in tuned.parameters():
            if x.requires_grad:
                x.add_(0.2 * torch.randn_like(x))
    ids = torch.randint(0, tokens, (3, 20))
    with torch.no_grad():
        expected = torch.log_softmax(tuned(ids).logits, -1)[:, :-1]
        expected = expected.gather(-1, ids[:, 1:, None])[..., 0].numpy()
    path = tmp_path / "adapter"
    tuned.save_pretrained(path, save_embedding_layers=tokens > 61)
    return path, ids.numpy().astype(np.int32), expected


def ours(path, folder, ids):
    """Log-probabilities under the adapter merged into its base."""
    import jax

    from forget_jax.lm import decoder
    from forget_jax.lm.hf import checkpoint, peft, peft_merge
    from forget_jax.lm.logprob import target_logprobs
    from forget_jax.lm.model import Batch

    assert not peft.is_plain(path)
    merged = peft_merge.load(path, checkpoint.load(folder))
    at = np.broadcast_to(np.arange(19), (3, 19))
    h = decoder.hidden(merged, None, Batch(ids))
    return jax.device_get(target_logprobs(h, decoder.head(merged.params), at, ids[:, 1:]))
