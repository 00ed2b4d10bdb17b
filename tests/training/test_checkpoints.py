"""A checkpoint holds the state as it was when saved, and only whole ones are found."""

import gc
import shutil
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax.errors import UserError
from forget_jax.training import state as states
from forget_jax.training import step as steps
from forget_jax.training.checkpoints import Checkpoints, sums
from forget_jax.training.optimizer import OptimizerConfig

CONFIG = OptimizerConfig()


@pytest.fixture
def state():
    rng = np.random.default_rng(0)
    tree = {"a": jnp.array(rng.normal(size=(2, 400, 300)), jnp.float32)}
    return states.init_state(CONFIG, tree)


def advance(state):
    total = states.Accumulated(
        jax.tree.map(jnp.ones_like, state.trainable), jnp.ones(2), jnp.ones(2)
    )
    rates = steps.Rates(np.full(2, 0.1, np.float32), np.ones(2, bool))
    return steps.update(CONFIG, state, total, rates, np.zeros(1))[0]


def same(a, b):
    return all(
        (np.asarray(x) == np.asarray(y)).all()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_the_saved_state_is_not_changed_by_later_steps(state, tmp_path):
    """Updates donate their buffers while the checkpoint is still being written."""
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None
    state = advance(state)
    wanted = jax.tree.map(np.array, state)
    like = jax.tree.map(jnp.zeros_like, state)
    checkpoints.save(1, state)
    for _ in range(5):
        state = advance(state)
    checkpoints.wait()
    assert checkpoints.latest() == 1
    step, found = checkpoints.restore(like)
    assert step == 1 and same(found, wanted) and not same(state, wanted)
    checkpoints.close()


def test_a_second_manager_finds_the_newest_whole_step(state, tmp_path):
    first = Checkpoints(tmp_path)
    for number in (2, 4, 6):
        first.save(number, state)
    first.close()
    unfinished = tmp_path / "8.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (unfinished / "rest").write_text("")
    again = Checkpoints(tmp_path)
    assert again.latest() == 6 and same(again.restore(state)[1], state)
    again.close()
    assert {p.name for p in tmp_path.iterdir() if p.name.isdigit()} == {"4", "6"}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write checkpoints to"):
        Checkpoints(tmp_path / "file" / "checkpoints")


@pytest.fixture
def reads_that_fail():
    """Where a read fails, tensorstore calls back into an event loop that is closed by then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pytest.PytestUnraisableExceptionWarning)
        shown, sys.unraisablehook = sys.unraisablehook, lambda *args: None
        yield
        gc.collect()
        sys.unraisablehook = shown


@pytest.mark.fault("damaged checkpoints", "done again")
@pytest.mark.parametrize("damage", ["flip", "empty", "remove"])
def test_a_damaged_step_gives_way_to_the_one_before(
    state, tmp_path, damage, capsys, reads_that_fail
):
    """Every file of the newest step in turn: the same state, or the one before it, and said."""
    kept = Checkpoints(tmp_path / "whole")
    states_ = {2: jax.tree.map(np.array, state), 4: jax.tree.map(np.array, advance(state))}
    for number, x in states_.items():
        kept.save(number, jax.tree.map(jnp.asarray, x))
    kept.close()
    newest = tmp_path / "whole" / "4"
    names = sorted(f.relative_to(newest) for f in newest.rglob("*") if f.is_file())
    rng = np.random.default_rng(0)
    fell_back = 0
    for i, name in enumerate(names):
        folder = tmp_path / f"{damage}{i}"
        shutil.copytree(tmp_path / "whole", folder)
        file = folder / "4" / name
        data = bytearray(file.read_bytes())
        if damage == "remove":
            file.unlink()
        elif damage == "empty" or not data:
            file.write_bytes(b"")
        else:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
            file.write_bytes(data)
        again = Checkpoints(folder)
        step, found = again.restore(jax.tree.map(jnp.zeros_like, state))
        assert same(found, states_[step])
        said = capsys.readouterr().err
        assert (step == 2) == ("the checkpoint of step 4 is damaged" in said)
        if step == 2:
            fell_back += 1
            again.save(4, jax.tree.map(jnp.asarray, states_[4]))  # the step can be kept again
            again.wait()
            assert again.restore(jax.tree.map(jnp.zeros_like, state))[0] == 4
        again.close()
    assert fell_back >= 2


@given(st.data())
def test_any_changed_byte_changes_the_sums(data):
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * data.draw(st.integers(0, 3))))
    dtype = data.draw(st.sampled_from(["float32", "bfloat16", "int32", "bool", "uint8"]))
    x = np.zeros(shape, jnp.dtype(dtype))
    raw = x.view(np.uint8) if dtype == "bool" else x.reshape(-1).view(np.uint8)
    place = data.draw(st.integers(0, raw.size - 1))
    before = int(sums([jnp.asarray(x)])[0])
    raw.reshape(-1)[place] ^= 1 if dtype == "bool" else 1 << data.draw(st.integers(0, 7))
    assert int(sums([jnp.asarray(x)])[0]) != before


def test_a_folder_of_damaged_steps_alone_begins_again(state, tmp_path, capsys, reads_that_fail):
    kept = Checkpoints(tmp_path)
    kept.save(2, state)
    kept.close()
    for file in (tmp_path / "2").rglob("*"):
        if file.is_file():
            file.write_bytes(b"?")
    again = Checkpoints(tmp_path)
    assert again.restore(jax.tree.map(jnp.zeros_like, state)) is None
    assert again.latest() is None and "step 2 is damaged" in capsys.readouterr().err
    again.close()
