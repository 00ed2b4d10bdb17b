import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.errors import UserError
from forget_jax.lm import decoder, generate, lora
from forget_jax.lm.generate import Until
from forget_jax.lm.logprob import logits
from forget_jax.lm.model import Adapters, Batch, Model

NEW = 16


@pytest.fixture(scope="module")
def model(tiny_config, tiny_params):
    return Model(tiny_config, tiny_params)


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 61, n).tolist() for n in (1, 3, 9, 16, 14, 5, 2, 30)]


@pytest.fixture(scope="module")
def every_logit(model):
    """All logits of rows of 48 tokens, as a scorer computes them: no cache."""

    @jax.jit
    def run(ids, adapters, choice_BxS):
        h = decoder.hidden(model, adapters, Batch(ids), choice_BxS)
        return logits(h, decoder.head(model.params))

    return run


def slow(every_logit, prompts, n, adapters=None, choice_BxS=None):
    """The same without cache: score the whole text again for every token."""
    ids = np.zeros((len(prompts), 48), np.int32)
    for row, p in zip(ids, prompts, strict=True):
        row[: len(p)] = p
    out = [[] for _ in prompts]
    for t in range(n):
        best = np.asarray(every_logit(ids, adapters, choice_BxS).argmax(-1))
        for i, p in enumerate(prompts):
            out[i].append(int(best[i, len(p) + t - 1]))
            ids[i, len(p) + t] = out[i][-1]
    return out


@pytest.fixture(scope="module")
def free(model, prompts):
    return generate.greedy(model, None, prompts, Until(NEW))


def test_ragged_batch_is_the_same_without_cache(prompts, free, every_logit):
    assert free == slow(every_logit, prompts, NEW)
    assert len({tuple(n) for n in free}) > 4  # the model does say different things


def test_sampled_tokens_have_the_models_own_frequencies(model, every_logit):
    """And do not depend on the batch they are drawn in."""
    prompts = [[5, 7, 11]] * 400
    new = generate.sampled(model, None, prompts, Until(1), jax.random.key(0), batch_size=64)
    assert new == generate.sampled(model, None, prompts, Until(1), jax.random.key(0), batch_size=16)
    ids = np.zeros((len(prompts), 48), np.int32)
    ids[:, :3] = prompts[0]
    p_V = jax.nn.softmax(every_logit(ids, None, None)[0, 2])
    drawn = np.bincount([n[0] for n in new], minlength=len(p_V)) / len(new)
    assert len({n[0] for n in new}) > 10
    assert np.abs(drawn - p_V).sum() < 0.5 * np.abs(np.eye(len(p_V))[0] - p_V).sum()
    np.testing.assert_allclose(drawn, p_V, atol=5 * np.sqrt(0.25 / len(new)))


def test_logits_are_the_scorers(model, prompts, every_logit):
    ids = np.zeros((1, 48), np.int32)
    ids[0, :30] = prompts[-1]
    full = every_logit(ids, None, None)[0]
    state = generate._prefill(model, None, ids[:, :20], np.array([20]), None, NEW)
    np.testing.assert_allclose(state["logits_BxV"][0], full[19], atol=2e-5)
    cache = state["cache"]
    step = jax.jit(
        lambda cache, ids, at: decoder.hidden_and_cache(model, None, Batch(ids, at), cache=cache)
    )
    for at in range(20, 30):
        h, cache = step(cache, ids[:, at : at + 1], np.array([[at]]))
        now = logits(h, decoder.head(model.params))[0, 0]
        np.testing.assert_allclose(now, full[at], atol=2e-5)


def test_each_row_has_its_own_adapter(model, prompts, every_logit, free):
    lora_config = lora.LoRAConfig(rank=2, alpha=4)
    fresh = lora.init(lora_config, model.params, jax.random.key(0))
    rng = np.random.default_rng(1)
    tree = jax.tree.map(lambda x: rng.normal(size=(2, *x.shape)).astype(np.float32), fresh)
    stack = Adapters(lora_config, tree)
    choice_NxS = np.eye(2, dtype=np.float32)[[0, 1, 1, 0, 1, 0, 0, 1]]
    new = generate.greedy(model, stack, prompts, Until(8), choice_NxS=choice_NxS)
    assert new == slow(every_logit, prompts, 8, stack, jnp.asarray(choice_NxS))
    assert new != [n[:8] for n in free]


def text(ids):
    return "".join(chr(65 + i) for i in ids)


def test_eos_and_stop_strings_end_a_row(model, prompts, free):
    eos = free[0][4]
    ended = generate.greedy(model, None, prompts, Until(NEW, (eos,)))
    assert ended == [n[: n.index(eos)] if eos in n else n for n in free]
    mark = text(free[1][5:7])
    cut = generate.greedy(model, None, prompts, Until(NEW, stop=[mark], decode=text))
    assert cut == [n[: text(n).index(mark) + 2] if mark in text(n) else n for n in free]
    assert generate.cut_at(text(cut[1]), [mark]) == text(free[1])[: text(free[1]).index(mark)]


def test_answers_are_texts_up_to_the_first_stop(model, prompts, free):
    mark, eos = text(free[1][5:7]), free[7][2]

    class Letters:
        eos_token_id = eos

        @staticmethod
        def decode(ids, skip_special_tokens):
            assert skip_special_tokens
            return text(ids)

    until = generate.until(Letters, NEW, stop=[mark])
    said = generate.answers(model, None, prompts, until, batch_size=3)
    ended = [n[: n.index(eos)] if eos in n else n for n in free]
    assert said == [text(n).split(mark)[0] for n in ended]
    assert said[1] != text(ended[1]) and len(said[7]) <= 2


def test_every_listed_token_ends_an_answer(model, prompts, free):
    """As in Llama 3's generation_config.json, which lists three."""

    class Letters:
        eos_token_id = free[0][6]

        @staticmethod
        def decode(ids, skip_special_tokens):
            return text(ids)

    until = generate.until(Letters, NEW, (free[0][4], free[1][3]))
    assert until.eos_ids == (free[0][6], free[0][4], free[1][3])
    said = generate.answers(model, None, prompts, until)
    ends = set(until.eos_ids)
    firsts = [next((i for i, t in enumerate(n) if t in ends), len(n)) for n in free]
    assert said == [text(n[:i]) for n, i in zip(free, firsts, strict=True)]


def test_bad_prompts_are_named(model):
    with pytest.raises(UserError, match="prompt 1 is empty"):
        generate.greedy(model, None, [[1], []], Until(2))
    with pytest.raises(UserError, match="prompt 0 has 60 tokens"):
        generate.greedy(model, None, [[1] * 60], Until(8))


def test_half_precision_runs(model, prompts):
    half = model.computing(dtype="bfloat16")
    assert all(len(n) == 3 for n in generate.greedy(half, None, prompts[:2], Until(3)))


def test_prompts_of_like_length_are_read_together():
    lengths = [70, 3, 16, 17, 64, 65, 300, 5]
    found = generate._batches(lengths, 4)
    assert found == [[1, 7, 2, 3], [4, 5, 0], [6]]
    assert generate._batches([9] * 5, 2) == [[0, 1], [2, 3], [4]]
    assert generate._batches([], 2) == []
