"""Points that others measured: what docs/scaling.md and docs/claims.md say of them."""

import json
import pathlib

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from forget_jax.errors import UserError
from forget_jax.scaling import fit, holdouts

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "laws"
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/data/laws here")


@pytest.fixture(scope="module")
def methods():
    table = pd.read_csv(REAL / "peft_forgetting.csv").rename(columns={"experiment": "run"})
    table["log_forgetting"] = np.log(table["forgetting"])
    return table


def test_trained_parameters_do_not_order_methods_and_learning_rates_do(methods):
    by_P, by_lr, by_loss = (
        stats.spearmanr(methods[name], methods["forgetting"]) for name in ("P", "lr", "train_loss")
    )
    assert by_P.statistic == pytest.approx(-0.062, abs=1e-3) and by_P.pvalue > 0.5
    assert by_lr.statistic == pytest.approx(0.527, abs=1e-3) and by_lr.pvalue < 1e-4
    assert by_loss.statistic == pytest.approx(0.018, abs=1e-3)


def test_errors_on_a_left_out_method_are_those_of_the_page(methods):
    wanted = {
        "constant": 0.935,
        "s + a*log(P)": 1.011,
        "s + a*log(lr)": 0.824,
        "s + a*train_loss": 1.005,
        "s + a*log(lr) + b*log(P)": 0.912,
        "s + a*log(lr) + b*train_loss": 0.886,
        "s + a*log(P) + b*log(lr) + c*train_loss": 0.931,
        "s + a*log(P) + b*log(lr) + c*train_loss + d*test_accuracy": 0.722,
    }
    found, refused = holdouts(methods, wanted, "method", target="log_forgetting", bootstraps=0)
    assert not refused and found["constant"].folds == 38
    for law, error in wanted.items():
        assert found[law].error == pytest.approx(error, abs=1e-3), law


@pytest.mark.parametrize(
    ("method", "once", "K", "x", "r2"),
    [
        ("lora", False, 1.3444, 0.01665, 0.9602),
        ("full_ft", False, 1.2629, 0.00896, 0.8007),
        ("full_ft", True, 1.2973, 0.01274, 0.9627),  # a run that is there twice, counted once
    ],
)
def test_published_decoder_fits_lie_at_their_bound(method, once, K, x, r2):
    """error = K*N^-x + c over three sizes of training sets, with c held at its bound of -1."""
    runs = pd.read_csv(REAL / "peft_scaling.csv")
    runs = runs[(runs.model_name == "Qwen/Qwen2.5-0.5B") & (runs.method == method)]
    runs = runs.drop_duplicates() if once else runs
    mean = 1 - runs.groupby("train_subset_size").primary_metric.mean()
    table = {"steps": mean.index.to_numpy(), "l_f": mean.to_numpy() + 1}
    made = fit("K*N^-x", table, heldout=False)
    assert [made.params["K"], made.params["x"]] == pytest.approx([K, x], abs=6e-5)
    assert made.r2 == pytest.approx(r2, abs=6e-5)
    if not once:
        theirs = json.loads((REAL / "peft_scaling_published_fit.json").read_text())
        theirs = theirs[f"Decoder_{method}"]
        assert theirs == {"a": round(K, 3), "b": round(x, 3), "c": -1.0, "R2": r2}
    with pytest.raises(UserError, match="3 parameters and needs more points"):
        fit("power_N", {**table, "l_f": mean.to_numpy()})


def test_the_whole_grid_of_pretraining_losses():
    """All 3,850 points with intervals, in the time of one test."""
    grid = pd.read_json(REAL / "gemstones_loss_grid.jsonl", lines=True)
    table = {
        "P": grid.params_active_precise,
        "steps": grid.tokens,
        "l_f": grid.final_loss,
        "run": grid.run_name,
    }
    made = fit("additive", table, heldout=False, warn=False)
    assert (made.n, made.clusters) == (3850, 22)
    assert made.r2 == pytest.approx(0.9733, abs=1e-4)
    low, high = made.ci["x"]
    assert low < made.params["x"] < high
