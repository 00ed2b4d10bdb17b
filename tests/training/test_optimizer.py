"""The optimizer step of each task is optax's own AdamW with optax's own schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from forget_jax.training import step as steps
from forget_jax.training.optimizer import OptimizerConfig, Schedule
from forget_jax.training.settings import SCHEDULES
from forget_jax.training.state import Accumulated, init_state, zero_like

TOTAL = np.array([9, 5])
TOKENS = np.array([7.0, 3.0])
STOP = np.zeros(1)


def tree(rng, tasks=None):
    shape = (() if tasks is None else (tasks,)) + (4, 3)
    return {name: rng.normal(size=shape).astype(np.float32) for name in ("a", "b")}


def optax_schedule(schedule, total):
    lr, w = schedule.lr, schedule.warmup
    after = {
        "constant": optax.constant_schedule(lr),
        "linear": optax.linear_schedule(lr, 0.0, total - w),
        "cosine": optax.cosine_decay_schedule(lr, total - w),
    }[schedule.kind]
    if not w:
        return after
    return optax.join_schedules([optax.linear_schedule(lr / w, lr, w - 1), after], [w])


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(("warmup", "clip", "decay"), [(3, 0.7, 0.1), (0, 0.0, 0.0)])
def test_updates_are_those_of_optax(kind, warmup, clip, decay):
    rng = np.random.default_rng(0)
    config, schedule = OptimizerConfig(clip, decay), Schedule(0.1, kind, warmup)
    start = tree(rng, tasks=2)
    grads = [tree(rng, tasks=2) for _ in range(TOTAL.max())]

    state = init_state(config, jax.tree.map(jnp.array, start))
    ours, norms = [], []
    for number, g in enumerate(grads):
        lr = np.array([schedule.rate(number, int(n)) for n in TOTAL], np.float32)
        summed = jax.tree.map(lambda x: jnp.array(x * TOKENS[:, None, None], jnp.float32), g)
        total = Accumulated(summed, jnp.zeros(2), jnp.array(TOKENS))
        rates = steps.Rates(lr, number < TOTAL)
        state, metrics, zeroed = steps.update(config, state, total, rates, STOP)
        ours.append(jax.tree.map(np.asarray, state.trainable))
        norms.append(np.asarray(metrics["grad_norm_S"]))
        assert all((np.asarray(x) == 0).all() for x in jax.tree.leaves(zeroed))

    for m in range(2):
        reference = optax.chain(
            optax.clip_by_global_norm(clip) if clip else optax.identity(),
            optax.adamw(optax_schedule(schedule, TOTAL[m]), weight_decay=decay),
        )
        params = jax.tree.map(lambda x, m=m: jnp.array(x[m]), start)
        theirs = reference.init(params)
        for number, g in enumerate(grads):
            grad = jax.tree.map(lambda x, m=m: x[m], g)
            assert norms[number][m] == pytest.approx(float(optax.tree.norm(grad)), rel=1e-5)
            if number < TOTAL[m]:
                change, theirs = reference.update(grad, theirs, params)
                params = optax.apply_updates(params, change)
            for name in params:
                np.testing.assert_allclose(
                    ours[number][name][m], params[name], rtol=2e-5, atol=2e-6
                )
    assert state.step_M.tolist() == TOTAL.tolist()


def test_loss_is_per_target_token():
    config = OptimizerConfig()
    start = tree(np.random.default_rng(0), tasks=2)
    state = init_state(config, jax.tree.map(jnp.array, start))
    total = zero_like(state)._replace(
        cost_S=jnp.array([14.0, 9.0]), tokens_S=jnp.array(TOKENS, jnp.float32)
    )
    rates = steps.Rates(np.ones(2), np.ones(2, bool))
    _, metrics, _ = steps.update(config, state, total, rates, STOP)
    assert metrics["loss_S"].tolist() == [2.0, 3.0]
