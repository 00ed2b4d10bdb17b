"""Tables that cannot be what was measured: one line each, whatever law is fitted."""

import numpy as np
import pytest

from forget_jax import scaling
from forget_jax.errors import UserError


def table(**changes):
    rank = np.repeat([1, 4, 16], 4)
    points = {
        "rank": rank,
        "P": rank * 1000.0,
        "steps": np.tile([10.0, 20, 40, 80], 3),
        "run": np.repeat(["a", "b", "c"], 4),
        "l_ft": np.linspace(2.0, 1.0, 12),
        "l_f": np.linspace(0.5, 1.0, 12) ** 2,
        "mix": np.tile([0.0, 0.1, 0.2, 0.3], 3),
    }
    return {**points, **{k: np.asarray(v) for k, v in changes.items()}}


def changed(name, row, value):
    column = np.array(table()[name], dtype=float)
    column[row] = value
    return column


MISTAKES = {
    "a row twice": (
        {k: np.r_[v, v[3:4]] for k, v in table().items()},
        "row 12 repeats row 3 in every column",
    ),
    "P in millions": (table(P=changed("P", 5, 0.004)), "units are mixed; give P as a count"),
    "P that changes within a run": (
        {k: v for k, v in table(P=changed("P", 5, 4e9)).items() if k != "rank"},
        "within run 'b': its units are mixed",
    ),
    "two units": (table(unit=["nats"] * 11 + ["bits"]), "holds 'bits' and 'nats'"),
    "percentages": (table(mix=changed("mix", 2, 20.0)), "row 2 has 20: divide percentages by 100"),
    "fewer points than parameters": ({k: v[:3] for k, v in table().items()}, "needs more points"),
    "one rank": (table(P=np.full(12, 7.0), rank=np.ones(12)), "one rank only"),
    "one number of steps": (table(steps=np.full(12, 7.0), x=np.arange(12)), "steps equal to 7"),
    "no change": (table(l_f=np.ones(12)), "nothing to fit"),
    "not a number": (table(l_f=changed("l_f", 4, np.nan)), "first in row 4: drop these rows"),
    "text": (table(P=["1000"] * 11 + ["many"]), "row 11 holds 'many'"),
}


@pytest.mark.fault("tables of points", "one line")
@pytest.mark.parametrize(("points", "said"), MISTAKES.values(), ids=MISTAKES)
def test_one_line(points, said):
    with pytest.raises(UserError, match=said) as e:
        scaling.fit("multiplicative", points)
    assert "\n" not in str(e.value)


@pytest.mark.fault("tables of points", "one line")
def test_a_negative_loss_has_no_logarithm():
    with pytest.raises(UserError, match="positive l_f, but row 4 has -1"):
        scaling.fit("multiplicative", table(l_f=changed("l_f", 4, -1.0)), loss="huber-log")


def test_the_sound_table_is_taken():
    assert scaling.fit("multiplicative", table(), bootstraps=0, heldout=False).n == 12


def test_repeated_measurements_without_runs_are_no_mistake():
    points = {"P": [1e5, 2e5, 4e5, 4e5], "l_f": [0.1, 0.2, 0.3, 0.3]}
    assert scaling.fit("s + K*log(P)", points, bootstraps=0, heldout=False).n == 4


def test_one_run_has_no_interval_and_says_so():
    points = {k: v[:4] for k, v in table().items()}
    made = scaling.fit("power_N", points)
    assert made.ci == {} and any("one run only" in note for note in made.warnings)
