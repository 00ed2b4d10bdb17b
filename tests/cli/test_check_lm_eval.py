"""`check` on an adapter that PEFT trained in torch, by models and by lm-evaluation-harness's own
sample files; needs `parity`.
"""

import json

import numpy as np
import pytest

from forget_jax.commands import summaries
from tests.conftest import sentences, write_jsonl

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("torch", reason="the parity extra is not installed")
pytest.importorskip("lm_eval", reason="the parity extra is not installed")

WORDS = ["a blue lantern", "the broken clock", "two letters", "an empty boat"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A base of two layers, a PEFT adapter trained on it, and two sets of rows."""
    import jax
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from forget_jax.lm import decoder
    from forget_jax.lm.hf import checkpoint
    from forget_jax.lm.hf import tokenizer as tokenizers
    from forget_jax.lm.model import Model

    folder = tmp_path_factory.mktemp("world")
    texts = sentences(60, 0)
    tokenizer = tokenizers.train([*texts, *WORDS, "Which is it?\n"], 400)
    config = decoder.DecoderConfig(len(tokenizer), 32, 2, 4, 2, 8, 48, 128)
    params = jax.tree.map(lambda x: x * 4, decoder.init(config, jax.random.key(0)))
    checkpoint.save(folder / "base", Model(config, params), tokenizer)

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"]))
    theirs = AutoTokenizer.from_pretrained(folder / "base")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for text in texts[:20]:
        ids = theirs(text, return_tensors="pt").input_ids
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder / "adapter")

    write_jsonl(folder / "texts.jsonl", [{"text": t} for t in texts[30:50]])
    quiz = [
        {"prompt": f"{t} Which is it?", "completion": WORDS[i % 4], "options": WORDS}
        for i, t in enumerate(texts[:24])
    ]
    write_jsonl(folder / "quiz.jsonl", quiz)
    return folder


def harness(folder, name, **further):
    """Evaluates both sets and writes the sample files as `--log_samples` does."""
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.huggingface import HFLM

    common = {"dataset_path": "json", "test_split": "train", "num_fewshot": 0}

    def task(name, **config):
        data = {"dataset_kwargs": {"data_files": str(folder / f"{name}.jsonl")}}
        return ConfigurableTask(config={"task": name, **common, **data, **config})

    tasks = [
        task(
            "texts",
            output_type="loglikelihood_rolling",
            doc_to_text="",
            doc_to_target="{{text}}",
            metric_list=[{"metric": "word_perplexity"}],
        ),
        task(
            "quiz",
            output_type="multiple_choice",
            doc_to_text="{{prompt}}\n",
            doc_to_target="{{options.index(completion)}}",
            doc_to_choice="{{options}}",
            target_delimiter="",
            metric_list=[{"metric": "acc"}],
        ),
    ]
    lm = HFLM(
        pretrained=str(folder / "base"),
        device="cpu",
        dtype="float32",
        batch_size=8,
        max_length=128,
        add_bos_token=False,
        **further,
    )
    found = simple_evaluate(lm, tasks=tasks, log_samples=True, bootstrap_iters=0)
    tracker = EvaluationTracker(output_path=str(folder / name))
    tracker.general_config_tracker.model_name_sanitized = name
    tracker.save_results_aggregated(
        {k: v for k, v in found.items() if k != "samples"}, found["samples"]
    )
    for name_, samples in found["samples"].items():
        tracker.save_results_samples(name_, samples)
    return folder / name


def figures_of(work):
    (of,) = summaries.read(summaries.Check, work / "summary.json").sets.values()
    return of


def test_models_and_sample_files_give_the_same_verdict(world, run_cli, tmp_path):
    base = f"--config.model.path={world / 'base'}"
    adapter = f"--config.adapters={world / 'adapter'}"
    models = {}
    # told to add none, the harness puts BOS before rolling texts and not before questions
    for name, bos in (("texts", "true"), ("quiz", "false")):
        status, _, err = run_cli(
            *("check", base, adapter, f"--config.sets={world / name}.jsonl"),
            *(f"--config.data.bos={bos}", "--config.data.eos=false", "--config.data.shuffle=-1"),
            *(f"--config.limits={name}=0", f"--workdir={tmp_path / name}"),
        )
        assert status in (0, 3), err
        models |= figures_of(tmp_path / name)
        assert (status == 3) == (models[name].z > models[name].noise)
    before = harness(world, "before")
    after = harness(world, "after", peft=str(world / "adapter"))
    status, _, err = run_cli(
        *("check", base, f"--config.before={before}", f"--config.after={after}"),
        f"--workdir={tmp_path / 'files'}",
    )
    assert status == 0, err
    theirs = figures_of(tmp_path / "files")
    assert abs(models["texts"].z) > 0.05
    gap = abs(models["texts"].z - theirs["texts"].z)
    print(f"z {models['texts'].z:+.4f} by models, {gap:.1e} apart by sample files")
    assert gap < 1e-3 and models["texts"].tokens == theirs["texts"].tokens
    assert models["texts"].low == pytest.approx(theirs["texts"].low, abs=1e-3)
    ours, harnessed = models["quiz"].flips, theirs["quiz"].flips
    assert (ours.lost, ours.gained, ours.answers) == (
        *(harnessed.lost, harnessed.gained),
        harnessed.answers,
    )
    assert ours.adjusted.lost == pytest.approx(harnessed.adjusted.lost)
    assert json.loads((tmp_path / "files" / "summary.json").read_text())["unit"] == "nats/token"
    assert np.isfinite(theirs["quiz"].z)
