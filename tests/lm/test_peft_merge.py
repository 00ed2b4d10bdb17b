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


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied head"])
def folder(request, tmp_path_factory):
    """A random Llama with biases, as transformers saves it."""
    import torch
    import transformers

    torch.manual_seed(0)
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
    path = tmp_path_factory.mktemp("llama")
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.mark.fault("PEFT adapters as people have them", "as it should be")
@pytest.mark.parametrize("default", [False, True], ids=["", ".default."])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_as_peft_computes_it(folder, case, default, tmp_path):
    import jax
    import peft
    import torch
    import transformers
    from safetensors.numpy import load_file, save_file

    from forget_jax.lm import decoder
    from forget_jax.lm.hf import checkpoint, peft_merge
    from forget_jax.lm.hf import peft as ours
    from forget_jax.lm.logprob import target_logprobs
    from forget_jax.lm.model import Batch

    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    settings = {"r": 3, "lora_alpha": 7, "target_modules": ["q_proj", "down_proj"]} | case
    tuned = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    with torch.no_grad():
        for x in tuned.parameters():
            if x.requires_grad:
                x.add_(0.2 * torch.randn_like(x))
    ids = torch.randint(0, 61, (3, 20))
    with torch.no_grad():
        expected = torch.log_softmax(tuned(ids).logits, -1)[:, :-1]
        expected = expected.gather(-1, ids[:, 1:, None])[..., 0].numpy()
    path = tmp_path / "adapter"
    tuned.save_pretrained(path, save_embedding_layers=False)
    file = path / "adapter_model.safetensors"
    if default:  # as `state_dict` names them
        tensors = load_file(file)
        renamed = {
            n.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."): x
            for n, x in tensors.items()
        }
        save_file(renamed, file)
    base = checkpoint.load(folder)
    assert not ours.is_plain(path)
    merged = peft_merge.load(path, base)
    x = ids.numpy().astype(np.int32)
    at = np.broadcast_to(np.arange(19), (3, 19))
    h = decoder.hidden(merged, None, Batch(x))
    got = jax.device_get(target_logprobs(h, decoder.head(merged.params), at, x[:, 1:]))
    np.testing.assert_allclose(got, expected, atol=1e-4)
