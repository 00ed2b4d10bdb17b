"""Scores do not depend on how examples are batched, and agree with float64 arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.commands.selftest import reference
from forget_jax.data.batches import Buckets
from forget_jax.lm import lora
from forget_jax.lm.logprob import Head, target_logprobs
from forget_jax.lm.model import Adapters
from forget_jax.scoring import likelihood
from forget_jax.scoring.stream import Layout

ADAPTER = lora.LoRAConfig(rank=2, alpha=8.0, targets="layers/(attn/q|attn/v|mlp/down)")


@pytest.fixture(scope="module")
def examples(random_examples):
    return random_examples(0, [60, 3, 17, 33, 8, 9, 2, 41, 25, 64])


@pytest.fixture(scope="module")
def adapters(tiny_params):
    """Three adapters, the second of them zero."""

    def one(key):
        tree = lora.init(ADAPTER, tiny_params, jax.random.key(key))
        return jax.tree.map(lambda x: 0.3 * jax.random.normal(jax.random.key(key), x.shape), tree)

    first, last = one(1), one(2)
    tree = jax.tree.map(lambda x, y: jnp.stack([x, x * 0, y]), first, last)
    return Adapters(ADAPTER, tree)


@pytest.fixture(scope="module")
def score(tiny_model, adapters):
    def run(examples, buckets=1, rows=4, packing=False, stack=adapters, on_batch=lambda n: None):
        layout = Layout.of(examples, Buckets.of(examples, buckets), rows, packing)
        return likelihood.score(tiny_model, stack, examples, layout, on_batch)

    return run


@pytest.fixture(scope="module")
def bucketed(score, examples):
    return score(examples, buckets=2)


def per_token(nll_KxN, examples):
    return nll_KxN / np.array([e.tokens for e in examples])


def test_packed_and_bucketed_and_single_agree(score, examples, bucketed):
    packed = score(examples, rows=2, packing=True)
    assert np.abs(per_token(packed - bucketed, examples)).max() < 1e-5
    alone = np.concatenate([score([e], rows=4) for e in examples[:3]], axis=1)
    assert np.abs(per_token(alone - bucketed[:, :3], examples[:3])).max() < 1e-5


def test_order_rows_and_edges_do_not_matter(score, examples, bucketed):
    order = np.random.default_rng(1).permutation(len(examples))
    shuffled = score([examples[i] for i in order], buckets=1, rows=8)
    assert np.abs(per_token(shuffled - bucketed[:, order], examples)).max() < 1e-5


def test_a_zero_adapter_forgets_exactly_nothing(score, examples, bucketed, adapters):
    nll = score(examples, buckets=2, stack=adapters.with_base())
    assert (nll[2] == nll[0]).all()
    assert (np.abs(nll[1] - nll[0]) > 0.01).any()
    np.testing.assert_allclose(nll[1:], bucketed, rtol=1e-6)


def test_an_adapters_scores_do_not_depend_on_its_neighbours(score, examples, bucketed, adapters):
    turned = score(examples, buckets=2, stack=adapters[::-1])
    np.testing.assert_array_equal(turned, bucketed[::-1])


def test_progress_counts_every_example_once(score, examples):
    seen = []
    score(examples, buckets=2, on_batch=seen.append)
    assert seen == sorted(seen) and seen[-1] == len(examples)


def test_model_alone_is_the_zero_adapter(score, examples, bucketed):
    alone = score(examples, buckets=2, stack=None)
    assert np.abs(per_token(alone - bucketed[1:2], examples)).max() < 1e-5


def test_scores_agree_with_float64_arithmetic(bucketed, examples, adapters, tiny_model):
    for k in range(3):
        exact = []
        for e in examples:
            logp_L = reference(tiny_model, adapters[k], e.ids)
            exact.append(-logp_L[np.flatnonzero(e.is_target) - 1].sum())
        assert np.abs(per_token(bucketed[k] - exact, examples)).max() < 1e-5


@pytest.mark.parametrize("tied", [False, True])
def test_chunked_logprobs_and_gradients_are_the_whole_ones(tied):
    rng = np.random.default_rng(0)
    h, head = rng.normal(size=(2, 9, 4)), rng.normal(size=(4, 11))
    h, head = jnp.array(h, jnp.float32), jnp.array(head, jnp.float32)
    given = Head(head.T if tied else head, tied)
    at, target = rng.integers(0, 9, (2, 7)), rng.integers(0, 11, (2, 7))
    whole = jax.nn.log_softmax(h @ head)[np.arange(2)[:, None], at, target]

    def summed(h, chunk_logits):
        logp = target_logprobs(h, given, at, target, chunk_logits)
        return (logp * jnp.arange(7.0)).sum(), logp

    grad = jax.jit(jax.grad(summed, has_aux=True), static_argnums=1)
    slope, _ = grad(h, 2**20)
    for chunk_logits in (1, 2 * 11 * 3):  # one target at a time; three, the last chunk ragged
        slope_c, logp = grad(h, chunk_logits)
        np.testing.assert_allclose(logp, whole, atol=1e-5)
        np.testing.assert_allclose(slope_c, slope, atol=1e-5)
