"""What is consumed when, and batches that hold every target exactly once."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forget_jax.data import batches, order
from forget_jax.data.batches import Buckets
from forget_jax.data.tokenise import Encoded, Template, encode, stream
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.scoring import likelihood
from forget_jax.training.loop import StepPlan, Task
from forget_jax.training.settings import Train

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, n=st.integers(1, 40), epochs=st.integers(1, 4))
def test_each_epoch_visits_each_example_once(seed, n, epochs):
    stream_of = order.rows(seed, n, 0, n * epochs).reshape(epochs, n)
    assert (np.sort(stream_of, axis=1) == np.arange(n)).all()


@given(seed=SEEDS, n=st.integers(1, 40), start=st.integers(0, 100), count=st.integers(1, 50))
def test_position_alone_decides(seed, n, start, count):
    whole = order.rows(seed, n, 0, start + count)
    assert (order.rows(seed, n, start, count) == whole[start:]).all()


def test_seeds_and_epochs_shuffle_differently():
    first, second = order.rows(0, 50, 0, 50), order.rows(0, 50, 50, 50)
    assert (first != second).any()
    assert (order.rows(1, 50, 0, 50) != first).any()


LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=9)


def padded(lengths, edges):
    return sum(min(edge for edge in edges if edge >= n) for n in lengths)


@given(lengths=LENGTHS, buckets=st.integers(1, 4))
def test_bucket_edges_waste_the_least(lengths, buckets):
    edges = batches.bucket_edges(lengths, buckets)
    assert len(edges) <= buckets and list(edges) == sorted(set(edges))
    assert all(edge % 8 == 0 for edge in edges) and edges[-1] >= max(lengths)
    candidates = sorted({-(-n // 8) * 8 for n in lengths})
    best = min(
        padded(lengths, (*chosen, candidates[-1]))
        for size in range(min(buckets, len(candidates)))
        for chosen in itertools.combinations(candidates[:-1], size)
    )
    assert padded(lengths, edges) == best


@st.composite
def example_sets(draw):
    examples = []
    for i, n in enumerate(draw(st.lists(st.integers(2, 40), min_size=1, max_size=12))):
        first = draw(st.integers(1, n - 1))
        ids = np.array(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)), np.int32)
        examples.append(Encoded(f"e{i}", "s", ids, np.arange(n) >= first))
    return examples


@settings(max_examples=60)
@given(
    examples=example_sets(),
    buckets=st.integers(1, 3),
    rows=st.integers(1, 5),
    packing=st.booleans(),
)
def test_every_target_is_predicted_once_from_its_own_past(examples, buckets, rows, packing):
    seen = {i: [] for i in range(len(examples))}
    for shape, chosen in likelihood.plan(examples, Buckets.of(examples, buckets), rows, packing):
        batch = batches.assemble(examples, shape, chosen)
        assert batch.ids_BxL.shape == (shape.rows, shape.length)
        assert len(chosen) <= shape.rows
        for b, t in zip(*np.nonzero(batch.weight_BxT), strict=True):
            i = batch.example_BxE[b, batch.slot_BxT[b, t]]
            at, past = batch.at_BxT[b, t], np.arange(shape.length) <= batch.at_BxT[b, t]
            if packing and batch.segment_BxL is not None:
                past &= batch.segment_BxL[b] == batch.segment_BxL[b, at]
                assert batch.position_BxL[b, at] == past.sum() - 1
            assert (batch.ids_BxL[b, past] == examples[i].ids[: past.sum()]).all()
            assert batch.target_BxT[b, t] == examples[i].ids[past.sum()]
            seen[i].append(int(past.sum()))
    for i, e in enumerate(examples):
        assert sorted(seen[i]) == np.flatnonzero(e.is_target).tolist()


@given(examples=example_sets(), rows=st.integers(1, 4), row_tokens=st.integers(1, 200))
def test_packed_rows_keep_within_their_shape(examples, rows, row_tokens):
    lengths, tokens = [len(e.ids) for e in examples], [e.tokens for e in examples]
    shape = batches.packed_shape(lengths, tokens, row_tokens, rows)
    assert shape.rows % rows == 0
    plan = batches.packed(lengths, tokens, shape)
    packed = [row for of, chosen in plan for row in chosen if of == shape]
    assert all(sum(lengths[i] for i in row) <= shape.length for row in packed)
    assert all(sum(tokens[i] for i in row) <= shape.targets for row in packed)
    assert all(1 <= len(row) <= shape.slots for row in packed)
    assert sorted(i for row in packed for i in row) == list(range(len(examples)))


@pytest.mark.parametrize("low", [2, 10, 60])
def test_fifty_thousand_examples_pack_densely_at_once(low):
    rng = np.random.default_rng(low)
    lengths = rng.integers(low, 128, 50_000).tolist()
    tokens = [max(1, n // 2) for n in lengths]
    shape = batches.packed_shape(lengths, tokens, 4096)
    chunks = [slice(i, i + 1024) for i in range(0, 50_000, 1024)]
    plans = [p for c in chunks for p in batches.packed(lengths[c], tokens[c], shape)]
    assert {s for s, _ in plans} == {shape}
    assert sum(lengths) / (len(plans) * shape.rows * shape.length) >= 0.92


@given(examples=example_sets(), length=st.integers(2, 30))
def test_a_stream_loses_no_token_but_a_lone_last_one(examples, length):
    total = np.concatenate([e.ids for e in examples])
    blocks = stream(examples, length)
    kept = np.concatenate([b.ids for b in blocks])
    assert (kept == total[: len(kept)]).all() and len(total) - len(kept) <= 1
    assert all(2 <= len(b.ids) <= length and b.tokens == len(b.ids) - 1 for b in blocks)


def test_a_resumed_plan_sees_the_same_rows(random_examples):
    task = Task("t", random_examples(0, [5, 9, 30, 12, 7]), seed=3, steps=9)
    train = Train(batch_size=3, microbatch=2, buckets=2)
    whole = StepPlan([task], train)
    again = StepPlan([dataclasses.replace(task)], train)
    for number in (7, 2, 8):
        assert (whole.rows(number) == again.rows(number)).all()
    consumed = np.concatenate([whole.rows(s) for s in range(5)])
    assert np.bincount(consumed).tolist() == [3] * 5  # 15 rows are three epochs of five


def test_eight_real_tasks_together_are_mostly_real_tokens(real_tasks):
    """A plain vmap over tasks leaves 22 % of tokens real; length-sorted microbatches far more."""
    texts = [f"{e.prompt}\n{e.completion}" for rows in real_tasks.values() for e in rows]
    tokenizer = tokenizers.train(texts, 2048)
    encoded = {
        name: encode(rows, tokenizer, Template(), context=512) for name, rows in real_tasks.items()
    }
    names = sorted(encoded)
    fractions = []
    for first in range(0, len(names) - 7, 8):
        tasks = [Task(n, encoded[n], seed=0, steps=10) for n in names[first : first + 8]]
        train = Train(batch_size=8, microbatch=8, buckets=6)
        fractions.append(StepPlan(tasks, train).useful_fraction())
    assert len(fractions) == 3
    assert min(fractions) >= 0.65, fractions


@pytest.fixture
def real_tasks(real_data):
    from forget_jax.data import sources

    files = sorted((real_data / "tasks").glob("*.jsonl"))
    return {f.stem: sources.load(str(f), limit=80) for f in files}
