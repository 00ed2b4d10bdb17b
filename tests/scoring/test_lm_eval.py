"""`score` on real rows against lm-evaluation-harness on the exported model; needs `parity`."""

import json

import numpy as np
import pandas as pd
import pytest

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("torch", reason="the parity extra is not installed")
pytest.importorskip("lm_eval", reason="the parity extra is not installed")

TASKS = {
    "ag_news_classify_question_first": 67,
    "social_i_qa_Generate_answer": 67,
    "samsum_Summarize_": 66,
}
CONTEXT = 512


@pytest.fixture
def rows(real_data):
    """200 rows of three tasks by name, each short enough for the context."""
    found = {}
    for task, count in TASKS.items():
        lines = (real_data / "tasks" / f"{task}.jsonl").read_text().splitlines()
        short = [(i, r) for i, r in enumerate(map(json.loads, lines)) if len(str(r)) < 900]
        found |= {f"{task}#{i}": r for i, r in short[:count]}
    assert len(found) == 200
    return found


def test_two_hundred_real_rows(rows, run_cli, tmp_path):
    import jax
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from forget_jax.lm import decoder, lora
    from forget_jax.lm.hf import checkpoint, peft
    from forget_jax.lm.hf import tokenizer as tokenizers
    from forget_jax.lm.model import Adapters, Model

    texts = [f"{r['prompt']}\n{r['completion']}" for r in rows.values()]
    tokenizer = tokenizers.train(texts, 1024)
    config = decoder.DecoderConfig(len(tokenizer), 64, 2, 4, 2, 16, 96, CONTEXT)
    params = jax.tree.map(lambda x: x * 4, decoder.init(config, jax.random.key(0)))
    model = Model(config, params)
    checkpoint.save(tmp_path / "base", model, tokenizer)
    setting = lora.LoRAConfig(rank=4)
    adapter = jax.tree.map(lambda x: x + 0.02, lora.init(setting, params, jax.random.key(1)))
    base = str(tmp_path / "base")
    peft.save(tmp_path / "adapter", Adapters(setting, adapter), config, base)
    status, _, err = run_cli(
        "export", f"--config=export:{tmp_path / 'adapter'}", f"--workdir={tmp_path / 'export'}"
    )
    assert status == 0, err

    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"name": n, **r}) + "\n" for n, r in rows.items()))
    status, _, err = run_cli(
        "score",
        f"--config.model.path={tmp_path / 'base'}",
        f"--config.adapters={tmp_path / 'adapter'}",
        f"--config.data.path={data}",
        "--config.data.bos=false",  # as the harness, which is told so
        "--config.data.eos=false",
        f"--workdir={tmp_path / 'score'}",
    )
    assert status == 0 and "were cut" not in err, err
    frame = pd.read_parquet(tmp_path / "score" / "scores.parquet").set_index(["model", "example"])
    ours = -frame.loc[str(tmp_path / "adapter")].nll_sum

    exported = str(tmp_path / "export" / "model")
    plain = {"dtype": "float32", "add_bos_token": False}
    lm = HFLM(pretrained=exported, device="cpu", batch_size=8, max_length=CONTEXT, **plain)
    # The harness counts white space before the completion as a part of it.
    pairs = [(r["prompt"].strip(), f"\n{r['completion'].strip()}") for r in rows.values()]
    asked = [*pairs, *((prompt, "\n") for prompt, _ in pairs)]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(asked)]
    logp = np.array([total for total, _ in lm.loglikelihood(requests, disable_tqdm=True)])
    theirs = logp[:200] - logp[200:]
    gap = np.abs(ours[list(rows)].values - theirs)
    print(f"largest gap {gap.max():.2e} nats over {len(gap)} rows, mean NLL {-theirs.mean():.2f}")
    assert gap.max() < 1e-3
    assert np.abs(frame.loc["base"].nll_sum + ours).max() > 0.1  # the adapter counts
