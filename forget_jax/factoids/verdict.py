"""What a comparison of arms shows: whether it can show anything, and tests between arms.

Clusters are the sequences of sets where there are several, else the seeds. Few of them decide
nothing; over A's facts more can be said, of the trainings at hand alone.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from forget_jax.associations.changes import change
from forget_jax.factoids.mitigations import LETTERS, NAIVE, Mitigation, parse
from forget_jax.fleet.paired import Paired, holm, paired

Tested = TypeVar("Tested", Paired, "OverFacts")

LEARNT = 0.99  # of A after A, below which forgetting is not all that is measured
ENOUGH = 0.9  # of what naive learns of the last set
ROOM = (0.02, 0.95)  # of A after the last stage, where arms can differ both ways


def last(frame: pd.DataFrame) -> pd.DataFrame:
    """Set A after the last stage of each sequence."""
    is_a = (frame["set"] == "A") & frame.after.isin(list(LETTERS))
    found = frame[is_a].sort_values("after", kind="stable")
    return found.groupby(["sequence", "arm", "seed"], sort=False, as_index=False).last()


def pivot(frame: pd.DataFrame, arm: str, column: str = "exact") -> np.ndarray:
    """A figure of an arm, clusters x repetitions."""
    of = frame[frame.arm == arm].pivot(index="sequence", columns="seed", values=column)
    values: np.ndarray = of.to_numpy(float)
    return values.T if len(values) == 1 else values


def control(done: Sequence[Mitigation]) -> tuple[Mitigation, ...]:
    """The same steps without the mixed rows."""
    return tuple(
        dataclasses.replace(m, mixes=(), steps=m.steps + sum(mix.ratio for mix in m.mixes))
        for m in done
    )


def comparisons(arms: Sequence[str], stages: int, ratio: float) -> dict[str, list[tuple[str, str]]]:
    """Which arms are compared, by family; within one, p is corrected.

    Every arm with naive; every arm that mixes with its control of as many steps; and those that mix
    and do nothing else with those that replay and do nothing else.
    """
    done = {arm: parse(arm, stages, ratio) for arm in arms}

    def all_of(test: Callable[[Mitigation], bool], others: Sequence[str]) -> list[str]:
        plain = {name: f.default for name, f in Mitigation.__dataclass_fields__.items()}

        def only(m: Mitigation) -> bool:
            return all(getattr(m, n) == v for n, v in plain.items() if n not in others)

        return [a for a in arms if any(map(test, done[a])) and all(map(only, done[a]))]

    mixing = all_of(lambda m: bool(m.mixes), ("mixes",))
    replaying = all_of(lambda m: 0 < m.replay < 1, ("replay", "redrawn"))
    controls = {of: arm for arm, of in done.items()}
    return {
        "naive": [(a, NAIVE) for a in arms if a != NAIVE and NAIVE in arms],
        "control": [
            (a, controls[control(done[a])])
            for a in arms
            if any(m.mixes for m in done[a]) and control(done[a]) in controls
        ],
        "replay": [(a, b) for a in mixing for b in replaying],
    }


def tests(
    frame: pd.DataFrame, arms: Sequence[str], stages: int, ratio: float
) -> dict[tuple[str, str], Paired]:
    """Every comparison of what is kept of A after the last stage, corrected within its family."""
    kept = last(frame)
    families = comparisons(arms, stages, ratio)
    return _corrected(families, lambda a, b: paired(pivot(kept, a) - pivot(kept, b)))


def _corrected(
    families: Mapping[str, Sequence[tuple[str, str]]], test: Callable[[str, str], Tested]
) -> dict[tuple[str, str], Tested]:
    """A test of every comparison, its p corrected within the comparison's family."""
    found = {}
    for family in families.values():
        results = [test(a, b) for a, b in family]
        for pair, one, p in zip(family, results, holm([r.p for r in results]), strict=True):
            found[pair] = dataclasses.replace(one, p_holm=p)
    return found


@dataclasses.dataclass(frozen=True)
class OverFacts:
    """What one arm keeps and another does not, fact by fact, in the trainings at hand.

    Attributes:
      more, less: facts that the one keeps in more of its trainings than the other, and in fewer.
      low, high: 95 % t interval of the mean difference over facts, as a share of them.
      p: exact sign test of as many more as less, two-sided; of one training each it is McNemar's.
      p_holm: the same, corrected over its family.
    """

    more: int
    less: int
    low: float
    high: float
    p: float
    p_holm: float = float("nan")


def _over_facts(d_FxS: np.ndarray) -> OverFacts:
    """Of the differences of F facts under S trainings; NaN where nothing was recited."""
    from scipy.stats import binomtest

    d_F = d_FxS.mean(1)
    more, less = int((d_F > 0).sum()), int((d_F < 0).sum())
    of = change(d_F, np.ones_like(d_F), 0.95)
    p = float(binomtest(more, more + less).pvalue) if more + less else 1.0
    return OverFacts(more, less, of.low, of.high, p)


def over_facts(
    kept: pd.DataFrame, arms: Sequence[str], stages: int, ratio: float
) -> dict[tuple[str, str], OverFacts]:
    """Every comparison of `tests` over A's facts, corrected within its family.

    Args:
      kept: `sequence`, `arm`, `seed`, `fact` (its number in A) and `exact`, 1 where it is kept
        after the last stage.
    """
    by_arm = kept.pivot(index=["sequence", "fact"], columns=["arm", "seed"], values="exact")
    families = comparisons(arms, stages, ratio)
    return _corrected(families, lambda a, b: _over_facts((by_arm[a] - by_arm[b]).to_numpy(float)))


def _unlearnt(frame: pd.DataFrame) -> list[str]:
    """Arms that keep A by not learning the last set: what they keep says nothing."""
    newest = frame[(frame["set"] != "A") & (frame["set"] == frame.after)]
    newest = newest[newest.after == newest.after.max()].groupby("arm", sort=False).exact.mean()
    if NAIVE not in newest or not newest[NAIVE] > 0:
        return []
    few = newest[newest < ENOUGH * newest[NAIVE]]
    return [
        "these learn less of the last set, so that what they keep of A is no gain by itself: "
        + ", ".join(f"{arm} ({share:.0%} of it)" for arm, share in few.items())
    ] * bool(len(few))


def headroom(frame: pd.DataFrame) -> str:
    """In words, whether arms could differ: A was memorised, and naive keeps some of it."""
    learnt = frame[(frame.after == "A") & (frame["set"] == "A")].groupby("arm").exact.mean()
    said = []
    if len(low := learnt[learnt < LEARNT]):
        said.append(
            f"{low.idxmin()} knows {low.min():.1%} of A after A, below {LEARNT:.0%}: train longer "
            "(epochs) or harder (train.lr)"
        )
    said += _unlearnt(frame)
    naive = last(frame)
    naive = naive[naive.arm == NAIVE]
    if len(naive):
        kept = float(naive.exact.mean())
        if kept < ROOM[0]:
            said.append(
                f"{NAIVE} keeps {kept:.1%} of A: arms can only be told apart above that; a gentler "
                "last stage (train.lr, epochs, fewer facts) leaves more to tell"
            )
        elif kept > ROOM[1]:
            said.append(f"{NAIVE} keeps {kept:.1%} of A: there is nothing to save")
        else:
            said.append(f"{NAIVE} keeps {kept:.1%} of A: there is room both ways")
    return "; ".join(said)
