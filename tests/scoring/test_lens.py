"""The logit lens against a forward pass of all layers, and of none above the first."""

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.lm import decoder, lora
from forget_jax.lm.logprob import logits
from forget_jax.lm.model import Adapters, Batch
from forget_jax.scoring import lens


def first(e):
    return int(np.flatnonzero(e.is_target)[0])


def test_the_highest_layer_says_what_the_model_says(tiny_model, random_examples):
    rows = random_examples(0, [9, 5, 12] * 4)
    rank_NxL, p_NxL = lens.through_layers(tiny_model, None, rows)
    assert rank_NxL.shape == p_NxL.shape == (12, tiny_model.config.layers)
    for n, e in enumerate(rows):
        h = decoder.hidden(tiny_model, None, Batch(e.ids[None]))
        p = np.asarray(jax.nn.softmax(logits(h, decoder.head(tiny_model.params))[0, first(e) - 1]))
        np.testing.assert_allclose(p_NxL[n, -1], p[e.ids[first(e)]], rtol=1e-4)
        assert rank_NxL[n, -1] == (p > p[e.ids[first(e)]]).sum()


def test_a_model_whose_upper_layers_add_nothing_says_the_same_in_all(tiny_model, random_examples):
    layers = jax.tree.map(lambda x: x.at[1:].set(0), tiny_model.params["layers"])
    idle = lens.cut(tiny_model, tiny_model.config.layers)
    idle = type(idle)(idle.config, {**idle.params, "layers": layers})
    rank_NxL, p_NxL = lens.through_layers(idle, None, random_examples(1, [8, 8]))
    np.testing.assert_allclose(p_NxL, p_NxL[:, :1].repeat(p_NxL.shape[1], 1), rtol=1e-4)
    assert (rank_NxL == rank_NxL[:, :1]).all()


def test_adapters_count(tiny_model, random_examples):
    config = lora.LoRAConfig(rank=2, alpha=8.0)
    tree = lora.init(config, tiny_model.params, jax.random.key(0))
    moved = jax.tree.map(lambda x: jnp.full_like(x, 0.1), tree)
    rows = random_examples(2, [8])
    plain, zero, other = (
        lens.through_layers(tiny_model, adapter, rows)[1]
        for adapter in (None, Adapters(config, tree), Adapters(config, moved))
    )
    np.testing.assert_allclose(plain, zero, rtol=1e-5)
    assert not np.allclose(plain, other, rtol=1e-2)


def test_the_earliest_layer_from_which_on_it_stays_on_top():
    rank_NxL = np.array([[0, 0, 0], [0, 3, 0], [1, 0, 0], [0, 0, 2]])
    assert lens.earliest(rank_NxL).tolist() == [1, 3, 2, 0]
