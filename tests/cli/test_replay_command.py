"""`replay`: every strategy in one comparison; chosen while it trains, stopped, resumed."""

import json

import numpy as np
import pandas as pd
import pytest

from forget_jax.errors import UserError
from forget_jax.fleet import fleet
from tests.cli.conftest import FEW, SCORE, SKILLS

STRATEGIES = (
    "none,pad,random,generated,surprise,column_mean,predicted,coverage,influence,online,mir,"
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
    assert len(summary["replay"]) == 1 + 11 * 2 and len(cells) == 23 * 2 * 2
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
