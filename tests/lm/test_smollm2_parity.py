"""SmolLM2-135M out of its package, against what transformers and torch make of the same file.

ROWS=200 TEXTS=1000 PROMPTS=20 compares more than CI does.
"""

import copy
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from forget_jax.data import sources
from forget_jax.data.tokenise import TEMPLATES, encode
from forget_jax.errors import UserError
from forget_jax.lm import generate
from forget_jax.lm.decoder import head, hidden
from forget_jax.lm.hf import about, checkpoint, shipped
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.logprob import logits
from forget_jax.lm.model import Batch

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch", reason="the parity extra is not installed")
NAME = "builtin:smollm2"
ROWS, TEXTS, PROMPTS = (
    int(os.environ.get(name, count))
    for name, count in (("ROWS", 12), ("TEXTS", 200), ("PROMPTS", 3))
)
LENGTH = 64  # the most tokens of a row
TOGETHER = 4  # rows of a batch
try:
    FILE = Path(shipped.located(NAME))
except UserError as e:
    pytest.skip(str(e), allow_module_level=True)


@pytest.fixture(scope="module")
def theirs():
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        FILE.parent, gguf_file=FILE.name, dtype=torch.float32
    )
    return model.eval()


@pytest.fixture(scope="module")
def their_tokenizer():
    import transformers

    return transformers.AutoTokenizer.from_pretrained(FILE.parent, gguf_file=FILE.name)


@pytest.fixture(scope="module")
def ours():
    return checkpoint.load(NAME), tokenizers.load(NAME)


@pytest.fixture(scope="module")
def texts(real_data):
    rows = (real_data / "upstream" / "c4_train.jsonl").read_text().splitlines()
    return [json.loads(row)["text"] for row in rows]


def test_weights_are_bit_by_bit_what_transformers_dequantises(theirs):
    stored = load_file(about.folder(NAME) / "model.safetensors")
    found = {name: value.numpy() for name, value in theirs.state_dict().items()}
    assert set(stored) == set(found) - {"lm_head.weight"}  # which is the embedding
    for name, value in stored.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)


def test_ids_and_chats_are_those_of_transformers(ours, their_tokenizer, texts):
    """With digits read one by one, as the file says and transformers' reader of GGUF leaves out."""
    from tokenizers import pre_tokenizers

    _, tokenizer = ours
    their_tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    odd = ["", " ", "\n\n a", "<|im_start|>user\nhi<|im_end|>\n", "x = 12345\t# é ☃ 한국"]
    for text in [*texts[:TEXTS], *odd]:
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert own == their_tokenizer(text, add_special_tokens=False)["input_ids"], text
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Hello. "}]
    for more in ({}, {"add_generation_prompt": True}):
        chats = [
            t.apply_chat_template(talk, tokenize=False, **more)
            for t in (tokenizer, their_tokenizer)
        ]
        assert chats[0] == chats[1] and "<|im_start|>assistant" in chats[0]


def test_log_probabilities_are_torchs(ours, theirs, texts):
    """Against float64: in float32 torch itself is as far from it as we are."""
    model, tokenizer = ours
    exact = copy.deepcopy(theirs).double()
    score = jax.jit(lambda model, x: logits(hidden(model, None, Batch(x)), head(model.params)))
    gaps, torchs, means = [], [], []
    for first in range(0, len(texts[:ROWS]), TOGETHER):
        some = texts[:ROWS][first : first + TOGETHER]
        rows = [tokenizer(x, add_special_tokens=False)["input_ids"][:LENGTH] for x in some]
        padded = np.zeros(
            (TOGETHER, LENGTH), np.int32
        )  # attention is causal: at the end it is inert
        for row, ids in zip(padded, rows, strict=False):
            row[: len(ids)] = ids
        own_BxLxV = torch.tensor(np.asarray(score(model, padded)))
        with torch.no_grad():
            exact_BxLxV = exact(torch.tensor(padded, dtype=torch.long)).logits
            single_BxLxV = theirs(torch.tensor(padded, dtype=torch.long)).logits
        for b, ids in enumerate(rows):
            at, token = torch.arange(len(ids) - 1), torch.tensor(ids[1:])
            own, wanted, single = (
                x[b].double().log_softmax(-1)[at, token]
                for x in (own_BxLxV, exact_BxLxV, single_BxLxV)
            )
            gaps.append((own - wanted).abs().max().item())
            torchs.append((single - wanted).abs().max().item())
            means.append((own - single).mean().abs().item())
    print(f"{len(gaps)} rows: tokens differ by at most {max(gaps):.2e} nats from float64")
    print(f"where torch's own float32 differs by {max(torchs):.2e}")
    print(f"means of rows differ by at most {max(means):.1e} nats a token from float32")
    assert max(gaps) < 1e-4 and max(means) < 1e-5


def test_greedy_continuations_are_torchs(ours, theirs, texts):
    model, tokenizer = ours
    prompts = [
        tokenizer(text, add_special_tokens=False)["input_ids"][:16] for text in texts[-PROMPTS:]
    ]
    until = generate.until(tokenizer, 24)
    own = generate.greedy(model, None, prompts, until)
    for prompt, continued in zip(prompts, own, strict=True):
        with torch.no_grad():
            wanted = theirs.generate(
                torch.tensor([prompt]),
                max_new_tokens=24,
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
            )[0, len(prompt) :].tolist()
        end = wanted.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in wanted else None
        assert continued == wanted[:end]


def test_pairs_have_the_ids_and_targets_that_trl_gives_them(ours, real_data):
    """Its completion mask: what follows the prompt with the beginning of an answer (SFTTrainer)."""
    _, tokenizer = ours
    pairs = sources.load(str(real_data / "tasks" / "sciq_Direct_Question_Closed_Book_.jsonl"))[:50]
    rows = encode(pairs, tokenizer, TEMPLATES["chat"], 500)
    for pair, row in zip(pairs, rows, strict=True):
        asked = [{"role": "user", "content": pair.prompt.strip()}]
        said = [*asked, {"role": "assistant", "content": pair.completion.strip()}]
        whole, start = (
            tokenizer.apply_chat_template(
                talk, tokenize=True, return_dict=False, add_generation_prompt=talk is asked
            )
            for talk in (said, asked)
        )
        assert row.ids.tolist() == whole and whole[: len(start)] == start
        assert row.is_target.tolist() == [i >= len(start) for i in range(len(whole))]
