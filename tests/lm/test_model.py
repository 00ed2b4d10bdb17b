"""What goes together: a model, adapters single and stacked, a batch; compiled once a setting."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.lm import lora
from forget_jax.lm.model import Adapters, Batch, Model, stack

CONFIG = lora.LoRAConfig(rank=2)


def adapter(number):
    rng = np.random.default_rng(number)
    draw = {"a": (3, 8, 2), "b": (3, 2, 5)}
    tree = {name: rng.normal(size=shape).astype(np.float32) for name, shape in draw.items()}
    return Adapters(CONFIG, {"layers": {"attn": {"q": tree}}})


@pytest.fixture
def singles():
    return [adapter(number) for number in range(3)]


def same(ours, theirs):
    assert ours.config == theirs.config
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def test_a_stack_gives_back_what_was_stacked(singles):
    stacked = stack(singles)
    assert stacked.count == 3 and stacked.on_host
    assert stacked.tree["layers"]["attn"]["q"]["a"].shape == (3, 3, 8, 2)
    assert all(same(stacked[k], one) for k, one in enumerate(singles))
    assert same(stacked[-1], singles[-1])
    assert all(same(ours, one) for ours, one in zip(stacked, singles, strict=True))


def test_some_of_a_stack_are_a_stack(singles):
    stacked = stack(singles)
    assert same(stacked[1:], stack(singles[1:]))
    assert same(stacked[::-1], stack(singles[::-1]))
    assert same(stacked[np.array([2, 0, 2])], stack([singles[k] for k in (2, 0, 2)]))
    assert stacked[1:2].count == 1


@pytest.mark.parametrize("on_host", [True, False])
def test_the_base_is_an_adapter_of_zeros_in_front(singles, on_host):
    stacked = stack(singles)
    if not on_host:
        stacked = jax.tree.map(jnp.array, stacked)
    both = stacked.with_base()
    assert both.count == 4 and both.on_host == stacked.on_host == on_host
    assert all((np.asarray(x) == 0).all() for x in jax.tree.leaves(both[0]))
    assert same(both[1:], stacked)
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(both))


def test_a_model_under_other_switches_has_the_same_parameters(tiny_model):
    other = tiny_model.computing(dtype="bfloat16", remat="full")
    assert other.params is tiny_model.params and other.dtype == tiny_model.dtype == "float32"
    assert (other.config.dtype, other.config.remat) == ("bfloat16", "full")
    assert tiny_model.config.dtype == "float32"
    rounded = jax.tree.map(lambda x: x.astype("bfloat16"), tiny_model.params)
    assert Model(tiny_model.config, rounded).dtype == "bfloat16"
    with pytest.raises(TypeError, match="unexpected keyword argument 'dtyp'"):
        tiny_model.computing(dtyp="bfloat16")


def test_a_function_is_compiled_once_for_each_setting(tiny_model, singles):
    seen = []

    @jax.jit
    def total(model, adapters, batch):
        seen.append((model.config, adapters and adapters.config))
        leaves = jax.tree.leaves((model, adapters, batch))
        return sum(jnp.sum(x) for x in leaves)

    batch = Batch(np.ones((2, 4), np.int32))
    first = total(tiny_model, singles[0], batch)
    assert first != total(tiny_model, singles[1], batch)  # other values, the same program
    equal = Model(dataclasses.replace(tiny_model.config), tiny_model.params)
    total(equal, Adapters(lora.LoRAConfig(rank=2), singles[2].tree), batch)
    assert seen == [(tiny_model.config, CONFIG)]
    total(tiny_model, None, batch)
    total(tiny_model.computing(remat="full"), singles[0], batch)
    doubled = dataclasses.replace(CONFIG, alpha=32.0)
    total(tiny_model, Adapters(doubled, singles[0].tree), batch)
    total(tiny_model, singles[0], batch._replace(position_BxL=batch.ids_BxL))
    assert [config.remat for config, _ in seen] == ["none", "none", "full", "none", "none"]
    assert [setting for _, setting in seen] == [CONFIG, None, CONFIG, doubled, CONFIG]
