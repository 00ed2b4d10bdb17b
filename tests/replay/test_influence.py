"""Sketched gradients against whole ones."""

import jax
import numpy as np

from forget_jax.data.batches import Buckets, assemble
from forget_jax.lm import decoder, lora
from forget_jax.lm.lora import LoRAConfig
from forget_jax.lm.model import Adapters
from forget_jax.randomness import key
from forget_jax.replay import influence
from forget_jax.training.objective import nll


def test_inner_products_of_sketches_are_those_of_gradients(tiny_model, random_examples):
    config = LoRAConfig(rank=2, targets="layers/attn/q")
    rows = random_examples(0, [6, 9, 12, 7])
    found = influence.sketches(tiny_model, config, rows, seed=5)
    adapter = lora.init(config, tiny_model.params, key(5, "influence"))
    shapes, whole = Buckets.of(rows, 1), []

    def cost(tree, batch):
        hidden = decoder.hidden(tiny_model, Adapters(config, tree), batch)
        return nll(tiny_model, hidden, batch).sum() / batch.weight_BxT.sum()

    for i, row in enumerate(rows):
        grads = jax.grad(cost)(adapter, assemble(rows, shapes.shape(len(row.ids), 1), [(i,)]))
        # `a` has no gradient where `b` is zero
        whole.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(grads)]))
    whole = np.array(whole)
    assert np.count_nonzero(whole[0]) <= influence.LENGTH  # so no two share a bucket
    np.testing.assert_allclose(found @ found.T, whole @ whole.T, rtol=1e-4, atol=1e-7)
