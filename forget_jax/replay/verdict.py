"""What a comparison of strategies shows: headroom, paired tests, and how much more is needed.

A pair is a task under a seed. Seeds of one task are alike, so tasks are the clusters: tests flip
the signs of whole tasks, and intervals are over tasks. Tests of one family are corrected together.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from forget_jax.fleet.paired import Paired, holm, paired
from forget_jax.replay.cells import Arm

ENOUGH = 5.0  # times the noise between seeds that none − random must be for a ranking


@dataclasses.dataclass(frozen=True)
class Headroom:
    """Whether anything could be told apart.

    Attributes:
      mean: forgetting without replay less that under random replay, nats a token.
      noise: standard deviation of that difference between seeds of one task; NaN for one seed.
      enough: whether the first is ENOUGH times the second.
    """

    mean: float
    noise: float
    enough: bool

    def line(self) -> str:
        """In words."""
        if np.isnan(self.noise):
            return (
                f"replay at random saves {self.mean:+.4f} nats; one seed cannot tell whether that "
                "is more than noise: set replay.seeds above 1"
            )
        if self.enough:
            return f"random replay saves {self.mean:.4f} nats, seeds differ by {self.noise:.4f}"
        return (
            f"no headroom: random replay saves {self.mean:+.4f} nats, seeds of one task differ by "
            f"{self.noise:.4f}; a ranking needs {ENOUGH:g} times that: train longer or harder "
            "(train.steps, train.lr), replay less (replay.ratio), or take upstream examples that "
            "the tasks make the model forget"
        )


def pivot(frame: pd.DataFrame, arm: Arm, column: str) -> pd.DataFrame:
    """A figure of one arm, task x seed."""
    is_arm = (frame.strategy == arm.strategy) & (frame.cost == arm.cost)
    is_arm &= np.isclose(frame.ratio, arm.ratio)
    if "matched" in frame:  # not in tables of earlier versions
        is_arm &= frame.matched == arm.matched
    return frame[is_arm].pivot(index="task", columns="seed", values=column)


def headroom(frame: pd.DataFrame, random: Arm) -> Headroom:
    """None less random replay; needs both in the frame."""
    d = (pivot(frame, Arm("none"), "z") - pivot(frame, random, "z")).values
    noise = float(np.sqrt(d.var(axis=1, ddof=1).mean())) if d.shape[1] > 1 else float("nan")
    mean = float(d.mean())
    return Headroom(mean, noise, bool(mean >= ENOUGH * noise))


def recovered(
    frame: pd.DataFrame, arm: Arm, random: Arm, draws: int = 2000
) -> tuple[float, float, float]:
    """(random − arm) / (none − random) in mean z, with its 95 % bootstrap interval over tasks."""
    none, base, mine = (pivot(frame, a, "z").values.mean(1) for a in (Arm("none"), random, arm))

    def share(index: np.ndarray) -> np.ndarray:
        return (base - mine)[index].mean(-1) / (none - base)[index].mean(-1)

    T = len(none)
    again = share(np.random.default_rng(0).integers(0, T, (draws, T)))
    low, high = np.quantile(again, [0.025, 0.975]) if T > 1 else (np.nan, np.nan)
    return float(share(np.arange(T))), float(low), float(high)


def comparisons(arms: Sequence[Arm]) -> dict[str, list[tuple[Arm, Arm]]]:
    """Which arms are compared, by family; within one, p is corrected.

    Every strategy with random replay, and with column means, at its ratio and cost; random replay
    with none; a cost other than the NLL with the NLL; and equal compute with added steps.
    """
    there = set(arms)

    def pairs(other: Callable[[Arm], Arm], but: Sequence[str]) -> list[tuple[Arm, Arm]]:
        return [(a, other(a)) for a in arms if a.strategy not in but and other(a) in there]

    kl = [a for a in arms if a.cost != "nll"]
    less = [a for a in arms if a.matched == "compute"]
    return {
        "random": pairs(lambda a: a._replace(strategy="random"), ("none", "random")),
        "column_mean": pairs(
            lambda a: a._replace(strategy="column_mean"),
            ("none", "random", "pad", "generated", "answered", "column_mean"),
        ),
        "none": [(a, Arm("none")) for a in arms if a.strategy == "random" and Arm("none") in there],
        "nll": [(a, a._replace(cost="nll")) for a in kl if a._replace(cost="nll") in there],
        "steps": [(a, b) for a in less if (b := a._replace(matched="steps")) in there],
    }


def tests(
    frame: pd.DataFrame, arms: Sequence[Arm], column: str = "z"
) -> dict[tuple[Arm, Arm], Paired]:
    """Every comparison of a figure, corrected within its family."""
    found = {}
    for family in comparisons(arms).values():
        results = [
            paired((pivot(frame, a, column) - pivot(frame, b, column)).values) for a, b in family
        ]
        for pair, one, p in zip(family, results, holm([r.p for r in results]), strict=True):
            found[pair] = dataclasses.replace(one, p_holm=p)
    return found
