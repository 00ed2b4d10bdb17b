"""Live parity with transformers, PEFT and lm-evaluation-harness; needs the `parity` extra.

All cases and all columns are run by tests/golden/parity.py, which writes docs/families.md; here
every family is checked for log-probabilities, and adapters for each layout of projections.
"""

from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch", reason="the parity extra is not installed")
pytest.importorskip("peft", reason="the parity extra is not installed")

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", sorted(f.stem for f in GOLDEN.glob("*.json")))
def test_transformers_agrees_with_the_golden_file_and_loads_what_we_write(
    name, parity, golden, tmp_path
):
    from forget_jax.lm.hf import checkpoint

    case = golden[name]
    made, wanted = parity.make_case(name), {k: case[k] for k in ("config", "tensors", "prompts")}
    for one in (made, wanted):  # says who wrote it, and nothing of the model
        one["config"] = one["config"] | {"transformers_version": ""}
    assert made == wanted
    source = parity.tiny.write_checkpoint(case, tmp_path / "hf")
    ours = checkpoint.load(source)
    checkpoint.save(tmp_path / "back", ours, shard_bytes=20_000)
    assert parity.same_files(source, tmp_path / "back")
    model = parity.torch_model(tmp_path / "back")
    theirs = parity.torch_logp(model, case["prompts"])
    golden_logp = [np.array(row) for row in case["logp"]]
    assert parity.gap(theirs, golden_logp) < 1e-4
    assert parity.gap(theirs, parity.our_logp(ours, None, case["prompts"])) < 1e-4
    assert parity.torch_greedy(model, case["prompts"][:1]) == case["continuation"][:1]


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "olmo3", "gpt_neox", "gpt2"])
def test_adapters_both_ways_and_the_merged_export(name, parity, golden, tmp_path):
    row = parity.check_adapter(golden[name], tmp_path)
    assert row["moved"] > 0.5 and row["moved_here"] > 0.5
    assert max(row["peft_in"], row["peft_out"], row["merged"]) < 1e-4


def test_lm_evaluation_harness_scores_an_export_like_we_do(parity, tmp_path):
    pytest.importorskip("lm_eval", reason="the parity extra is not installed")
    import jax
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from forget_jax.lm import decoder
    from forget_jax.lm.hf import checkpoint
    from forget_jax.lm.hf import tokenizer as tokenizers
    from forget_jax.lm.model import Model

    texts = ["the cat sat on the mat", "a dog ran 12 miles", "every poet forgets"]
    tokenizer = tokenizers.train(texts * 5, 290)
    config = decoder.DecoderConfig(len(tokenizer), 32, 2, 4, 2, 8, 48, 64)
    params = jax.tree.map(lambda x: x * 4, decoder.init(config, jax.random.key(0)))
    model = Model(config, params)
    checkpoint.save(tmp_path / "model", model, tokenizer, shard_bytes=20_000)
    given = {"dtype": "float32", "batch_size": 1, "add_bos_token": False}  # none is given below
    lm = HFLM(pretrained=str(tmp_path / "model"), device="cpu", **given)
    requests = [
        Instance("loglikelihood", {}, (t.split()[0], t[t.index(" ") :]), i)
        for i, t in enumerate(texts)
    ]
    theirs = [score for score, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    ids = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    ours = parity.our_logp(model, None, ids)
    for text, row, total in zip(texts, ours, theirs, strict=True):
        skip = len(tokenizer(text.split()[0], add_special_tokens=False)["input_ids"])
        assert row[skip - 1 :].sum() == pytest.approx(total, abs=1e-3)


def test_golden_files_are_what_the_script_would_write(parity, golden):
    assert set(parity.CASES) == set(golden)
    size = sum(f.stat().st_size for f in GOLDEN.iterdir())
    assert size < 2e6
