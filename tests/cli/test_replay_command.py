"""`replay`: every strategy in one comparison; chosen while it trains, stopped, resumed."""

import json

import numpy as np
import pandas as pd
import pytest

from forget_jax.errors import UserError
from forget_jax.fleet import fleet
from tests.cli.conftest import FEW, SCORE, SKILLS

STRATEGIES = (
    "none,pad,random,generated,surprise,column_mean,predicted,coverage,diverse,influence,online,mir,"
    "ground_truth:top"
)


@pytest.fixture(scope="module")
def arguments(skills_world, tiny_base):
    matrix, _ = skills_world
    return [
        *("replay", f"--config.model.path={tiny_base}", f"--config.matrix.path={matrix}"),
        f"--config.tasks={','.join(f'builtin:skill/{name}[:12]' for name in SKILLS[:2])}",
        "--config.upstream=builtin:language_reference[:24],builtin:skill/lookup[:24]",
        *("--config.data.context=48", "--config.replay.method=mixture", *FEW, *SCORE),
        *("--config.replay.observed=8", "--config.replay.ratio=0.25"),
        "--config.replay.online_at=0.25,0.6",
    ]


@pytest.fixture(scope="module")
def everything(arguments, finished):
    return finished(
        [
            *arguments,
            *(f"--config.replay.strategies={STRATEGIES}", "--config.replay.cost=nll,kl"),
            *("--config.replay.measure_pool=true", "--config.replay.generated=4"),
            *("--config.replay.generated_tokens=8", "--config.replay.seeds=2"),
        ]
    )


def test_every_strategy_is_compared_with_what_it_costs(everything):
    summary = json.loads((everything / "summary.json").read_text())
    cells = pd.read_csv(everything / "cells.csv")
    assert len(summary["replay"]) == 1 + 12 * 2 and len(cells) == 25 * 2 * 2
    assert cells.z.notna().all() and cells.z_pool.notna().all() and cells.loss.notna().all()
    by = summary["replay"]
    assert by["none"]["extra_training"] == by["none"]["extra_forward"] == 0
    random, kl = by["random nll"], by["random kl"]
    assert 0 < random["extra_training"] == kl["extra_training"]
    assert random["extra_forward"] == 0 < kl["extra_forward"]
    assert by["predicted nll"]["extra_training"] > 1  # the task is trained once before
    assert by["online nll"]["extra_training"] < 1 and by["online nll"]["extra_forward"] > 0
    assert by["influence nll"]["extra_training"] > by["coverage nll"]["extra_training"]
    assert len(by["mir nll"]["z"]) == 4 and set(by["mir nll"]["z_by_kind"])
    assert set(summary["headroom"]) == {"random nll", "random kl"}
    assert "predicted kl − predicted nll" in summary["paired_test"]
    page = (everything / "report.html").read_text()
    assert "Paired tests" in page and "ground_truth:top kl" in page


@pytest.fixture(scope="module")
def matched(arguments, finished):
    return finished(
        [
            *(*arguments, "--config.replay.strategies=none,random,answered"),
            "--config.matrix.path=",  # which these do not ask
            *("--config.replay.matched=steps,compute", "--config.replay.recite=6"),
            *("--config.replay.generated=5", "--config.replay.generated_tokens=4"),
            *("--config.train.steps=12", "--config.replay.ratio=0.125", "--config.replay.seeds=1"),
        ]
    )


def test_at_equal_compute_replay_costs_no_more_than_none(matched):
    by = json.loads((matched / "summary.json").read_text())["replay"]
    assert len(by) == 5 and by["none"]["matched"] == "steps"
    for name in ("random", "answered"):
        steps, compute = (by[f"{name} at equal {how}"] for how in ("steps", "compute"))
        assert compute["matched"] == "compute"
        assert -0.3 < compute["extra_training"] < 0.08  # whole steps, and rows near their mean
        assert compute["extra_training"] < steps["extra_training"]
    tests = json.loads((matched / "summary.json").read_text())["paired_test"]
    assert "random at equal compute − random at equal steps" in tests
    assert "answered at equal compute − random at equal compute" in tests
    cells = pd.read_csv(matched / "cells.csv")
    assert len(cells) == 5 * 2 and (cells.ratio[cells.strategy != "none"] == 0.125).all()


def test_the_base_answers_prompts_of_the_task_without_seeing_its_answers(matched):
    kept = sorted((matched / "answered").iterdir())
    assert len(kept) == 2  # tasks
    for file in kept:
        assert len(json.loads(file.read_text())["value"]) == 5
    by = json.loads((matched / "summary.json").read_text())["replay"]
    assert by["answered at equal steps"]["extra_forward"] > 0


