"""Methods: adapters of some kernels are what they are alone, and frozen layers stay as they are."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from forget_jax.errors import UserError
from forget_jax.fleet import methods
from forget_jax.lm.lora import LoRAConfig
from forget_jax.training.loop import Recipe, Task, train
from forget_jax.training.optimizer import OptimizerConfig, direction
from forget_jax.training.settings import Train

ADAPTER = LoRAConfig(2, 4.0)
TRAIN = Train(batch_size=4, buckets=1, lr=0.02, warmup=1, decay=0.1, save_every=0)


def leaves(tree):
    return {jax.tree_util.keystr(p): np.asarray(x) for p, x in jax.tree.leaves_with_path(tree)}


def test_adapters_of_some_kernels_are_those_trained_alone(tiny_model, random_examples):
    rows = random_examples(0, [20, 31, 12, 25, 18])
    base = Task("all", rows, seed=3, steps=3)
    parts = {"attention": r"layers/attn/\w+", "mlp": r"layers/mlp/\w+"}
    tasks = [base, *(dataclasses.replace(base, name=n, targets=t) for n, t in parts.items())]
    together = train(tiny_model, Recipe(TRAIN, ADAPTER), tasks).trainable
    for m, (name, targets) in enumerate(parts.items(), 1):
        lora = dataclasses.replace(ADAPTER, targets=targets)
        alone = train(tiny_model, Recipe(TRAIN, lora), [base]).trainable
        wanted, found = leaves(alone), leaves(together)
        for path, x in found.items():
            assert not np.any(x[m]) if path not in wanted else np.any(x[m])
            if path in wanted:
                error = np.linalg.norm(x[m] - wanted[path][0]) / np.linalg.norm(wanted[path])
                assert error < 1e-5, (name, path)


def test_adapters_of_the_top_layer_alone(tiny_model, random_examples):
    task = Task("top", random_examples(1, [20, 31, 12]), seed=3, steps=2, top=1)
    for path, x in leaves(train(tiny_model, Recipe(TRAIN, ADAPTER), [task]).trainable).items():
        assert not np.any(x[0, :-1]) and np.any(x[0, -1]), path


def test_frozen_layers_and_embeddings_stay_as_they_are(tiny_model, random_examples):
    """Under weight decay as well; what is above them is trained."""
    task = Task("frozen", random_examples(2, [20, 31, 12]), seed=3, steps=2)
    trained = leaves(train(tiny_model, Recipe(TRAIN, None, frozen=1), [task]).trainable)
    for path, before in leaves(tiny_model.params).items():
        after = trained[path][0]
        if path.startswith("['embed"):
            np.testing.assert_array_equal(after, before)
        elif path.startswith("['layers']"):
            np.testing.assert_array_equal(after[0], before[0])
            assert not np.array_equal(after[1], before[1]), path
        else:
            assert not np.array_equal(after, before), path


def test_the_norm_that_is_clipped_is_of_what_is_trained():
    rng = np.random.default_rng(0)
    shapes = {"embed": (5, 3), "layers": {"x": (2, 3)}}
    tree = jax.tree.map(
        lambda s: rng.normal(size=s).astype(np.float32), shapes, is_leaf=lambda s: type(s) is tuple
    )
    some, alone = (direction(OptimizerConfig(1.0, 0.0, frozen=k)) for k in (1, 0))
    states = some.init(tree), alone.init({"layers": tree["layers"]})
    for size in (10.0, 0.1):  # Adam forgets the size of a first update, not that of a second
        grads = jax.tree.map(lambda x, size=size: np.float32(size) * x, tree)
        only = {"layers": {"x": grads["layers"]["x"] * np.float32([[0], [1]])}}
        found, first = some.update(grads, states[0], tree)
        wanted, second = alone.update(only, states[1], None)
        states = first, second
    np.testing.assert_allclose(found["layers"]["x"], wanted["layers"]["x"], rtol=1e-5)
    assert np.any(np.abs(found["layers"]["x"][1]) < 0.9)
    assert not np.any(found["embed"])


@pytest.mark.parametrize("text", ["lora", "attention", "mlp", "top:1", "full", "frozen:1"])
def test_the_parameters_that_are_counted_are_those_that_change(text, tiny_model, random_examples):
    method = methods.of(text)
    method.check(tiny_model.config)
    lora = None if method.whole else ADAPTER
    task = Task(
        "t",
        random_examples(3, [40, 50, 60, 50]),
        seed=3,
        steps=2,
        targets=method.targets,
        top=method.top,
    )
    trained = leaves(train(tiny_model, Recipe(TRAIN, lora, frozen=method.frozen), [task]).trainable)
    before = leaves(tiny_model.params)
    changed = 0
    for path, x in trained.items():
        if method.whole and not re.match(r"\['(embed|head)", path):
            changed += int((x[0] != before[path]).sum())
        elif not method.whole:
            changed += int((x[0] != 0).sum())
    assert methods.parameters(method, tiny_model.params, ADAPTER.targets, 2) == changed


@pytest.mark.parametrize("text", ["Lora", "lora:2", "top", "top:-1", "top:0", "frozen:x", "full:1"])
def test_what_is_no_method(text):
    with pytest.raises(UserError, match="there are lora, attention"):
        methods.of(text)
