"""A checkpoint holds the state as it was when saved, and only whole ones are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.errors import UserError
from forget_jax.training import state as states
from forget_jax.training import step as steps
from forget_jax.training.checkpoints import Checkpoints
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
    assert same(checkpoints.restore(like), wanted) and not same(state, wanted)
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
    assert again.latest() == 6 and same(again.restore(state), state)
    again.close()
    assert {p.name for p in tmp_path.iterdir() if p.name.isdigit()} == {"4", "6"}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write checkpoints to"):
        Checkpoints(tmp_path / "file" / "checkpoints")
