"""The measures of how far predictions moved, against a float64 computation from all logits."""

import jax
import numpy as np
import pytest

from forget_jax.data.batches import Buckets
from forget_jax.lm import decoder, lora
from forget_jax.scoring import divergence, likelihood

ADAPTER = lora.LoRAConfig(rank=2)


@pytest.fixture(scope="module")
def measured(tiny_config, tiny_params, random_examples):
    one = lora.init(ADAPTER, tiny_params, jax.random.key(0))
    moved = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), one)
    adapters = jax.tree.map(lambda a, b: np.stack([a, b]), one, moved)
    examples = random_examples(0, [5, 9, 12, 7])
    args = (tiny_config, ADAPTER, tiny_params, adapters, examples, Buckets.of(examples, 1))
    return adapters, examples, args, divergence.diverge(*args, rows=4)


def test_an_adapter_that_is_off_diverges_nowhere(measured):
    _, examples, _, sums = measured
    tokens = np.array([e.tokens for e in examples])
    np.testing.assert_array_equal(sums["kl"][0], 0)
    np.testing.assert_array_equal(sums["agree"][0], tokens)


def test_soft_less_entropy_is_kl_and_nll_is_the_scorers(measured):
    _, _, args, sums = measured
    entropy = sums["soft"][0] - sums["kl"][0]  # of the base: its cross-entropy to itself
    np.testing.assert_allclose(sums["soft"][1] - entropy, sums["kl"][1], atol=1e-4)
    np.testing.assert_allclose(sums["nll"], likelihood.score(*args), atol=1e-4)


def test_against_float64(measured, tiny_config, tiny_params):
    adapters, examples, _, sums = measured
    tuned = lora.scaled(ADAPTER, jax.tree.map(lambda x: x[1], adapters))
    head = np.asarray(decoder.head(tiny_params).kernel_DxV, np.float64)
    for i, e in enumerate(examples):
        logs = []
        for tree in (None, tuned):
            h = decoder.hidden(tiny_config, tiny_params, tree, e.ids[None])
            logits = np.asarray(h, np.float64)[0] @ head
            logs.append(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
        where = np.flatnonzero(e.is_target) - 1
        p, q = (log[where] for log in logs)
        best, target = p.argmax(-1), e.ids[where + 1]
        rows = np.arange(len(where))
        expected = {
            "nll": -q[rows, target],
            "soft": -(np.exp(p) * q).sum(-1),
            "argmax": -q[rows, best],
            "kl": (np.exp(p) * (p - q)).sum(-1),
            "agree": q.argmax(-1) == best,
        }
        for name, values in expected.items():
            np.testing.assert_allclose(sums[name][1, i], values.sum(), atol=2e-4, err_msg=name)


def test_chunks_of_positions_change_nothing(measured):
    _, examples, (config, adapter, params, adapters, _, buckets), sums = measured
    from forget_jax.data import batches

    (shape, rows), *_ = likelihood.plan(examples, buckets, 4)
    batch = batches.assemble(examples, shape, rows)
    small = 2 * shape.rows * config.vocab_size * 3
    cut = divergence.diverge_batch(
        config, adapter, False, params, params, adapters, batch, chunk_logits=small
    )
    np.testing.assert_allclose(
        cut["kl"][:, :, 0], sums["kl"][:, batch.example_BxS[:, 0]], atol=1e-5
    )
