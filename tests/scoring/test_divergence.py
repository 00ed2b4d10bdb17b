"""The measures of how far predictions moved, against a float64 computation from all logits."""

import jax
import numpy as np
import pytest

from forget_jax.data.batches import Buckets
from forget_jax.lm import decoder, lora
from forget_jax.lm.model import Adapters, Batch, stack
from forget_jax.scoring import divergence, likelihood
from forget_jax.scoring.stream import Layout

ADAPTER = lora.LoRAConfig(rank=2)


@pytest.fixture(scope="module")
def measured(tiny_model, random_examples):
    one = lora.init(ADAPTER, tiny_model.params, jax.random.key(0))
    moved = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), one)
    adapters = stack([Adapters(ADAPTER, one), Adapters(ADAPTER, moved)])
    examples = random_examples(0, [5, 9, 12, 7])
    args = (tiny_model, adapters, examples, Layout.of(examples, Buckets.of(examples, 1), 4))
    return adapters, examples, args, divergence.diverge(*args)


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


def test_against_float64(measured, tiny_model):
    adapters, examples, _, sums = measured
    head = np.asarray(decoder.head(tiny_model.params).kernel_DxV, np.float64)
    for i, e in enumerate(examples):
        logs = []
        for adapter in (None, adapters[1]):
            h = decoder.hidden(tiny_model, adapter, Batch(e.ids[None]))
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
    _, examples, (model, adapters, _, layout), sums = measured
    from forget_jax.data import batches

    (shape, rows), *_ = layout.plan(examples)
    batch = batches.assemble(examples, shape, rows)
    small = 2 * shape.rows * model.config.vocab_size * 3
    cut = divergence.diverge_batch(model, model, adapters, batch, chunk_logits=small)
    np.testing.assert_allclose(
        cut["kl"][:, :, 0], sums["kl"][:, batch.example_BxE[:, 0]], atol=1e-5
    )
