"""Batches on their way: few shapes compiled once and ahead, no pause between chunks."""

import functools
from collections import Counter

import jax
import numpy as np
import pytest

from forget_jax.data.batches import Buckets
from forget_jax.lm import decoder, lora
from forget_jax.lm.model import Adapters, Batch, Model, stack
from forget_jax.scoring import divergence, likelihood, stream
from forget_jax.scoring.stream import Layout

ADAPTER = lora.LoRAConfig(rank=2)
compiled: Counter[str] = Counter()
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **of: compiled.update([name])
)
COMPILE = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def examples(random_examples):
    return random_examples(0, np.random.default_rng(0).integers(3, 40, 50).tolist())


@pytest.fixture(scope="module")
def adapters(tiny_params):
    def one(key):
        fresh = lora.init(ADAPTER, tiny_params, jax.random.key(key))
        return jax.tree.map(lambda x: np.asarray(x) + 0.1 * key, fresh)

    return stack([Adapters(ADAPTER, one(key)) for key in range(5)])


def chunks(examples, size):
    return [(c, examples[c : c + size]) for c in range(0, len(examples), size)]


def one_bucket(examples):
    return Layout.of(examples, Buckets.of(examples, 1), 8)


@pytest.mark.parametrize("packing", [False, True])
def test_chunks_share_their_shapes_and_each_compiles_once(examples, tiny_model, packing):
    layout = Layout.of(examples, Buckets.of(examples, 2), 4, packing)
    of = chunks(examples, 13)  # the last chunk has 11 examples, the last batches few rows
    shapes = {shape for _, chunk in of for shape, _ in layout.plan(chunk)}
    assert len(shapes) == (1 if packing else 2)
    before = compiled[COMPILE]
    found = dict(stream.stream(likelihood.score_batch, (tiny_model, None), of, layout))
    assert compiled[COMPILE] - before == len(shapes)
    dict(stream.stream(likelihood.score_batch, (tiny_model, None), of, layout))
    assert compiled[COMPILE] - before == len(shapes)  # nothing for a second run in one process
    joined = np.concatenate([found[c]["nll_sum"] for c, _ in of], axis=1)
    assert joined.shape == (1, len(examples)) and np.isfinite(joined).all()


def test_no_pause_between_chunks(examples, tiny_model, monkeypatch):
    """Until the last batch is on its way, never fewer than AHEAD batches are."""
    layout = Layout.of(examples, Buckets.of(examples, 1), 2)
    of = chunks(examples, 20)
    batches = sum(len(layout.plan(chunk)) for _, chunk in of)
    feed, under_way = stream.feed, []

    def counting(encoded, shape, rows):
        under_way.append(+1 if rows else 0)  # an empty batch only tells the compiler its shape
        return feed(encoded, shape, rows)

    monkeypatch.setattr(stream, "feed", counting)
    seen = []

    def fetched(done):
        seen.append(sum(under_way) - len(seen))

    dict(stream.stream(likelihood.score_batch, (tiny_model, None), of, layout, fetched))
    assert len(seen) == batches > 12
    assert seen[: batches - stream.AHEAD] == [stream.AHEAD + 1] * (batches - stream.AHEAD)


def test_one_adapter_is_scored_like_many(examples, adapters, tiny_model):
    rest = examples, one_bucket(examples)
    together = likelihood.score(tiny_model, adapters, *rest)
    tokens = np.array([e.tokens for e in examples])
    for k in range(5):
        alone = likelihood.score(tiny_model, adapters[k : k + 1], *rest)
        assert (np.abs(alone[0] - together[k]) / tokens).max() < 1e-5


def test_side_by_side_is_one_after_the_other(examples, adapters, tiny_model, monkeypatch):
    """What accelerators do agrees with what the CPU does, measures included."""
    args = tiny_model, adapters, examples, one_bucket(examples)
    tokens = np.array([e.tokens for e in examples])
    found = []
    for one_by_one in (True, False):
        monkeypatch.setattr(likelihood, "at_a_time", lambda one_by_one=one_by_one: one_by_one)
        jax.clear_caches()
        found.append([likelihood.score(*args), divergence.diverge(*args)["kl"]])
    for first, second in zip(*found, strict=True):
        assert (np.abs(first - second) / tokens).max() < 1e-5


def test_only_full_precision_is_merged(tiny_model):
    """Half precision, of the weights or of the products, would round small updates away."""
    assert likelihood.merges(tiny_model)
    assert not likelihood.merges(tiny_model.computing(dtype="bfloat16"))
    rounded = jax.tree.map(lambda x: x.astype("bfloat16"), tiny_model.params)
    assert not likelihood.merges(Model(tiny_model.config, rounded))


def test_merged_is_beside(examples, adapters, tiny_model):
    args = tiny_model, adapters, examples, one_bucket(examples)
    tokens = np.array([e.tokens for e in examples])
    beside, merged = (likelihood.score(*args, merge=merge) for merge in (False, True))
    assert (np.abs(beside - merged) / tokens).max() < 1e-5
    assert (np.abs(beside[1] - beside[0]) / tokens).max() > 1e-3


@pytest.mark.parametrize("packing", [False, True])
def test_log_probabilities_of_tokens_add_up(examples, adapters, tiny_model, packing):
    layout = Layout.of(examples, Buckets.of(examples, 2), 4, packing)
    fn = functools.partial(likelihood.score_batch, per_token=True)
    ((_, found),) = stream.stream(fn, (tiny_model, adapters), [(0, examples)], layout)
    for i, e in enumerate(examples):
        logp_KxT = found["logp"][:, i]
        assert np.isfinite(logp_KxT[:, : e.tokens]).all()
        assert np.isnan(logp_KxT[:, e.tokens :]).all()
        np.testing.assert_allclose(
            -logp_KxT[:, : e.tokens].sum(1), found["nll_sum"][:, i], rtol=1e-5
        )
    e = max(examples, key=lambda e: e.tokens)  # in the order of the targets
    h_1xLxD = decoder.hidden(tiny_model, adapters[1], Batch(e.ids[None]))
    h = np.asarray(h_1xLxD, np.float64)[0]
    logits = h @ np.asarray(decoder.head(tiny_model.params).kernel_DxV, np.float64)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    where = np.flatnonzero(e.is_target)
    np.testing.assert_allclose(
        found["logp"][1, examples.index(e), : e.tokens], logp[where - 1, e.ids[where]], atol=1e-4
    )


def test_a_plan_of_fifty_thousand_is_made_at_once(random_examples):
    import time

    lengths = np.random.default_rng(0).integers(4, 60, 50_000).tolist()
    examples = random_examples(0, lengths)
    buckets = Buckets.of(examples, 6)
    for packing in (False, True):
        began = time.process_time()
        layout = Layout.of(examples, buckets, 8, packing)
        plans = [layout.plan(examples[i : i + 1024]) for i in range(0, 50_000, 1024)]
        assert time.process_time() - began < 5  # a quadratic one takes minutes
        computed = sum(s.rows * s.length for plan in plans for s, _ in plan)
        assert sum(lengths) / computed > (0.95 if packing else 0.7)
