"""The loss along a displacement: derivatives written by hand, and the loss itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.lm import decoder, lora
from forget_jax.lm.model import Adapters, Batch, Model, trainable
from forget_jax.training import displacement

CONFIG = lora.LoRAConfig(rank=2, alpha=8.0, targets="layers/(attn/q|mlp/down)")


def by_hand(start, tree, rows):
    """Mean NLL a target, one row after the other, in one expression."""
    model, adapter = start
    if adapter is None:
        model = Model(model.config, tree)
    else:
        adapter = Adapters(adapter.config, tree)
    total, targets = 0.0, 0
    for e in rows:
        h = decoder.hidden(model, adapter, Batch(e.ids[None]))
        logp = jax.nn.log_softmax(h @ decoder.head(model.params).kernel_DxV)[0, :-1]
        at = jnp.take_along_axis(logp, e.ids[1:, None], axis=-1)[:, 0]
        total -= jnp.where(e.is_target[1:], at, 0).sum()
        targets += int(e.is_target[1:].sum())
    return total / targets


def moved(tree, seed, size):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.float32(rng.normal(0, size, x.shape)), tree)


@pytest.fixture(name="starts", scope="module")
def _starts(tiny_model):
    one = lora.init(CONFIG, tiny_model.params, jax.random.key(0))
    adapter = Adapters(CONFIG, moved(one, 0, 0.05))
    return {"model": (tiny_model, None), "adapter": (tiny_model, adapter)}


@pytest.mark.parametrize("which", ["model", "adapter"])
def test_slope_and_curvature_are_derivatives_of_the_loss(starts, which, random_examples):
    start, rows = starts[which], random_examples(0, [7, 12])
    tree = trainable(*start)
    direction = moved(tree, 1, 0.02)
    found = displacement.along(start, direction, rows, buckets=1, rows=2)

    def at(t):
        return by_hand(start, jax.tree.map(lambda x, d: x + t * d, tree, direction), rows)

    zero = jnp.float32(0)
    assert float(found.loss) == pytest.approx(float(at(zero)), rel=1e-5)
    steep = float(jax.jit(jax.grad(at))(zero))
    assert float(found.slope) == pytest.approx(steep, rel=1e-4, abs=1e-6)
    bent = float(jax.jit(jax.grad(jax.grad(at)))(zero))
    assert float(found.curvature) == pytest.approx(bent, rel=1e-3, abs=1e-6)
    wanted = jax.jit(jax.grad(lambda x: by_hand(start, x, rows)))(tree)
    for a, b in zip(jax.tree.leaves(found.gradient), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6)


def test_a_short_move_changes_the_loss_as_the_second_order_says(starts, random_examples):
    model, _ = starts["model"]
    rows, own = random_examples(0, [7, 12, 9]), random_examples(1, [8, 8])
    step = moved(model.params, 1, 0.01)
    end = Model(model.config, jax.tree.map(jnp.add, model.params, step)), None
    found = displacement.displaced((model, None), end, rows, own)
    assert abs(found["second"] - found["change"]) < 0.1 * abs(found["change"])
    assert abs(found["second"] - found["change"]) < abs(found["first"] - found["change"])
    size = np.sqrt(sum(float((x**2).sum()) for x in jax.tree.leaves(step)))
    assert found["distance"] == pytest.approx(size, rel=1e-4)
    assert found["first"] == pytest.approx(found["slope"] * size, rel=1e-4)
    assert -1 <= found["cosine"] <= 1
    alike = displacement.displaced((model, None), end, rows, rows)
    assert alike["cosine"] == pytest.approx(1, abs=1e-4)
    still = displacement.displaced((model, None), (model, None), rows, own)
    assert still["distance"] == still["change"] == still["curvature"] == 0
