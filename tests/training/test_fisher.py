"""Squared gradients, divergence from a frozen model, and parts that are not trained."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.factoids import objectives
from forget_jax.factoids.mitigations import Mitigation
from forget_jax.lm import decoder, lora
from forget_jax.lm.model import Adapters, Batch, Model
from forget_jax.training import fisher
from forget_jax.training.loop import Recipe, Task, train
from forget_jax.training.settings import Train

CONFIG = lora.LoRAConfig(rank=2, alpha=8.0, targets="layers/(attn/q|mlp/down)")
TRAIN = Train(
    batch_size=3, microbatch=4, buckets=1, lr=0.01, schedule="constant", warmup=0, save_every=0
)


@pytest.fixture(scope="module")
def adapter(tiny_params):
    one = lora.init(CONFIG, tiny_params, jax.random.key(0))
    rng = np.random.default_rng(0)
    tree = jax.tree.map(lambda x: jnp.float32(rng.normal(0, 0.05, x.shape)), one)
    return Adapters(CONFIG, tree)


@jax.jit
def log_softmax(model, adapters, ids):
    h = decoder.hidden(model, adapters, Batch(ids[None]))
    return jax.nn.log_softmax(h @ decoder.head(model.params).kernel_DxV)[0, :-1]


def summed(e, values_L):
    return jnp.where(e.is_target[1:], values_L, 0).sum()


def nll(model, adapters, e):
    logp = log_softmax(model, adapters, e.ids)
    return -summed(e, jnp.take_along_axis(logp, e.ids[1:, None], axis=-1)[:, 0])


@pytest.mark.parametrize("full", [True, False])
def test_the_diagonal_is_the_mean_of_squared_gradients(full, tiny_model, adapter, random_examples):
    rows = random_examples(0, [7, 12, 9, 7, 9])
    found = fisher.diagonal(tiny_model, None if full else adapter, rows, buckets=2, rows=2)

    def cost(tree, e):
        if full:
            return nll(Model(tiny_model.config, tree), None, e)
        return nll(tiny_model, Adapters(CONFIG, tree), e)

    tree = tiny_model.params if full else adapter.tree

    def row(tree, ids, is_target):
        return cost(tree, SimpleNamespace(ids=ids, is_target=is_target))

    by_row = jax.jit(jax.grad(row))
    grads = [by_row(tree, e.ids, e.is_target) for e in rows]
    wanted = jax.tree.map(lambda *g: sum(jnp.square(x) for x in g) / len(rows), *grads)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-7)


def test_a_normalised_importance_has_a_mean_of_one():
    found = fisher.normalised({"a": jnp.array([0.0, 2.0]), "b": jnp.array([[4.0, 2.0]])})
    np.testing.assert_allclose(found["a"], [0, 1])
    np.testing.assert_allclose(found["b"], [[2, 1]])
    assert (fisher.normalised({"a": jnp.zeros(3)})["a"] == 1).all()


def trained(model, what, start, rows, earlier=(), steps=4, full=True):
    """What four steps of one mitigation make of a model, or of an adapter on it."""
    objective = objectives.of(what, [start], [earlier], model.config.layers)
    tree = start[0].params if full else start[1].tree
    initial = jax.tree.map(lambda x: jnp.asarray(x)[None], tree)
    recipe = Recipe(TRAIN, None if full else CONFIG, objective)
    task = Task("t", rows, 0, steps, costs=objectives.costs(what, len(rows)))
    done = train(model, recipe, [task], initial=initial)
    return jax.tree.map(lambda x: np.asarray(x[0]), done.trainable)


def far(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return float(np.sqrt(sum(np.sum((np.asarray(a) - np.asarray(b)) ** 2) for a, b in pairs)))


def divergence(start, tree, e):
    """KL from the start to a trained model over a row's targets, from all logits."""
    p, q = (log_softmax(m, None, e.ids) for m in (start, Model(start.config, tree)))
    return float(summed(e, (jnp.exp(p) * (p - q)).sum(-1)))


def test_the_first_step_under_kl_is_that_of_its_gradient_by_hand(tiny_model, random_examples):
    """The frozen model is another one, whose output projection differs too."""
    rows = random_examples(3, [9, 9, 9])
    other = Model(tiny_model.config, jax.tree.map(lambda x: x * 1.1, tiny_model.params))
    what = Mitigation(kl=0.7)
    objective = objectives.of(what, [(other, None)], [()], tiny_model.config.layers)
    initial = jax.tree.map(lambda x: jnp.asarray(x)[None], tiny_model.params)
    recipe = Recipe(dataclasses.replace(TRAIN, clip=0.0), None, objective)
    task = Task("t", rows, 0, 1, costs=objectives.costs(what, 3))
    found = train(tiny_model, recipe, [task], initial=initial).trainable

    def cost(params):
        model = Model(tiny_model.config, params)
        tokens = sum(e.tokens for e in rows)
        total = 0.0
        for e in rows:
            p, q = log_softmax(other, None, e.ids), log_softmax(model, None, e.ids)
            kl = summed(e, (jnp.exp(p) * (p - q)).sum(-1))
            total += nll(model, None, e) + 0.7 * kl
        return total / tokens

    grads = jax.jit(jax.grad(cost))(tiny_model.params)
    # Adam's first step is lr · sign(gradient), but where that is as small as eps
    for g, x, new in zip(*(jax.tree.leaves(t) for t in (grads, tiny_model.params, found)),
                         strict=True):  # fmt: skip
        clear = np.abs(g) > 1e-5
        np.testing.assert_allclose((new[0] - x)[clear], -TRAIN.lr * np.sign(g)[clear], rtol=2e-3)


def test_each_mitigation_stays_nearer_to_its_start(tiny_model, random_examples):
    rows, earlier = random_examples(4, [9] * 6), random_examples(5, [9] * 4)
    start = (tiny_model, None)
    naive = trained(tiny_model, Mitigation(), start, rows)
    l2 = trained(tiny_model, Mitigation(l2=30.0), start, rows)
    ewc = trained(tiny_model, Mitigation(ewc=30.0), start, rows, earlier)
    kl = trained(tiny_model, Mitigation(kl=30.0), start, rows)
    assert far(l2, tiny_model.params) < 0.95 * far(naive, tiny_model.params)
    weight = fisher.normalised(fisher.diagonal(tiny_model, None, earlier))

    def weighed(tree):
        return jax.tree.map(lambda x, w: np.sqrt(w) * x, tree, weight)

    origin = weighed(tiny_model.params)
    assert far(weighed(ewc), origin) < 0.95 * far(weighed(naive), origin)
    assert sum(divergence(tiny_model, kl, e) for e in rows) < 0.5 * sum(
        divergence(tiny_model, naive, e) for e in rows
    )


@pytest.mark.parametrize("full", [True, False])
def test_frozen_layers_stay_bit_for_bit(full, tiny_model, adapter, random_examples):
    L, rows = tiny_model.config.layers, random_examples(6, [9] * 4)
    start = (tiny_model, None if full else adapter)
    before = tiny_model.params if full else adapter.tree
    after = trained(tiny_model, Mitigation(frozen=1 / L), start, rows, full=full)
    for path, x in jax.tree.leaves_with_path(before):
        new = after
        for key in path:
            new = new[key.key]
        if path[0].key == "layers":
            assert np.array_equal(new[0], x[0]) and not np.array_equal(new[1:], x[1:])
        elif path[0].key == "embed":
            assert np.array_equal(new, x)
