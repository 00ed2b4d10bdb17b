"""The callback in a real trainer of transformers, on a PEFT adapter; needs `parity`."""

import json

import numpy as np
import pandas as pd
import pytest

from forget_jax.commands import matrices, summaries
from forget_jax.integrations.trainer import ForgettingCallback, Replayed
from tests.cli.conftest import SCORE

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch", reason="the parity extra is not installed")
pytest.importorskip("peft", reason="the parity extra is not installed")

STEPS = 6
CONTEXT = "--config.data.context=48"


@pytest.fixture(scope="module")
def tuned(skills_world, finished, tiny_base, tmp_path_factory):
    """A training with the callback: it, its probes' folder, and the adapter's."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    matrix, _ = skills_world
    probes = finished(
        ["probes", f"--config.matrix.path={matrix}", "--config.observed=16", "--config.seeds=1"]
    )
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "up_proj"]))

    def row(text):
        ids = tokenizer(text)["input_ids"][:16]
        ids += [0] * (16 - len(ids))
        return {"input_ids": ids, "labels": ids, "attention_mask": [1] * 16}

    task = [row(f"copy: word {i} -> word {i} again and again") for i in range(16)]
    rows = Replayed(task, [row("the old sailor carries a blue lantern in the harbour")])
    folder = tmp_path_factory.mktemp("trainer")
    settings = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        learning_rate=0.05,
        per_device_train_batch_size=4,
        logging_steps=2,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = Trainer(model, settings, train_dataset=rows)
    callback = ForgettingCallback(
        *(matrix, probes, tokenizer),
        every=2,
        limits={"all": -10.0},
        at_limit=rows.raising(0.5),
    ).attach(trainer)
    trainer.train()
    model.save_pretrained(folder / "adapter")
    return callback, trainer, rows, probes, folder / "adapter"


def test_it_logs_forecasts_to_the_trainer_s_own_log(tuned, skills_world):
    callback, trainer, rows, *_ = tuned
    sources = set(matrices.load(skills_world[0]).sources)
    assert len(sources) > 1
    logged = [r for r in trainer.state.log_history if "forgetting/all" in r]
    assert [r["step"] for r in logged] == [2, 4, 6] == [f.step for f in callback.forecasts]
    for record in logged:
        assert record["forgetting/all_low"] <= record["forgetting/all"]
        assert record["forgetting/all"] <= record["forgetting/all_high"]
        assert all(f"forgetting/{s}" in record for s in sources)
        assert record["forgetting/over"] == 1
        assert 0 < record["forgetting/overhead"] < 1
    assert rows.share == 0.5
    print(
        f"overhead {callback.overhead:.0%} at every 2 steps of a tiny model; a measurement took "
        f"{logged[-1]['forgetting/seconds'] * 1000:.0f} ms"
    )


def test_the_forecast_is_that_of_score_and_predict(tuned, skills_world, finished, tiny_base):
    """What the callback measured in torch is what our commands measure of the saved adapter."""
    callback, _, _, probes, adapter = tuned
    matrix, _ = skills_world
    scored = finished(
        [
            *("score", f"--config.model.path={tiny_base}", f"--config.adapters={adapter}"),
            *(f"--config.data.path={probes / 'probes.jsonl'}", CONTEXT, *SCORE),
        ]
    )
    frame = pd.read_parquet(scored / "scores.parquet").set_index(["model", "example"])
    nll = (frame.nll_sum / frame.tokens).unstack(0)
    names = [json.loads(x)["name"] for x in (probes / "probes.jsonl").read_text().splitlines()]
    z_S = (nll[str(adapter)] - nll["base"])[names].to_numpy()
    last = callback.forecasts[-1]
    measured_S = last.row_N[callback._forecaster.columns_S]
    gap = np.abs(measured_S - z_S).max()
    print(f"probes' z {z_S.mean():+.3f}; torch and jax differ by {gap:.1e} nats a token at most")
    assert gap < 1e-4 and np.abs(z_S).max() > 100 * gap  # the adapter counts
    work = finished(
        [
            *("predict", f"--config.matrix.path={matrix}", f"--config.probes.path={scored}"),
            "--config.method=mixture",
        ]
    )
    (task,) = summaries.read(summaries.Predict, work / "summary.json").tasks.values()
    ours = last.categories["all"]
    wanted = (task.mean.z, task.mean.low, task.mean.high)
    assert (ours.z, ours.low, ours.high) == pytest.approx(wanted, abs=2e-3)
