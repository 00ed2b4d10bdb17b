"""What to replay for one task: rows of a pool, chosen by what is known, each with its reason."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from forget_jax.errors import UserError
from forget_jax.replay.cells import Arm
from forget_jax.replay.strategies import Sampling, choose, weights
from forget_jax.replay.verdict import pivot

DEFAULT_RATIO = 1 / 8  # where no curve was measured


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The rows to replay.

    Attributes:
      row_K: numbers of candidates, in the order they were drawn.
      weight_J: sampling weight of every candidate.
    """

    row_K: np.ndarray
    weight_J: np.ndarray


def choose_rows(value_J: np.ndarray, count: int, temperature: float, seed: int) -> Chosen:
    """So many distinct candidates by weight.

    Args:
      value_J: the more the likelier; NaN for never.

    Raises:
      UserError: fewer candidates than rows to replay.
    """
    possible = int(np.isfinite(value_J).sum())
    if count > possible:
        raise UserError(
            f"{count} rows are to be replayed, but there are {possible} candidates: give more "
            "(pool), or lower mix.ratio"
        )
    how = Sampling("softmax", temperature)
    return Chosen(choose(value_J, count, seed, how), weights(value_J, temperature))


@dataclasses.dataclass(frozen=True)
class Ratio:
    """What one ratio of a measured curve gives: means over tasks, in nats a token.

    Attributes:
      z, z_half: forgetting, and half its 95 % interval over tasks.
      loss, loss_half: of the tasks.
    """

    ratio: float
    z: float
    z_half: float
    loss: float
    loss_half: float


def curve(cells: pd.DataFrame) -> list[Ratio]:
    """Forgetting and task loss against the ratio, from a run of `replay`; 0 is no replay.

    Of the strategy with the most ratios (random, where several have as many), by the NLL.

    Raises:
      UserError: fine-tunes without replay, or replay, are missing.
    """
    wanted = {"task", "strategy", "ratio", "cost", "seed", "z", "loss"}
    if missing := wanted - set(cells.columns):
        raise UserError(f"the curve's cells.csv has no column {min(missing)}")
    nll = cells[cells.cost == "nll"]
    if "matched" in nll:
        nll = nll[nll.matched == "steps"]
    replayed = nll[nll.ratio > 0]
    if replayed.empty or not (nll.strategy == "none").any():
        raise UserError(
            "the curve needs a run of `forget-jax replay` with strategy none and another, at one "
            "or more replay.ratio"
        )
    counts = replayed.groupby("strategy").ratio.nunique()
    best = counts[counts == counts.max()].index
    strategy = "random" if "random" in best else str(best[0])
    ratios = sorted(replayed[replayed.strategy == strategy].ratio.unique())
    arms = [Arm("none"), *(Arm(strategy, float(ratio)) for ratio in ratios)]
    return [_at(nll, arm) for arm in arms]


def _at(cells: pd.DataFrame, arm: Arm) -> Ratio:
    z_T, loss_T = (pivot(cells, arm, column).values.mean(1) for column in ("z", "loss"))
    (z, z_half), (loss, loss_half) = (_mean_and_half(x) for x in (z_T, loss_T))
    return Ratio(arm.ratio, z, z_half, loss, loss_half)


def _mean_and_half(x_T: np.ndarray) -> tuple[float, float]:
    from scipy.stats import t

    T = len(x_T)
    if T < 2:
        return float(x_T.mean()), float("nan")
    return float(x_T.mean()), float(t.ppf(0.975, T - 1) * x_T.std(ddof=1) / np.sqrt(T))


def recommended(found: Sequence[Ratio], keep: float) -> Ratio:
    """The smallest ratio that saves a share of the most that any saves.

    Raises:
      UserError: no ratio saves anything.
    """
    none, replayed = found[0], found[1:]
    most = max(none.z - one.z for one in replayed)
    if most <= 0:
        raise UserError(
            "no ratio of the curve lessens forgetting: there is nothing to recommend; set mix.ratio"
        )
    return next(one for one in replayed if none.z - one.z >= keep * most)


def reason(strategy: str, value: float, mean: float) -> str:
    """Why a row was chosen, for people."""
    said = {
        "random": "drawn at random",
        "column_mean": f"other tasks forget it by {value:+.3f} nats a token (mean of all "
        f"candidates {mean:+.3f})",
        "predicted": f"predicted to be forgotten by {value:+.3f} nats a token (mean {mean:+.3f})",
        "coverage": f"stands for {value:.3f} nats of predicted forgetting of examples like it "
        f"(mean {mean:.3f})",
        "measured": f"forgotten by {value:+.3f} nats a token under the adapter (mean {mean:+.3f})",
    }
    return said[strategy]
