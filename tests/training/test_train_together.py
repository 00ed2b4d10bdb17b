"""M tasks trained together are M separate fine-tunings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.data import order
from forget_jax.data.batches import Buckets, assemble
from forget_jax.lm import decoder, lora
from forget_jax.lm.model import Adapters, Batch
from forget_jax.scoring import likelihood
from forget_jax.scoring.stream import Layout
from forget_jax.training import objective
from forget_jax.training import plan as plans
from forget_jax.training import step as steps
from forget_jax.training.loop import Listener, Recipe, StepPlan, Task, train
from forget_jax.training.optimizer import OptimizerConfig
from forget_jax.training.settings import Train
from forget_jax.training.state import init_state, zero_like

ADAPTER = lora.LoRAConfig(rank=2, alpha=8.0, targets="layers/(attn/q|attn/v|mlp/down)")
TRAIN = Train(  # 12 rows a step in microbatches of 3
    batch_size=4,
    microbatch=3,
    buckets=2,
    lr=0.02,
    schedule="cosine",
    warmup=1,
    clip=1.0,
    decay=0.01,
    save_every=0,
)


@pytest.fixture(scope="module")
def tasks(random_examples):
    """Ragged tasks of different steps; a long row in each, so that separate runs share a shape."""
    rng = np.random.default_rng(0)
    spans = {"short": (3, 9, 5), "middle": (8, 30, 3), "long": (25, 60, 5)}
    return [
        Task(
            name,
            random_examples(i, rng.integers(a, b, 10).tolist())
            + random_examples(i + 10, [63], prompts=False),
            seed=7 + i,
            steps=steps,
        )
        for i, (name, (a, b, steps)) in enumerate(spans.items())
    ]


def fit(model, tasks, settings=TRAIN):
    records = []
    done = train(model, Recipe(settings, ADAPTER), tasks, listener=Listener(log=records.append))
    return jax.tree.map(np.asarray, done.trainable), records


@pytest.fixture(scope="module")
def together(tiny_model, tasks):
    return fit(tiny_model, tasks)


@pytest.fixture(scope="module")
def separate(tiny_model, tasks):
    settings = dataclasses.replace(TRAIN, buckets=1)
    alone = [fit(tiny_model, [task], settings) for task in tasks]
    return jax.tree.map(lambda *x: np.concatenate(x), *[tree for tree, _ in alone]), [
        records for _, records in alone
    ]


def relative(a, b):
    """Frobenius norm of a - b over that of b, whole trees."""
    both = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert both
    return np.sqrt(sum(np.sum((x - y) ** 2) for x, y in both) / sum(np.sum(y**2) for _, y in both))


def of_task(tree, m):
    return jax.tree.map(lambda x: x[m], tree)


def only(tree, which):
    """The leaves called `a` or `b` alone: `b` starts at zero, so it is all change."""
    return [x for path, x in jax.tree_util.tree_leaves_with_path(tree) if path[-1].key == which]


def test_adapters_are_those_of_separate_runs(together, separate, tasks):
    for m, task in enumerate(tasks):
        ours, theirs = of_task(together[0], m), of_task(separate[0], m)
        assert relative(ours, theirs) < 1e-5, task.name
        assert relative(only(ours, "b"), only(theirs, "b")) < 1e-5, task.name


def test_the_comparison_sees_another_tasks_adapter(together, separate):
    assert relative(only(of_task(together[0], 0), "b"), only(of_task(separate[0], 1), "b")) > 0.5


def test_losses_are_those_of_separate_runs(together, separate, tasks):
    for m, task in enumerate(tasks):
        ours = [r["loss"][task.name] for r in together[1] if task.name in r["loss"]]
        theirs = [r["loss"][task.name] for r in separate[1][m]]
        assert len(ours) == len(theirs) == task.steps
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_tokens_of_a_step_add_up(together, separate, tasks):
    for number, record in enumerate(together[1]):
        running = [m for m, task in enumerate(tasks) if number < task.steps]
        assert record["tokens"] == sum(separate[1][m][number]["tokens"] for m in running)


def test_forgetting_is_that_of_separate_runs(together, separate, tiny_model, random_examples):
    upstream = random_examples(9, [5, 12, 33, 60, 48, 20], prompts=False)
    layout = Layout.of(upstream, Buckets.of(upstream, 2), 8)

    def forgetting(tree):
        stack = Adapters(ADAPTER, tree).with_base()
        nll = likelihood.score(tiny_model, stack, upstream, layout)
        return (nll[1:] - nll[0]) / np.array([e.tokens for e in upstream])

    z_ours, z_theirs = forgetting(together[0]), forgetting(separate[0])
    assert np.abs(z_theirs).max() > 0.05  # there is something to compare
    assert np.abs(z_ours - z_theirs).max() < 1e-4


def test_order_of_the_tasks_does_not_matter(together, tiny_model, tasks):
    turned, _ = fit(tiny_model, tasks[::-1])
    for m in range(len(tasks)):
        assert relative(of_task(turned, len(tasks) - 1 - m), of_task(together[0], m)) < 1e-5


def test_microbatch_size_does_not_matter(together, tiny_model, tasks):
    whole, _ = fit(tiny_model, tasks, dataclasses.replace(TRAIN, microbatch=12, buckets=1))
    assert relative(only(whole, "b"), only(together[0], "b")) < 1e-5


def test_every_step_holds_each_running_tasks_batch(tasks):
    plan = StepPlan(tasks, TRAIN)
    for number in range(max(task.steps for task in tasks)):
        parts = list(plan.microbatches(number))
        seats = np.append(plan.seats(number), -1)  # the last is that of padding
        running = [m for m, task in enumerate(tasks) if number < task.steps]
        rows = np.concatenate([seats[part.seat_R] for part in parts])
        assert np.bincount(rows[rows >= 0], minlength=3).tolist() == [
            TRAIN.batch_size * (m in running) for m in range(3)
        ]
        for part in parts:
            assert len(part.seat_R) == len(part.rows) == part.shape.rows
            most = TRAIN.microbatch * plan.buckets.edges[-1]
            assert part.real <= part.shape.rows * part.shape.length <= most
            for row, seat in zip(part.rows, part.seat_R, strict=True):
                assert (row == ()) == (seat < 0)
                assert not row or plan.task_of[row[0]] == seats[seat]


def test_finished_tasks_leave_their_seats(random_examples):
    tasks = [Task(f"t{m}", random_examples(m, [8] * 4), m, 2 + 2 * m) for m in range(5)]
    plan = StepPlan(tasks, TRAIN)
    assert plan.seat_counts == (5, 3, 2, 1)
    assert [plan.seats(n).tolist() for n in (0, 3, 4, 6, 7, 8, 9)] == [
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4],
        [2, 3, 4],
        [3, 4],
        [3, 4],
        [4],
        [4],
    ]
    before = [plan.seats(n).tolist() for n in range(5)]
    plan.stop(3, 5)  # the steps before are as they were
    assert [plan.seats(n).tolist() for n in range(5)] == before
    assert plan.seats(5).tolist() == [2, 4] and plan.seats(6).tolist() == [4]
    blocks = StepPlan(tasks, TRAIN, blocks=2)
    assert blocks.seat_counts == (6, 4, 2) and blocks.seats(0).tolist() == [0, 1, 2, 3, 4, -1]
    for part in blocks.microbatches(0):
        at = blocks.seats(0).reshape(2, 3)
        for r, (row, seat) in enumerate(zip(part.rows, part.seat_R, strict=True)):
            assert not row or at[r * 2 // len(part.rows), seat] == blocks.task_of[row[0]]


def test_useful_fraction_counts_padding(random_examples):
    examples = random_examples(0, [16] * 4)
    train = Train(batch_size=4, microbatch=4, buckets=1)
    even = StepPlan([Task("t", examples, 0, 1)], train)
    assert even.useful_fraction() == 1.0
    ragged = StepPlan([Task("t", random_examples(0, [16, 16, 16, 32]), 0, 1)], train)
    assert ragged.useful_fraction() == 80 / 128


@pytest.mark.fault("sizes", "as it should be")
@pytest.mark.parametrize("lengths", [[20] * 8, [16] * 15 + [256]])
def test_microbatches_are_no_larger_than_the_step(random_examples, lengths):
    train = Train(batch_size=len(lengths), microbatch=512, buckets=4)
    (part, *more) = StepPlan([Task("t", random_examples(0, lengths), 0, 1)], train).microbatches(0)
    computed = sum(p.shape.rows * p.shape.length for p in (part, *more))
    assert all(p.shape.rows <= len(lengths) for p in (part, *more))
    assert computed <= 3 * sum(lengths) and sum(p.real for p in (part, *more)) == sum(lengths)


def test_a_run_with_little_to_compute_has_fewer_shapes(random_examples):
    """Two lengths and four full rows of each at a time: what is left over would be a quarter."""
    examples = random_examples(0, [16] * 27 + [32] * 15)
    train = Train(batch_size=9, microbatch=4, buckets=2)

    def computed(token_flops: float) -> tuple[set[tuple[int, int]], int]:
        plan = StepPlan([Task("t", examples, 0, 14)], train, token_flops=token_flops)
        parts = [part for step in range(plan.total) for part in plan.microbatches(step)]
        assert sum(part.real for part in parts) == sum(len(e.ids) for e in examples) * 14 * 9 / 42
        shapes = {(part.shape.rows, part.shape.length) for part in parts}
        return shapes, sum(part.shape.rows * part.shape.length for part in parts)

    full, much = {(8, 16), (4, 32)}, plans.PROGRAMS[0] / (14 * 128)
    (few, most), (many, least) = computed(0.99 * much), computed(1.01 * much)
    assert few == full and many == full | {(2, 16), (1, 32)} and least < most


def test_summed_gradients_are_those_of_one_whole_batch(tiny_model, tasks):
    """Against jax.grad of the plain loss: all rows at once, all logits, a mask."""
    task = tasks[1]
    adapters = lora.init(ADAPTER, tiny_model.params, jax.random.key(3))
    adapters = jax.tree.map(lambda x: x + 0.03, adapters)  # b away from zero, so a has a gradient
    plan = StepPlan([task], dataclasses.replace(TRAIN, buckets=1))
    stacked = Adapters(ADAPTER, jax.tree.map(lambda x: x[None], adapters))
    total = zero_like(init_state(OptimizerConfig(), stacked.tree))
    microbatches = list(plan.microbatches(0))
    assert len(microbatches) == 2
    for part in microbatches:
        batch = assemble(plan.examples, part.shape, part.rows)
        seats = steps.Seats(part.seat_R, jnp.ones(1))
        total = steps.accumulate(objective.nll, tiny_model, stacked, total, batch, seats)
    rows = [task.examples[i] for i in plan.rows(0)]
    ids = np.zeros((len(rows), 64), np.int32)
    mask = np.zeros((len(rows), 64))
    for row, mask_row, e in zip(ids, mask, rows, strict=True):
        row[: len(e.ids)] = e.ids
        mask_row[: len(e.ids)] = e.is_target

    @jax.jit
    def plain(adapters):
        h = decoder.hidden(tiny_model, Adapters(ADAPTER, adapters), Batch(ids))
        logp = jax.nn.log_softmax(h @ decoder.head(tiny_model.params).kernel_DxV)
        chosen = jnp.take_along_axis(logp[:, :-1], ids[:, 1:, None], axis=-1)[..., 0]
        return -(chosen * mask[:, 1:]).sum()

    nll, grads = jax.value_and_grad(plain)(adapters)
    assert relative(of_task(total.grads, 0), grads) < 1e-5
    np.testing.assert_allclose(total.cost_S[0], nll, rtol=1e-5)
    assert total.tokens_S[0] == mask.sum()


def test_a_tasks_scale_is_a_factor_on_its_alpha(tiny_model, tasks):
    settings = dataclasses.replace(TRAIN, buckets=1)
    halved = dataclasses.replace(tasks[1], scale=0.5)
    ours, _ = fit(tiny_model, [halved], settings)
    half_alpha = dataclasses.replace(ADAPTER, alpha=ADAPTER.alpha / 2)
    theirs = train(tiny_model, Recipe(settings, half_alpha), [tasks[1]])
    assert relative(only(ours, "b"), only(theirs.trainable, "b")) < 1e-5


def test_a_task_of_lower_rank_leaves_the_rest_at_zero(tiny_model, tasks):
    mixed = [dataclasses.replace(tasks[0], rank=1), *tasks[1:]]
    trained, _ = fit(tiny_model, mixed)
    for a, b in zip(only(trained, "a"), only(trained, "b"), strict=True):
        assert (a[0, ..., 1:] == 0).all() and (b[0, :, 1:] == 0).all()
        assert (b[0, :, :1] != 0).any() and (b[1, :, 1:] != 0).any()


def test_a_given_order_replaces_the_shuffle(tasks):
    task = tasks[0]
    size = TRAIN.batch_size * task.steps
    shuffled = StepPlan([task], TRAIN)
    given = order.rows(task.seed, len(task.examples), 0, size)
    same = StepPlan([dataclasses.replace(task, order=given)], TRAIN)
    turned = StepPlan([dataclasses.replace(task, order=given[::-1])], TRAIN)
    for number in range(task.steps):
        assert (same.rows(number) == shuffled.rows(number)).all()
    assert sorted(turned.rows(0)) == sorted(given[::-1][: TRAIN.batch_size])
