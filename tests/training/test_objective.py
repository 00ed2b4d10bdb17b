"""What is minimised: rows' costs and a penalty, against gradients written by hand; and phases."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from forget_jax.lm import decoder, lora
from forget_jax.lm.logprob import Head, target_kl
from forget_jax.lm.model import Adapters, Batch
from forget_jax.training.checkpoints import Checkpoints
from forget_jax.training.loop import Listener, Recipe, StepPlan, Task, train
from forget_jax.training.objective import Objective, Quadratic, kl_to_base, nll, nll_and_kl
from forget_jax.training.settings import Train

ADAPTER = lora.LoRAConfig(rank=2, alpha=8.0, targets="layers/(attn/q|mlp/down)")
TRAIN = Train(
    batch_size=3,
    microbatch=4,
    buckets=1,
    lr=0.02,
    schedule="linear",
    warmup=0,
    clip=0.8,
    decay=0.01,
    save_every=0,
)
NLL = Objective()
STRENGTH = np.array([0.3, 2.0, 0.7], np.float32)  # of each task's penalty


@pytest.fixture(scope="module")
def tasks(random_examples):
    """The first ends first, so that the others move into fewer seats."""
    return [
        Task(f"t{m}", random_examples(m, [12, 9, 14, 10, 7]), m, steps)
        for m, steps in enumerate((2, 5, 4))
    ]


@pytest.fixture(scope="module")
def start(tiny_params):
    """Three adapters away from zero, so that every leaf has a gradient."""
    one = lora.init(ADAPTER, tiny_params, jax.random.key(0))
    return noise(one, 0.05, 1)


def noise(like, size, seed):
    """A stack of three random trees."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0, size, (3, *x.shape)).astype(np.float32), like)


def quadratic(start, weighed):
    """A penalty that pulls towards another place than where training starts."""
    one = of_task(start, 0)
    importance = jax.tree.map(np.abs, noise(one, 1.0, 3)) if weighed else None
    return Quadratic(STRENGTH, noise(one, 0.05, 2), importance)


def of_task(tree, m):
    return jax.tree.map(lambda x: x[m], tree)


def fit(model, tasks, objective=NLL, settings=TRAIN, **options):
    records = []
    recipe = Recipe(settings, ADAPTER, objective)
    done = train(model, recipe, tasks, listener=Listener(log=records.append), **options)
    return jax.tree.map(np.asarray, done.trainable), records


def relative(a, b):
    """Frobenius norm of a - b over that of b, whole trees."""
    both = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert both
    return np.sqrt(sum(np.sum((x - y) ** 2) for x, y in both) / sum(np.sum(y**2) for _, y in both))


def same(a, b):
    both = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    return bool(both) and all(np.array_equal(x, y) for x, y in both)


