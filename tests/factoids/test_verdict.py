"""What a comparison of arms is said to show."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from forget_jax.factoids import verdict


def frame(kept, learnt=1.0, sequences=("a > b",), after="B"):
    """Cells of arms from what each keeps, sequence x seed."""
    rows = [
        {"sequence": name, "arm": arm, "seed": s, "after": stage, "set": "A", "exact": exact}
        for arm, values in kept.items()
        for name, by_seed in zip(sequences, np.atleast_2d(values), strict=True)
        for s, x in enumerate(by_seed)
        for stage, exact in (("A", learnt), (after, x))
    ]
    return pd.DataFrame(rows)


def test_with_one_sequence_seeds_are_the_clusters():
    kept = {"naive": [0.1, 0.2, 0.3], "ewc": [0.3, 0.35, 0.4]}
    found = verdict.tests(frame(kept), tuple(kept), 2, 2.0)["ewc", "naive"]
    assert (found.pairs, found.tasks) == (3, 3)
    assert found.mean == pytest.approx(0.15)
    assert found.p == pytest.approx(0.25)  # all signs alike, of 2³
    assert found.low < 0.15 < found.high


def test_with_several_sequences_these_are():
    kept = {"naive": np.zeros((4, 2)), "ewc": [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [0.2, 0.2]]}
    names = tuple(f"a > {x}" for x in "bcde")
    found = verdict.tests(frame(kept, sequences=names), tuple(kept), 2, 2.0)["ewc", "naive"]
    assert (found.pairs, found.tasks) == (8, 4) and found.p == pytest.approx(2 / 16)


def test_p_is_corrected_within_a_family():
    rng = np.random.default_rng(0)
    kept = {arm: rng.random(5) for arm in ("naive", "ewc", "kl", "l2")}
    found = verdict.tests(frame(kept), tuple(kept), 2, 2.0)
    assert len(found) == 3
    assert all(t.p_holm >= t.p for t in found.values())
    assert max(t.p_holm for t in found.values()) >= min(3 * t.p for t in found.values()) - 1e-12


def facts(kept):
    """Facts kept by arm, seed x fact."""
    rows = [
        {"sequence": "a > b", "arm": arm, "seed": s, "fact": f"f{i}", "exact": x}
        for arm, by_seed in kept.items()
        for s, values in enumerate(by_seed)
        for i, x in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_one_training_each_is_told_apart_over_facts():
    naive, ewc = np.zeros(20), np.zeros(20)
    naive[:3], ewc[2:12] = 1, 1
    kept = {"naive": [naive], "ewc": [ewc]}
    found = verdict.over_facts(facts(kept), tuple(kept), 2, 2.0)["ewc", "naive"]
    assert (found.more, found.less) == (9, 2)
    assert found.p == pytest.approx(scipy.stats.binomtest(2, 11).pvalue)
    interval = scipy.stats.ttest_1samp(ewc - naive, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(interval))
    alike = {"naive": [naive], "ewc": [naive]}
    none = verdict.over_facts(facts(alike), tuple(kept), 2, 2.0)["ewc", "naive"]
    assert (none.more, none.less, none.low, none.p) == (0, 0, 0, 1)


def test_a_fact_counts_once_however_many_trainings():
    kept = {"naive": [[0, 1, 0, 1], [0, 0, 0, 1]], "kl": [[1, 0, 1, 1], [1, 1, 0, 1]]}
    found = verdict.over_facts(facts(kept), tuple(kept), 2, 2.0)["kl", "naive"]
    assert (found.more, found.less) == (2, 0)  # the second is kept once by each
    assert found.low < 0.375 < found.high


def test_answers_that_are_not_recited_decide_nothing():
    kept = {arm: [[np.nan, np.nan]] for arm in ("naive", "l2")}
    found = verdict.over_facts(facts(kept), tuple(kept), 2, 2.0)["l2", "naive"]
    assert (found.more, found.less, found.p) == (0, 0, 1) and np.isnan(found.low)


@pytest.mark.parametrize(
    ("kept", "learnt", "said"),
    [
        (0.2, 1.0, "room both ways"),
        (0.0, 1.0, "gentler last stage"),
        (1.0, 1.0, "nothing to save"),
        (0.2, 0.5, "train longer"),
    ],
)
def test_whether_arms_can_differ_is_said(kept, learnt, said):
    assert said in verdict.headroom(frame({"naive": [kept], "ewc": [0.5]}, learnt))


def test_an_arm_that_does_not_learn_is_named():
    cells = frame({"naive": [0.2], "ewc": [1.0]})
    b = {"naive": 1.0, "ewc": 0.1}
    more = cells[cells.after == "B"].assign(set="B", exact=lambda d: d.arm.map(b))
    said = verdict.headroom(pd.concat([cells, more]))
    assert "learn less of the last set" in said and "ewc (10% of it)" in said
    assert "naive (" not in said


def test_the_last_stage_counts():
    three = frame({"naive": [0.1]}, after="C")
    assert verdict.last(three).exact.tolist() == [0.1]