def test_short_answers_are_recited_beside(matched):
    """Each task's own held-out rows, and what the base answers right of upstream."""
    cells = pd.read_csv(matched / "cells.csv")
    assert cells.em.between(0, 1).all()
    lost = cells.em_forgotten
    assert lost.between(0, 1).all() or lost.isna().all()  # of a base that is never right
    by = json.loads((matched / "summary.json").read_text())["replay"]
    assert by["none"]["em"] == pytest.approx(cells.em[cells.strategy == "none"].mean())
    assert "exact match lost" in (matched / "report.html").read_text()


def test_whole_models_are_compared_as_adapters_are(arguments, run_cli, tmp_path):
    """Full fine-tuning: what scores say of its checkpoints is what the table says."""
    from forget_jax.lm.hf import checkpoint

    few = [*arguments, "--config.lora.rank=0", "--config.train.lr=0.01"]
    tasks = next(a for a in few if a.startswith("--config.tasks="))
    few[few.index(tasks)] = tasks.partition(",")[0]
    some = ["--config.replay.strategies=none,random,online", "--config.replay.seeds=1"]
    status, _, err = run_cli(*few, *some, f"--workdir={tmp_path / 'work'}")
    assert status == 0, err
    cells = pd.read_csv(tmp_path / "work" / "cells.csv")
    assert len(cells) == 3 and cells[["z", "loss"]].notna().all(axis=None)
    assert cells.z.nunique() == 3 and (cells.z.abs() > 1e-4).all()
    whole = [d for d in sorted((tmp_path / "work" / "adapters").iterdir()) if d.is_dir()]
    assert len(whole) == 3
    weights = [checkpoint.load(d).params["embed"] for d in whole]
    assert all(np.abs(weights[0] - other).max() > 0 for other in weights[1:])


def test_online_replay_resumes_in_every_phase(arguments, finished, run_cli, tmp_path, monkeypatch):
    chosen = "--config.replay.strategies=none,online"
    whole = finished([*arguments, chosen])
    real = fleet.train

    def stopped(*given, **options):
        found = real(*given, **options)
        if options.get("until") != stopped.after:
            return found
        raise UserError("stopped here")

    for stops, stopped.after in enumerate((1, 2, None)):  # the marks, and the end
        monkeypatch.setattr(fleet, "train", stopped)
        work = tmp_path / str(stops)
        status, _, err = run_cli(*arguments, chosen, f"--workdir={work}")
        assert status == 2 and "stopped here" in err, err
        monkeypatch.setattr(fleet, "train", real)
        status, _, err = run_cli(*arguments, chosen, f"--workdir={work}")
        assert status == 0, err
        found, wanted = (pd.read_csv(w / "cells.csv") for w in (work, whole))
        pd.testing.assert_frame_equal(found, wanted)


def test_what_is_replayed_online_follows_the_probes(arguments, finished):
    work = finished([*arguments, "--config.replay.strategies=none,online"])
    seen = [json.loads(f.read_text()) for f in sorted((work / "revisions").iterdir())]
    assert len(seen) == 2
    text = json.dumps(seen)
    assert "addition, online" in text and "none" not in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--config.replay.ratio=0.01"], "gives no row"),
        (["--config.replay.ratio=0.25,0.25"], "names 0.25 twice"),
        (["--config.replay.strategies=random:top"], "random"),
        (["--config.replay.cost=kl", "--config.lora.rank=0"], "needs adapters"),
        (["--config.upstream=builtin:docstrings[:9]"], "are no columns of the matrix"),
        (["--config.replay.strategies="], "at least one"),
        (["--config.replay.matched="], "at least one"),
        (["--config.replay.matched=compute", "--config.replay.ratio=0.9"], "as many FLOPs"),
    ],
)
def test_mistakes_are_one_line(arguments, run_cli, tmp_path, more, said):
    status, _, err = run_cli(*arguments, *more, f"--workdir={tmp_path}")
    assert status == 2 and said in err.splitlines()[-1], err


def test_a_text_on_both_sides_is_refused(random_examples):
    from forget_jax.associations.matrix import Matrix
    from forget_jax.replay.experiment import Upstream
    from forget_jax.replay.settings import Replay

    rows = random_examples(0, [5] * 8)
    names = tuple(e.name for e in rows)
    matrix = Matrix(np.zeros((2, 8)), ("a", "b"), names, (), "nll")
    upstream = Upstream.split(matrix, rows, rows, Replay(), 0)
    assert not set(upstream.pool) & set(upstream.held)
    twins = [type(rows[0])(n, "s", rows[0].ids, rows[0].is_target) for n in names]
    with pytest.raises(UserError, match="are one text"):
        Upstream.split(matrix, twins, twins, Replay(), 0)
