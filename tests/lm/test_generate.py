import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.errors import UserError
from forget_jax.lm import decoder, generate, lora
from forget_jax.lm.logprob import logits

CONFIG = decoder.DecoderConfig(
    vocab_size=61, width=16, layers=2, heads=4, kv_heads=2, head_dim=4, mlp_width=24, context=64
)


@pytest.fixture(scope="module")
def model():
    params = decoder.init(CONFIG, jax.random.key(0))
    params = jax.tree.map(lambda x: x * 8 if x.ndim > 1 else x, params)  # far from uniform
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 61, n).tolist() for n in (1, 3, 9, 16, 17, 5, 2, 30)]
    return params, prompts


def slow(params, adapters, prompt, n):
    """The same without cache, padding or batch: score the whole text again for every token."""
    forward = jax.jit(
        lambda ids: logits(
            decoder.hidden(CONFIG, params, adapters, ids), decoder.head_kernel(params)
        )
    )
    ids = list(prompt)
    for _ in range(n):
        row = np.zeros((1, 48), np.int32)
        row[0, : len(ids)] = ids
        ids.append(int(forward(row)[0, len(ids) - 1].argmax()))
    return ids[len(prompt) :]


def test_ragged_batch_is_the_same_as_one_at_a_time_without_cache(model):
    params, prompts = model
    new = generate.greedy(CONFIG, params, None, prompts, 12)
    assert new == [slow(params, None, p, 12) for p in prompts]
    assert len({tuple(n) for n in new}) > 4  # the model does say different things


def test_logits_are_the_scorers(model):
    params, prompts = model
    prompt = prompts[-1]
    full = logits(
        decoder.hidden(CONFIG, params, None, jnp.array([prompt])), decoder.head_kernel(params)
    )
    state = generate._prefill(
        CONFIG, params, None, jnp.array([prompt[:20]]), jnp.array([20]), None, 10
    )
    np.testing.assert_allclose(state["logits_BxV"][0], full[0, 19], atol=2e-5)
    cache = state["cache"]
    for at in range(20, 30):
        h, cache = decoder.hidden_and_cache(
            CONFIG, params, None, jnp.array([[prompt[at]]]), jnp.array([[at]]), cache=cache
        )
        np.testing.assert_allclose(
            logits(h, decoder.head_kernel(params))[0, 0], full[0, at], atol=2e-5
        )


def test_each_row_has_its_own_adapter(model):
    params, prompts = model
    config = lora.LoRAConfig(rank=2, alpha=8)
    adapters = [
        jax.tree.map(
            lambda x, k=k: jax.random.normal(jax.random.key(k), x.shape),
            lora.init(config, params, jax.random.key(k)),
        )
        for k in (0, 1)
    ]
    scaled = [lora.scaled(config, a) for a in adapters]
    stack = jax.tree.map(lambda *x: jnp.stack(x), *scaled)
    choice = np.eye(2)[[0, 1, 1, 0, 1, 0, 0, 1]]
    new = generate.greedy(CONFIG, params, stack, prompts, 6, tasks_NxM=choice)
    for i, prompt in enumerate(prompts[:4]):
        alone = generate.greedy(CONFIG, params, scaled[int(choice[i, 1])], [prompt], 6)
        assert new[i] == alone[0]


def test_eos_and_stop_strings_end_a_row(model):
    params, prompts = model
    free = generate.greedy(CONFIG, params, None, prompts, 20)
    eos = free[0][4]
    ended = generate.greedy(CONFIG, params, None, prompts, 20, eos_id=eos)
    assert ended == [n[: n.index(eos)] if eos in n else n for n in free]

    def text(ids):
        return "".join(chr(65 + i) for i in ids)

    mark = text(free[1][17:19])
    cut = generate.greedy(CONFIG, params, None, prompts, 20, stop=[mark], decode=text)
    expected = [n[: text(n).index(mark) + 2] if mark in text(n) else n for n in free]
    assert cut == expected
    assert generate.cut_at(text(cut[1]), [mark]) == text(free[1])[: text(free[1]).index(mark)]


def test_bad_prompts_are_named(model):
    params, _ = model
    with pytest.raises(UserError, match="prompt 1 is empty"):
        generate.greedy(CONFIG, params, None, [[1], []], 2)
    with pytest.raises(UserError, match="prompt 0 has 60 tokens"):
        generate.greedy(CONFIG, params, None, [[1] * 60], 8)


def test_half_precision_runs(model):
    params, prompts = model
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    assert all(len(n) == 3 for n in generate.greedy(config, params, None, prompts[:2], 3))
