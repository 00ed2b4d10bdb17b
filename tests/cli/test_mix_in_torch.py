"""What `mix` writes, as torch trains on it: the lines of use.md for TRL, and a loop with PEFT."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from forget_jax.commands import matrices
from tests.cli.conftest import NEW_TASK as TASK
from tests.cli.conftest import SCORE

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
DATA = ["--config.data.context=48"]


@pytest.fixture(scope="module")
def mixed(skills_world, finished, tiny_base):
    """A mix of 40 rows of a task and 5 of the matrix's."""
    return finished(
        [
            *("mix", f"--config.task={TASK}", f"--config.matrix.path={skills_world[0]}"),
            f"--config.model.path={tiny_base}",
        ]
    )


@pytest.fixture(scope="module")
def task_nll(finished, tiny_base):
    """By model, the mean NLL of the task's rows, as this program scores it."""

    def measure(kind, path):
        work = finished(
            [
                *("score", f"--config.model.path={tiny_base}", f"--config.{kind}={path}"),
                *(f"--config.data.path={TASK}", *DATA, *SCORE),
            ]
        )
        found = json.loads((work / "summary.json").read_text())["nll_mean_by_model"]
        return found["base"], found[str(path)]

    return measure


def test_weights_are_the_softmax_of_what_other_tasks_forget(skills_world, mixed):
    import torch

    z = matrices.load(str(skills_world[0]))
    mean_J = torch.tensor(np.asarray(z.z_MxN)).mean(0)
    weight_J = torch.softmax(mean_J / mean_J.std(correction=0), 0)
    rows = [json.loads(line) for line in (mixed / "train.jsonl").read_text().splitlines()]
    replayed = [row for row in rows if row["replayed"]]
    assert len(replayed) == 5
    for row in replayed:
        assert row["weight"] == pytest.approx(float(weight_J[z.examples.index(row["name"])]))


def test_the_lines_for_trl_train_on_it(mixed, task_nll, tmp_path, monkeypatch):
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"## TRL\n\n```\n(.*?)\n```", (mixed / "use.md").read_text(), re.DOTALL)
    here = "SFTConfig(use_cpu=True, bf16=False, learning_rate=1e-3, "  # a CPU has no bf16 of theirs
    assert "SFTConfig(" in lines
    exec(lines.replace("SFTConfig(", here), {})
    (saved,) = tmp_path.glob("*/checkpoint-*")
    before, after = task_nll("models", saved)
    assert after < before


def test_a_loop_of_peft_trains_on_it_to_an_adapter_that_is_read_here(
    mixed, task_nll, tiny_base, finished, tmp_path
):
    """Its loss is that of completions alone, and the scores of its adapter are the same here."""
    import peft
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_base)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    torch.manual_seed(0)
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))

    def encode(row):
        asked = [tokenizer.bos_token_id]
        asked += tokenizer(row["prompt"], add_special_tokens=False).input_ids
        said = tokenizer(row["completion"], add_special_tokens=False).input_ids
        said = [*said, tokenizer.eos_token_id]
        ids = torch.tensor([asked + said][:48])
        return {"input_ids": ids, "labels": torch.tensor([[-100] * len(asked) + said])}

    rows = [json.loads(line) for line in (mixed / "uniform.jsonl").read_text().splitlines()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
    first, last = [], []
    for losses in (first, [], last):
        for row in rows:
            loss = model(**encode(row)).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss))
    assert np.mean(last) < np.mean(first)
    model.save_pretrained(tmp_path / "adapter")
    before, after = task_nll("adapters", tmp_path / "adapter")
    assert after < before

    own = [row for row in rows if not row["replayed"]]
    model.eval()
    with torch.no_grad():
        nll = np.array([float(model(**encode(row)).loss) for row in own])
    work = finished(
        [
            *("score", f"--config.model.path={tiny_base}", *DATA, *SCORE),
            *(f"--config.adapters={tmp_path / 'adapter'}", f"--config.data.path={TASK}"),
        ]
    )
    table = pd.read_parquet(work / "scores.parquet").query("model != 'base'")
    ours = dict(zip(table.example, table.nll_sum / table.tokens, strict=True))
    for row, theirs in zip(own, nll, strict=True):
        assert ours[row["name"]] == pytest.approx(theirs, abs=2e-4)
