"""Cells of an experiment: names made of coordinates, and figures back over the coordinates."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax.errors import UserError
from forget_jax.fleet.cells import Cell, check, failed, gather, grid, label
from forget_jax.training.loop import Failure, Task

TASK = Task("", (), 0, 1)
words = st.text(st.sampled_from("ab é/|:#"), min_size=1, max_size=4).map("w".__add__)
axes = st.fixed_dictionaries(
    {"task": st.lists(words, min_size=1, max_size=3, unique=True)},
    optional={
        "strategy": st.lists(words, min_size=1, max_size=3, unique=True),
        "rank": st.lists(st.integers(0, 20), min_size=1, max_size=3, unique=True),
        "seed": st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    },
)


def cells(*places):
    return [Cell(at, TASK) for at in places]


@pytest.mark.parametrize(
    ("at", "name"),
    [
        ({"task": "sorting"}, "sorting"),
        ({"task": "sorting", "seed": 0}, "sorting"),
        ({"task": "sorting", "seed": 1}, "sorting, seed 1"),
        ({"task": "sorting", "strategy": "random", "seed": 2}, "sorting, random, seed 2"),
        ({"rank": 8, "seed": 0}, "rank 8"),
        ({"rank": 0, "seed": 0}, "rank 0, seed 0"),
    ],
)
def test_a_cell_is_called_by_its_coordinates(at, name):
    assert label(at) == name
    (cell,) = cells(at)
    assert cell.name == cell.task.name == name
    assert TASK.name == ""  # a task given to several cells stays as it is


def test_a_grid_is_every_combination_the_last_axis_fastest():
    assert grid(task=["a", "b"], seed=range(2)) == [
        {"task": "a", "seed": 0},
        {"task": "a", "seed": 1},
        {"task": "b", "seed": 0},
        {"task": "b", "seed": 1},
    ]
    assert grid(task=[], seed=range(2)) == []


@given(axes)
def test_every_cell_of_a_grid_has_a_name_of_its_own(values):
    found = cells(*grid(**values))
    assert len({cell.name for cell in found}) == len(found)
    check(found)


@given(axes, st.randoms(use_true_random=False), st.data())
def test_figures_come_back_at_their_coordinates(values, random, data):
    """In any order, some of them failed, some combinations no cell at all."""
    places = grid(**values)
    random.shuffle(places)
    there = cells(*places[: data.draw(st.integers(1, len(places)))])
    failed = data.draw(st.sets(st.sampled_from([c.name for c in there])))
    figures = {c.name: float(i) for i, c in enumerate(there) if c.name not in failed}
    found = gather(there, figures, unit="nats a token")
    assert found.attrs == {"unit": "nats a token"}
    assert found.dims == tuple(places[0])
    for key in values:  # in the order of the cells
        assert found[key].values.tolist() == list(dict.fromkeys(c.at[key] for c in there))
    wanted = {tuple(c.at.values()): figures[c.name] for c in there if c.name in figures}
    for place in itertools.product(*(found[key].values.tolist() for key in found.dims)):
        value = float(found.sel(dict(zip(found.dims, place, strict=True))))
        if place in wanted:
            assert value == wanted[place]
        else:
            assert np.isnan(value)


def test_rows_of_figures_keep_their_own_axes():
    there = cells(*grid(task=["a", "b"], seed=[3, 7]))
    rows = {c.name: np.arange(3.0) + 10 * i for i, c in enumerate(there) if c.name != "b, seed 3"}
    found = gather(there, rows, {"example": ["x", "y", "z"]})
    assert found.dims == ("task", "seed", "example")
    np.testing.assert_array_equal(found.sel(task="b", seed=7), [30, 31, 32])
    assert found.sel(task="a", seed=7, example="y") == 11
    assert np.isnan(found.sel(task="b", seed=3)).all()
    mean = found.mean("seed", skipna=True).sel(task="b")  # what a comparison does with a failed one
    np.testing.assert_array_equal(mean, [30, 31, 32])


def test_cells_of_one_name_are_refused():
    with pytest.raises(UserError, match=r"two tasks are called sorting, seed 1; rename"):
        check(cells({"task": "sorting", "seed": 1}, {"task": "sorting", "seed": 1}))
    with pytest.raises(UserError, match=r"two tasks are called a, b, c"):  # other coordinates
        check(cells({"task": "a, b", "arm": "c"}, {"task": "a", "arm": "b, c"}))


def test_a_cell_that_is_called_as_the_base_is_refused():
    with pytest.raises(UserError, match="a task is called base, which is the name of the model"):
        check(cells({"task": "sorting", "seed": 0}, {"task": "base", "seed": 0}))
    check(cells({"task": "base", "seed": 1}))  # its name is another


def test_failures_are_named_by_coordinates():
    there = cells(*grid(task=["a", "b"], seed=range(2)))
    lost = Failure(3, float("inf"), ["x", "y"], 2)
    assert failed(there, {"b, seed 1": lost}) == (
        "task b, seed 1 (the loss of it is inf at step 3 (examples x, y); "
        "the last good checkpoint is of step 2)"
    )
    assert failed(there, {}) == ""
