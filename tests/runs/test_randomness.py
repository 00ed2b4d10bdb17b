"""Streams of different names differ, whatever the seed, and those of one name are the same."""

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forget_jax.randomness import PURPOSES, generator, key, seed_of

names = st.tuples(
    st.integers(-3, 3) | st.integers(),
    st.sampled_from(sorted(PURPOSES)),
    st.lists(st.integers(0, 5) | st.text(max_size=3), max_size=3),
)


def flat(name):
    seed, purpose, more = name
    return seed, purpose, *more


def drawn(name):
    return generator(*flat(name)).integers(0, 2**63, 4).tolist()


@given(names, names)
@example((0, "mixing", [1]), (0, "mixing", ["1"]))
@example((0, "mixing", ["ab", "c"]), (0, "mixing", ["a", "bc"]))
@example((0, "mixing", ['a", "b']), (0, "mixing", ["a", "b"]))
@example((0, "mixing", ["\u00e9"]), (0, "mixing", ["\\u00e9"]))
@example((1, "mixing", [11]), (11, "mixing", [1]))
@example((2**64, "mixing", []), (0, "mixing", []))
@example((-1, "mixing", []), (2**64 - 1, "mixing", []))
def test_two_names_have_two_streams_and_one_name_has_one(one, other):
    assert drawn(one) == drawn(one) and seed_of(*flat(one)) == seed_of(*flat(one))
    if flat(one) != flat(other):
        assert drawn(one) != drawn(other)


# Each was Philox of [seed, n]: epochs with n from 0, four other uses with n of their own.
USES = [*(("order of rows", epoch) for epoch in range(6)), ("held-out split",), ("mixing",),
        ("replay draw",), ("replay pool",)]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**63, 2**64 + 1, -1])
def test_uses_that_shared_a_stream_do_so_no_longer(seed):
    orders = {tuple(generator(seed, *use).permutation(100).tolist()) for use in USES}
    keys = {tuple(jax.random.key_data(key(seed, *use)).tolist()) for use in USES}
    assert len(orders) == len(keys) == len({seed_of(seed, *use) for use in USES}) == len(USES)


def test_the_numbers_stay_what_they_are():
    """Figures of runs depend on them: a change here is a change of every figure."""
    assert generator(0, "order of rows", 1).permutation(8).tolist() == [0, 2, 5, 3, 7, 6, 1, 4]
    assert jax.random.key_data(key(0, "initial adapter")).tolist() == [984571, 1185364941]
    assert seed_of(2**63, "task", "reverse", 0) == 1111593073


def test_numbers_of_any_kind_name_the_same_stream():
    assert seed_of(np.int64(3), "task", np.uint8(2)) == seed_of(3, "task", 2)
    assert seed_of(3, "task", True) == seed_of(3, "task", 1)


@pytest.mark.parametrize("take", [generator, key, seed_of])
def test_what_is_no_name(take):
    with pytest.raises(ValueError, match=r"'mixng' is no purpose of randomness; there are \["):
        take(0, "mixng")
    for wrong in (1.0, None, b"x", (1,)):
        with pytest.raises(TypeError):
            take(0, "mixing", wrong)
        with pytest.raises(TypeError):
            take(wrong, "mixing")


def test_a_key_serves_the_default_implementation():
    with jax.default_prng_impl("rbg"):
        assert jax.random.uniform(key(0, "dropout", 1, 2), (3,)).shape == (3,)
