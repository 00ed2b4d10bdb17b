"""A task that fails or stops early leaves the others as they are."""

import dataclasses

import jax
import numpy as np
import pytest

from forget_jax.errors import UserError
from forget_jax.lm import lora, sharding
from forget_jax.training import state as states
from forget_jax.training.checkpoints import Checkpoints
from forget_jax.training.loop import Listener, Recipe, Task, train
from forget_jax.training.optimizer import Schedule
from forget_jax.training.settings import Train

ADAPTER = lora.LoRAConfig(rank=2, alpha=8.0)
TRAIN = Train(
    batch_size=4,
    microbatch=4,
    buckets=1,
    lr=0.01,
    schedule="constant",
    warmup=0,
    save_every=2,
    eval_every=3,
)


def fit(model, tasks, checkpoints=None, settings=TRAIN):
    records = []
    listener = Listener(log=records.append)
    outcome = train(model, Recipe(settings, ADAPTER), tasks, checkpoints, listener=listener)
    return jax.tree.map(np.asarray, outcome.trainable), outcome, records


@pytest.fixture
def three(random_examples):
    return [Task(f"t{m}", random_examples(m, [12, 9, 14, 10] * 2), m, 8) for m in range(3)]


@pytest.fixture
def explode(monkeypatch):
    """Makes the learning rate of the second task too high from its sixth step on."""

    def rate(self, step, total):
        return 1e38 if self.kind == "linear" and step >= 4 else 0.01

    monkeypatch.setattr(Schedule, "rate", rate)


def same(a, b, m):
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    return all(np.array_equal(x[m], y[m]) for x, y in pairs)


def test_a_loss_that_is_not_finite_stops_its_task_alone(
    tiny_model, three, explode, tmp_path, capsys
):
    whole, _, _ = fit(tiny_model, three)
    bad = [three[0], dataclasses.replace(three[1], schedule=Schedule(1.0, "linear")), three[2]]
    checkpoints = Checkpoints(tmp_path)
    found, outcome, records = fit(tiny_model, bad, checkpoints)
    checkpoints.close()
    assert set(outcome.failures) == {"t1"}
    failure = outcome.failures["t1"]
    assert failure.step in (5, 6) and failure.checkpoint == 4
    assert len(failure.examples) == 4 and set(failure.examples) <= {
        e.name for e in three[1].examples
    }
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    assert outcome.steps == {"t0": 8, "t1": failure.step - 1, "t2": 8}
    said = capsys.readouterr().err
    assert "t1" in said and failure.examples[0] in said and "checkpoint is of step 4" in said
    # the others train on as if it had not failed, to the last few bits (fewer rows beside theirs)
    for m in (0, 2):
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(x[m], y[m], rtol=1e-3, atol=1e-4)
    assert [set(r["loss"]) for r in records][-1] == {"t0", "t2"}
    # what is resumed knows of the failure, with its rows and its checkpoint
    again = Checkpoints(tmp_path)
    resumed, outcome_again, _ = fit(tiny_model, bad, again)
    again.close()
    assert outcome_again.failures == outcome.failures
    assert all(same(resumed, found, m) for m in range(3))


def test_not_a_number_stays_in_its_task():
    """Gradients that are not finite reach no other task through the one-hot product."""
    import jax.numpy as jnp

    from forget_jax.lm.lora import delta

    a, b = jnp.ones((2, 3, 2)), jnp.ones((2, 2, 5))
    x = jnp.ones((2, 4, 3)).at[1].set(jnp.inf)
    task = jnp.eye(2)
    grads = jax.grad(lambda ab: jnp.sum(delta(x, *ab, task)))((a, b))
    for g in grads:
        assert np.isfinite(g[0]).all() and np.isnan(g[1]).all()


def test_all_tasks_failing_ends_the_run(tiny_model, three, explode):
    bad = [dataclasses.replace(t, schedule=Schedule(1.0, "linear")) for t in three]
    _, outcome, records = fit(tiny_model, bad)
    assert set(outcome.failures) == {"t0", "t1", "t2"} and len(records) < 8


def test_a_task_stops_when_its_heldout_loss_rises(tiny_model, random_examples):
    """The rows held out of t1 are those of another seed, so that learning its own is no help."""
    rows = random_examples(0, [12, 9, 14, 10])
    settings = dataclasses.replace(TRAIN, save_every=0)
    tasks = [
        Task("t0", rows, 2, 24, heldout=rows[:2], patience=1),  # memorised: always better
        Task("t1", rows, 1, 24, heldout=random_examples(5, [40, 40]), patience=1),
    ]
    trained, outcome, records = fit(tiny_model, tasks, settings=settings)
    checks = [(r["step"], r["heldout"]) for r in records if "heldout" in r]
    t1 = [(step, losses["t1"]) for step, losses in checks if "t1" in losses]
    assert len(t1) * 3 < 24 and t1[-1][1] > t1[-2][1]  # it ended at its first rise
    best = min(t1, key=lambda pair: pair[1])
    assert outcome.steps["t1"] == best[0]
    assert outcome.steps["t0"] == 24 and "t0" in checks[-1][1]
    assert not outcome.failures
    # the kept state is that of a run which ends at the best step
    short = [dataclasses.replace(t, heldout=(), patience=0) for t in tasks]
    until, _, _ = fit(
        tiny_model,
        [
            dataclasses.replace(short[0], steps=best[0]),
            dataclasses.replace(short[1], steps=best[0]),
        ],
        settings=settings,
    )
    for x, y in zip(jax.tree.leaves(trained), jax.tree.leaves(until), strict=True):
        np.testing.assert_allclose(x[1], y[1], rtol=1e-4, atol=1e-6)


def test_full_fine_tuning_is_one_task(tiny_model, three):
    with pytest.raises(UserError, match="one task at a time"):
        train(tiny_model, Recipe(TRAIN), three)
    with pytest.raises(UserError, match=r"lora\.targets 'nothing' matches no"):
        states.fresh_trainable(lora.LoRAConfig(targets="nothing"), tiny_model.params, three, 3)


def test_an_uncovered_parameter_is_an_error():
    with pytest.raises(UserError, match="no sharding rule covers the parameter layers/moe/gate"):
        sharding.spec("layers/moe/gate", (2, 8, 8))
    with pytest.raises(UserError, match="for 3 axes"):
        sharding.spec("layers/attn/q/kernel", (8,))


def test_a_mesh_must_use_the_devices_there_are():
    with pytest.raises(UserError, match=r"make 4 devices, but there are 1"):
        sharding.make(sharding.MeshShape(fsdp=4))
    assert sharding.make(sharding.MeshShape()) is None