def by_hand(model, tasks, start, penalty):
    """Every task alone by optax, on jax.grad of the mean cost from all logits plus the penalty.

    Returns:
      By task the trained tree, and the cost and the gradient's norm of every step.
    """
    plan = StepPlan(tasks, TRAIN)
    optimizer = optax.chain(
        optax.clip_by_global_norm(TRAIN.clip),
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.01),
    )

    def log_softmax(adapters, ids):
        h = decoder.hidden(model, adapters, Batch(ids))
        return jax.nn.log_softmax(h @ decoder.head(model.params).kernel_DxV)[:, :-1]

    def mean_cost(tree, ids, mask, cost):
        base, logp = log_softmax(None, ids), log_softmax(Adapters(ADAPTER, tree), ids)
        nll = -jnp.take_along_axis(logp, ids[:, 1:, None], axis=-1)[..., 0]
        kl = (jnp.exp(base) * (base - logp)).sum(-1)
        token = jnp.where(cost == 1, 0, nll) + jnp.where(cost == 0, 0, kl)
        return (token * mask[:, 1:]).sum() / mask.sum()

    @jax.jit
    def gradient(tree, ids, mask, cost, strength, anchor, importance):
        def whole(tree):
            pull = jax.tree.map(lambda x, a, i: (i * (x - a) ** 2).sum(), tree, anchor, importance)
            loss = mean_cost(tree, ids, mask, cost)
            return loss + strength / 2 * sum(jax.tree.leaves(pull)), loss

        return jax.grad(whole, has_aux=True)(tree)

    found = []
    for m, task in enumerate(tasks):
        tree, strength, anchor = (
            of_task(start, m),
            penalty.strength_M[m],
            of_task(penalty.anchor, m),
        )
        ones = jax.tree.map(np.ones_like, anchor)
        importance = ones if penalty.importance is None else of_task(penalty.importance, m)
        state, losses, norms = optimizer.init(tree), [], []
        for step in range(task.steps):
            index = plan.rows_of(m, step)
            rows, cost = [plan.examples[i] for i in index], plan.cost_of[index][:, None]
            ids, mask = np.zeros((2, len(rows), 16), np.int32)
            for r, e in enumerate(rows):
                ids[r, : len(e.ids)], mask[r, : len(e.ids)] = e.ids, e.is_target
            grads, loss = gradient(tree, ids, mask, cost, strength, anchor, importance)
            losses.append(float(loss))
            norms.append(float(optax.tree.norm(grads)))
            change, state = optimizer.update(grads, state, tree)
            lr = TRAIN.lr * (1 - step / task.steps)
            tree = jax.tree.map(lambda p, d, lr=lr: p - lr * d, tree, change)
        found.append((tree, losses, norms))
    return found


@pytest.mark.parametrize("weighed", [False, True])
def test_steps_are_those_of_a_gradient_written_by_hand(tiny_model, tasks, start, weighed):
    assert StepPlan(tasks, TRAIN).seats(2).tolist() == [1, 2]  # a task's seat is not its number
    penalty = quadratic(start, weighed)
    trained, records = fit(tiny_model, tasks, Objective(penalty=penalty), initial=start)
    free, _ = fit(tiny_model, tasks, initial=start)
    for m, (wanted, losses, norms) in enumerate(by_hand(tiny_model, tasks, start, penalty)):
        name = tasks[m].name
        of = [r for r in records if name in r["loss"]]
        np.testing.assert_allclose([r["loss"][name] for r in of], losses, rtol=1e-5)
        np.testing.assert_allclose([r["grad_norm"][name] for r in of], norms, rtol=1e-4)
        moved = jax.tree.map(np.subtract, wanted, of_task(start, m))
        ours = jax.tree.map(np.subtract, of_task(trained, m), of_task(start, m))
        without = jax.tree.map(np.subtract, of_task(free, m), of_task(start, m))
        assert relative(ours, moved) < 1e-4
        assert relative(without, moved) > 0.1  # the penalty counts


def test_a_strength_of_zero_changes_no_bit(tiny_model, tasks, start):
    free, records = fit(tiny_model, tasks, initial=start)
    penalty = quadratic(start, True)
    nothing = dataclasses.replace(penalty, strength_M=np.zeros(3, np.float32))
    found, again = fit(tiny_model, tasks, Objective(penalty=nothing), initial=start)
    assert same(found, free)
    for figure in ("loss", "grad_norm"):
        assert [r[figure] for r in again] == [r[figure] for r in records]
    # beside tasks that have a penalty, a task without one is the same but for rounding
    some = dataclasses.replace(penalty, strength_M=STRENGTH * np.array([1, 0, 1], np.float32))
    mixed, _ = fit(tiny_model, tasks, Objective(penalty=some), initial=start)
    assert relative(of_task(mixed, 1), of_task(free, 1)) < 1e-5
    assert relative(of_task(mixed, 2), of_task(free, 2)) > 1e-3


def test_the_anchor_may_be_where_training_starts(tiny_model, tasks, start):
    """Training writes over its own state in place, and never over what it was given."""
    given = jax.tree.map(jnp.array, start)
    penalty = Quadratic(jnp.array(STRENGTH), given)
    here, _ = fit(tiny_model, tasks, Objective(penalty=penalty), initial=given)
    assert same(given, start)
    apart = Quadratic(STRENGTH, start)
    assert same(here, fit(tiny_model, tasks, Objective(penalty=apart), initial=start)[0])


