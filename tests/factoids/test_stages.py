"""The stages of factoid training, and what counts as recited."""

import numpy as np
import pytest

from forget_jax.data.tokenise import Encoded
from forget_jax.factoids.mitigations import ARMS
from forget_jax.factoids.stages import StageConfig, task
from forget_jax.scoring.exact_match import is_correct


def rows(n, start=0):
    return [
        Encoded(f"r{i}", "s", np.array([start + i, 1], np.int32), np.array([False, True]))
        for i in range(n)
    ]


def test_every_fact_and_every_mixed_row_comes_once_an_epoch():
    made = task(
        "a", rows(6), rows(20, 100), True, 0, StageConfig(epochs=4, batch_size=8, ratio=0.5)
    )
    seen = np.bincount(made.order[: 4 * 9], minlength=len(made.examples))
    assert len(made.examples) == 6 + 3
    np.testing.assert_array_equal(seen, 4)
    assert made.steps == -(-36 // 8) and len(made.order) == made.steps * 8


def test_without_mixing_only_facts_are_trained():
    made = task("a", rows(6), rows(20), False, 0, StageConfig(epochs=2, batch_size=4, ratio=2.0))
    assert len(made.examples) == 6 and made.steps == 3 and set(made.order) == set(range(6))


def test_the_arms_cover_every_combination_of_stages():
    assert sorted((a.mixed, b.mixed) for a, b in ARMS.values()) == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]


@pytest.mark.parametrize(
    "prediction, normaliser, right",
    [
        (" Paris \n", "strict", True),
        ("Paris.", "strict", False),
        ("the Paris.", "squad", True),
        ("", "strict", False),
        ("City of Light", "strict", True),
        ("Paris, France", "squad", False),
    ],
)
def test_exact_match(prediction, normaliser, right):
    assert is_correct(prediction, ("Paris", "city of light"), normaliser) is right
