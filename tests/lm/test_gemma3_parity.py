"""Gemma 3 of 270 M parameters out of its packages, against transformers and torch."""

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from forget_jax.errors import UserError
from forget_jax.lm import generate
from forget_jax.lm.decoder import head, hidden
from forget_jax.lm.hf import about, checkpoint, shipped
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.logprob import logits
from forget_jax.lm.model import Batch

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch", reason="the parity extra is not installed")
NAME = "builtin:gemma3-270m"
try:
    FILE = Path(shipped.located(NAME))
except UserError as e:
    pytest.skip(str(e), allow_module_level=True)
PROMPTS = [
    "The capital of France is",
    "Water boils at a temperature of",
    "def fibonacci(n):\n",
    "In 1969, the first people who walked on the Moon",
]
NEW = 16  # tokens of a continuation


@pytest.fixture(scope="module")
def theirs():
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        FILE.parent, gguf_file=FILE.name, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


@pytest.fixture(scope="module")
def ours():
    return checkpoint.load(NAME), tokenizers.load(NAME)


def test_weights_are_bit_by_bit_what_transformers_dequantises(theirs):
    stored = load_file(about.folder(NAME) / "model.safetensors")
    found = {name: value.numpy() for name, value in theirs.state_dict().items()}
    assert set(stored) == set(found) - {"lm_head.weight"}  # which is the embedding
    for name, value in stored.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)


def test_log_probabilities_and_greedy_continuations_are_torchs(ours, theirs):
    model, tokenizer = ours
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    own = generate.greedy(model, None, prompts, generate.until(tokenizer, NEW))
    score = jax.jit(lambda model, x: logits(hidden(model, None, Batch(x)), head(model.params)))
    gaps = []
    for prompt, continued in zip(prompts, own, strict=True):
        with torch.no_grad():
            whole = theirs.generate(
                torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, eos_token_id=1
            )
            wanted = theirs(whole).logits[0].double().log_softmax(-1).numpy()
        there = whole[0, len(prompt) :].tolist()
        assert continued == (there[: there.index(1)] if 1 in there else there)
        ids = np.zeros((1, 64), np.int32)
        ids[0, : whole.shape[1]] = whole[0]
        here = np.asarray(score(model, ids), np.float64)[0, : whole.shape[1]]
        here -= np.logaddexp.reduce(here, -1, keepdims=True)
        at, token = np.arange(whole.shape[1] - 1), whole[0, 1:].numpy()
        gaps.append(np.abs(here[at, token] - wanted[at, token]).max())
    print(f"tokens differ by at most {max(gaps):.1e} nats")
    assert max(gaps) < 1e-4