def twice_nll(model, h_BxLxD, batch):
    return 2 * nll(model, h_BxLxD, batch)


def test_what_a_row_costs_is_a_value(tiny_model, tasks, start):
    settings = dataclasses.replace(TRAIN, clip=0.0)
    one = [dataclasses.replace(tasks[0], steps=1)]
    begin = jax.tree.map(lambda x: x[:1], start)
    (_, (once,)), (_, (twice,)) = (
        fit(tiny_model, one, Objective((row,)), settings, initial=begin) for row in (nll, twice_nll)
    )
    assert twice["loss"]["t0"] == pytest.approx(2 * once["loss"]["t0"], rel=1e-6)
    assert twice["grad_norm"]["t0"] == pytest.approx(2 * once["grad_norm"]["t0"], rel=1e-6)


def test_rows_of_several_costs_are_those_of_a_gradient_written_by_hand(tiny_model, tasks, start):
    """NLL, KL to the base, and both, in one step and under several tasks."""
    costs = [np.array([0, 1, 2, 1, 0]), None, np.array([2, 1, 0, 0, 1])]
    tasks = [dataclasses.replace(t, costs=c) for t, c in zip(tasks, costs, strict=True)]
    objective = Objective((nll, kl_to_base, nll_and_kl), quadratic(start, False))
    trained, records = fit(tiny_model, tasks, objective, initial=start)
    expected = by_hand(tiny_model, tasks, start, objective.penalty)
    for m, (tree, losses, norms) in enumerate(expected):
        name = tasks[m].name
        mine = [r for r in records if name in r["loss"]]
        np.testing.assert_allclose([r["loss"][name] for r in mine], losses, rtol=1e-5)
        np.testing.assert_allclose([r["grad_norm"][name] for r in mine], norms, rtol=1e-4)
        assert relative(of_task(trained, m), tree) < 1e-4


def test_kl_does_not_depend_on_how_many_logits_are_alive():
    rng = np.random.default_rng(0)
    base, h = rng.normal(0, 1, (2, 3, 7, 8)).astype(np.float32)
    head = Head(jnp.asarray(rng.normal(0, 1, (8, 61)), jnp.float32), False)
    at = rng.integers(0, 7, (3, 5))

    def value(h, most):
        return target_kl(base, h, head, at, most).sum()

    whole, parts = (jax.value_and_grad(value)(h, most) for most in (2**20, 2 * 3 * 61 * 2))
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-6)
    np.testing.assert_allclose(parts[1], whole[1], atol=1e-6)
    assert whole[0] > 1 and abs(target_kl(h, h, head, at)).max() < 1e-6


@pytest.mark.parametrize("ends", [(3,), (1, 2, 4)])
def test_phases_of_a_run_are_the_undisturbed_run(tiny_model, tasks, start, tmp_path, ends):
    """Whenever a phase ends, the schedule is that of the full length."""
    objective = Objective(penalty=quadratic(start, False))
    whole, records = fit(tiny_model, tasks, objective, initial=start)
    found = []
    for until in (*ends, ends[-1], None):
        kept = Checkpoints(tmp_path)
        trained, more = fit(
            tiny_model, tasks, objective, checkpoints=kept, initial=start, until=until
        )
        kept.close()
        found += more
        if until is not None:
            assert len(found) == until  # also where that was reached before
            assert not same(trained, whole)
    assert same(trained, whole)
    assert [r["step"] for r in found] == [1, 2, 3, 4, 5]
    assert [r["loss"] for r in found] == [r["loss"] for r in records]
    assert [r["grad_norm"] for r in found] == [r["grad_norm"] for r in records]


def test_a_phase_is_not_a_run_of_its_length(tiny_model, tasks, start):
    """A run of two steps lets the learning rate fall to zero within them; a phase does not."""
    phase, _ = fit(tiny_model, tasks[1:], initial=jax.tree.map(lambda x: x[1:], start), until=2)
    short = [dataclasses.replace(t, steps=2) for t in tasks[1:]]
    bent, _ = fit(tiny_model, short, initial=jax.tree.map(lambda x: x[1:], start))
    assert relative(bent, phase) > 1e-3
