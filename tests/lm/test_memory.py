import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from forget_jax.errors import UserError
from forget_jax.fleet import fitting
from forget_jax.lm import decoder, lora
from forget_jax.lm.cost import memory
from forget_jax.lm.cost.memory import Work
from forget_jax.lm.logprob import target_logprobs
from forget_jax.lm.model import Adapters, Batch, Model
from forget_jax.training.loop import Recipe
from forget_jax.training.settings import Train

CONFIG = decoder.DecoderConfig(
    vocab_size=512, width=64, layers=6, heads=4, kv_heads=2, head_dim=16, mlp_width=176, context=128
)
ADAPTER = lora.LoRAConfig(rank=8)


def compilers_figure(config, rows, length, train):
    params = jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
    zeros = jax.eval_shape(
        lambda: lora.init(ADAPTER, decoder.init(config, jax.random.key(0)), jax.random.key(0))
    )
    ids = jax.ShapeDtypeStruct((rows, length), jnp.int32)

    def loss(adapter, params, ids):
        h = decoder.hidden(Model(config, params), Adapters(ADAPTER, adapter), Batch(ids))
        at = jnp.broadcast_to(jnp.arange(length - 1), (rows, length - 1))
        return -target_logprobs(h, decoder.head(params), at, ids[:, 1:]).mean()

    f = jax.jit(jax.grad(loss) if train else loss)
    return f.lower(zeros, params, ids).compile().memory_analysis().temp_size_in_bytes


GEMMA3 = {"residual": "sandwich", "qk_norm": "head", "window": 16, "local": (True,) * 5 + (False,)}


@pytest.mark.parametrize(
    ("train", "remat", "switches"),
    [(t, r, {}) for t in (False, True) for r in ("none", "dots", "full")]
    + [(True, "none", GEMMA3)],
)
def test_activation_estimate_is_near_the_compilers(remat, train, switches):
    config = dataclasses.replace(CONFIG, remat=remat, **switches)
    plan = memory.plan(config, Work(16, 128, adapter=ADAPTER, train=train))
    ratio = (plan.activations + plan.logits) / compilers_figure(config, 16, 128, train)
    assert 0.75 < ratio < 1.35


def test_parameters_adapters_and_optimizer_are_exact():
    params = decoder.init(CONFIG, jax.random.key(0))
    adapter = lora.init(ADAPTER, params, jax.random.key(0))
    size = sum(x.nbytes for x in jax.tree.leaves(adapter))
    plan = memory.plan(CONFIG, Work(4, 64, "bfloat16", ADAPTER, adapters=3))
    assert plan.parameters == sum(x.nbytes for x in jax.tree.leaves(params)) // 2
    assert (plan.trainable, plan.optimizer) == (3 * size, 12 * size)
    full = memory.plan(CONFIG, Work(4, 64, shards=(2, 2)))
    assert full.parameters == 0
    assert full.trainable == -(-sum(x.nbytes for x in jax.tree.leaves(params)) // 4)
    assert memory.plan(CONFIG, Work(4, 64, adapter=ADAPTER, train=False)).optimizer == 0


def test_refusal_names_what_helps():
    plan = memory.plan(CONFIG, Work(64, 128, adapter=ADAPTER))
    memory.check(plan, CONFIG, plan.total * 2)
    with pytest.raises(UserError, match=r"activations .*fewer rows.*remat"):
        memory.check(plan, CONFIG, plan.total)
    large = dataclasses.replace(
        CONFIG, width=4096, mlp_width=11008, heads=32, head_dim=128, layers=32
    )
    plan = memory.plan(large, Work(1, 128, "float32", ADAPTER))
    with pytest.raises(UserError, match=r"sharding the model over 2 or more devices.*bfloat16"):
        memory.check(plan, large, 16 * 2**30)
    assert memory.available() > 2**28


def test_the_numbers_that_fit_are_named_and_do_fit(monkeypatch):
    recipe = Recipe(Train(microbatch=512, batch_size=512), ADAPTER)
    wants = fitting.Wants(128, recipe)
    has = fitting.plan(CONFIG, "float32", wants).total
    monkeypatch.setattr(memory, "available", lambda: has)
    with pytest.raises(UserError) as e:
        fitting.check(CONFIG, "float32", wants)
    found = re.search(r"train\.microbatch of (\d+) or less", str(e.value))
    assert found is not None and 256 < int(found[1]) < 512

    def fits(rows):
        fewer = dataclasses.replace(recipe.train, microbatch=rows)
        one = dataclasses.replace(wants, recipe=dataclasses.replace(recipe, train=fewer))
        return memory.fits(fitting.plan(CONFIG, "float32", one))

    assert fits(int(found[1])) and not fits(int(found[1]) + 1)


def test_whole_models_that_are_kept_count():
    whole = fitting.Wants(64, Recipe(Train()))
    one = fitting.plan(CONFIG, "float32", whole)
    three = fitting.plan(CONFIG, "float32", dataclasses.replace(whole, kept=2))
    assert three.trainable == 3 * one.trainable and three.optimizer == one.optimizer
