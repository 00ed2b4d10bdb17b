"""`plan`: its three questions, their intervals, and what it refuses to answer."""

import json

import numpy as np
import pandas as pd
import pytest


def kl(P, steps, lr):
    return 2.0 * lr**0.5 * (P / 1000.0) ** 0.2 * (steps / 100.0) ** 0.5


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = []
    for lr in (1e-4, 1e-3):
        for rank in (1, 4, 16):
            for seed in range(2):
                for steps in (10, 20, 40, 80, 160):
                    P = 1000 * rank
                    forgot = kl(P, steps, lr) * np.exp(rng.normal(0, 0.02))
                    learned = 2.0 - 0.3 * lr**0.1 * np.log(steps) - 0.01 * np.log(rank)
                    rows.append(
                        {
                            "P": P,
                            "rank": rank,
                            "seed": seed,
                            "lr": lr,
                            "steps": steps,
                            "run": f"r{rank}s{seed}lr{lr}",
                            "l_ft": learned + rng.normal(0, 1e-3),
                            "l_f": 0.7 + forgot,
                            "kl": forgot,
                        }
                    )
    path = tmp_path_factory.mktemp("points") / "points.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture
def plan(points, run_cli, tmp_path):
    def ask(**fields):
        fields = {"points.path": points, **fields}
        given = [f"--config.{k}={v}" for k, v in fields.items()]
        status, _, err = run_cli("plan", *given, f"--workdir={tmp_path / 'plan'}")
        path = tmp_path / "plan" / "summary.json"
        return status, json.loads(path.read_text()) if path.exists() else {}, err

    return ask


def test_steps_forgetting_and_a_folder_of_scaling(plan, points, tmp_path):
    truth = kl(8000, 50, 1e-3)
    law = "K*P^x*steps^y"  # one law: the choice among several is tried below
    status, found, err = plan(ask="steps", limit=truth, rank=8, lr=1e-3, law=law)
    assert status == 0, err
    assert 44 <= found["steps_low"] <= found["steps"] <= found["steps_high"] <= 56
    assert found["rank"] == 8 and found["P"] == 8000 and found["lr"] == 1e-3
    assert "keep the limit" in err and (tmp_path / "plan" / "report.html").exists()
    # Another question in the same folder, of the folder that holds the points.
    status, found, err = plan(
        ask="forgetting", steps=50, P=8000, lr=1e-3, law=law, **{"points.path": points}
    )
    assert status == 0, err
    assert found["run_low"] <= truth <= found["run_high"]
    assert found["run_low"] < found["forgetting_low"] <= found["forgetting"]
    assert set(found["tried"]) == {"rank", "late", "run"}
    assert set(found["unseen"]) == {f"r{r}s{s}lr0.001" for r in (1, 4, 16) for s in range(2)}
    for run in found["unseen"].values():
        assert run["predicted"] == pytest.approx(run["measured"], rel=0.15)
        assert run["reached"] == 40 and 30 <= run["planned"] <= 52
    assert found["tried"]["run"]["coverage"] >= 0.6 and found["tried"]["run"]["points"] == 30
    assert found["tried"]["rank"]["error"] < found["nulls"]["constant"]


def test_the_setting_that_learns_most_within_the_budget(plan, points):
    status, found, err = plan(limit=0.04)
    assert status == 0, err
    every = [found, *found["others"]]
    assert all(a["forgetting"] <= 0.04 * 1.001 for a in every)
    learned = [a["l_ft"] for a in every]
    assert learned == sorted(learned)
    assert {a["lr"] for a in every} == {1e-4, 1e-3} and found["law"] in found["laws"]
    for a in every:
        if not a["budget_left"]:
            assert kl(a["P"], a["steps"], a["lr"]) == pytest.approx(0.04, rel=0.08)


def test_points_may_be_the_workdir_of_scaling(plan, points):
    status, found, err = plan(
        limit=0.04, lr=1e-3, law="kl_origin", **{"points.path": points.parent}
    )
    assert status == 0, err
    assert found["points"] == 60


REFUSED = {
    "no points": ({"points.path": "", "limit": 1}, "give points.path"),
    "no limit": ({}, "ask=settings needs limit"),
    "no rank": ({"ask": "steps", "limit": 0.1}, "needs limit and rank (or P)"),
    "both sizes": ({"ask": "steps", "limit": 0.1, "rank": 1, "P": 5}, "rank or P, not both"),
    "a rank beyond": (
        {"ask": "steps", "limit": 0.1, "rank": 64, "lr": 1e-3},
        "P 64000 is outside the measured 1000 to 16000",
    ),
    "steps beyond": (
        {"ask": "forgetting", "steps": 900, "rank": 4, "lr": 1e-3},
        "steps 900 is outside the measured 10 to 160",
    ),
    "a limit beyond": (
        {"ask": "steps", "limit": 9, "rank": 4, "lr": 1e-3},
        "after 160 steps, the most measured, it is only",
    ),
    "a budget that nothing keeps": ({"limit": 1e-9}, "every measured setting forgets more"),
    "another learning rate": (
        {"ask": "steps", "limit": 0.1, "rank": 4, "lr": 5e-2},
        "lr 0.05 was not measured; there are 0.0001, 0.001",
    ),
    "which learning rate": (
        {"ask": "steps", "limit": 0.1, "rank": 4},
        "several learning rates (0.0001, 0.001): give lr",
    ),
    "one run": ({"limit": 0.04, "where": "run=r1s0lr0.001"}, "one run only"),
    "a condition": ({"limit": 1, "where": "rank"}, "it must be COLUMN=VALUE"),
    "a condition on nothing": ({"limit": 1, "where": "rnak=1"}, "did you mean rank"),
    "a condition that nothing meets": ({"limit": 1, "where": "rank=3"}, "no row has rank '3'"),
    "an unknown law": ({"limit": 1, "law": "kl_orign"}, "did you mean kl_origin"),
    "a target that is not there": ({"limit": 1, "target": "kll"}, "needs a column 'kll'"),
}


@pytest.mark.parametrize(("fields", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_answered_is_one_line(plan, fields, said):
    status, found, err = plan(**fields)
    assert status == 2 and not found
    assert said in err.splitlines()[-1] and "Traceback" not in err


def test_kinds_of_run_that_one_law_does_not_describe(plan, points, tmp_path):
    table = pd.read_csv(points)
    table["method"] = np.where(table["rank"] == 1, "dora", "lora")
    table.to_csv(tmp_path / "mixed.csv", index=False)
    status, _, err = plan(limit=0.1, **{"points.path": tmp_path / "mixed.csv"})
    assert status == 2 and "choose one by where=method=VALUE" in err
