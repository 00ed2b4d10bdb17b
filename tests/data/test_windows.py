"""Windows: every target once, with the context that is promised, and sums that are exact."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forget_jax.data import windows
from forget_jax.data.batches import Buckets
from forget_jax.data.tokenise import Encoded
from forget_jax.scoring import likelihood
from forget_jax.scoring.stream import Layout


@given(length=st.integers(1, 90), context=st.integers(2, 30), data=st.data())
def test_every_token_is_fresh_once_and_has_its_context(length, context, data):
    stride = data.draw(st.integers(1, context - 1))
    spans = windows.spans(length, context, stride)
    fresh = [i for start, end, first in spans for i in range(first, end)]
    assert fresh == list(range(length))
    assert all(end - start == min(length, context) for start, end, _ in spans)
    assert all(first - start >= context - stride for start, _, first in spans[1:])
    assert len(spans) == 1 + max(0, math.ceil((length - context) / stride))


@pytest.mark.parametrize("stride", [0, 5, -1])
def test_a_stride_without_context_or_progress_is_refused(stride):
    with pytest.raises(ValueError, match="stride"):
        windows.spans(9, 5, stride)


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    values=st.lists(st.floats(-1e6, 1e6), min_size=48, max_size=48),
)
def test_sums_are_those_of_a_loop(counts, values):
    names = [f"e{i}" for i, count in enumerate(counts) for _ in range(count)]
    values_KxR = np.array([values[: len(names)], values[: len(names)][::-1]])
    owner_R = windows.owners(names)
    wanted = np.zeros((2, len(counts)))
    for r, name in enumerate(names):
        assert name == f"e{owner_R[r]}"
        for k in range(2):
            wanted[k, owner_R[r]] += values_KxR[k, r]
    np.testing.assert_allclose(windows.summed(values_KxR, owner_R), wanted, rtol=1e-12, atol=1e-6)
    assert [names[i] for i in windows.firsts(owner_R)] == [f"e{i}" for i in range(len(counts))]


def test_sums_keep_kinds_and_spread_nan_no_further():
    owner_R = windows.owners(["a", "a", "b", "c", "c", "c"])
    counts = windows.summed(np.ones((1, 6), np.int32), owner_R)
    assert counts.dtype == np.int32 and counts.tolist() == [[2, 1, 3]]
    sums = windows.summed(np.array([[1, np.nan, 2, 3, 4, 5]], np.float32), owner_R)
    assert sums.dtype == np.float64
    np.testing.assert_array_equal(sums, [[np.nan, 2, 12]])


def rows_of(name, ids, context, stride):
    """A text in windows, as `tokenise.encode` makes them."""
    found = []
    for start, end, fresh in windows.spans(len(ids), context, stride):
        at = np.arange(start, end)
        found.append(Encoded(name, "s", ids[start:end], (at >= fresh) & (at > start)))
    return found


def test_a_models_sums_over_windows_are_a_loops_over_targets(tiny_model):
    """Each target scored alone, after exactly the tokens its window shows, summed in float64."""
    context, stride = 16, 6
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 61, n).astype(np.int32) for n in (40, 9, 16, 17, 61)]
    rows = [r for i, ids in enumerate(texts) for r in rows_of(f"t{i}", ids, context, stride)]
    owner_R = windows.owners([r.name for r in rows])
    assert len(rows) > len(texts) == owner_R[-1] + 1

    def score(encoded):
        layout = Layout.of(encoded, Buckets.of(encoded, 1), rows=8)
        return likelihood.score(tiny_model, None, encoded, layout)

    found = windows.summed(score(rows), owner_R)[0]
    alone, text_of = [], []
    for number, ids in enumerate(texts):
        for i in range(1, len(ids)):
            end = context
            while end <= i:  # the first window that reaches this target
                end += stride
            start = max(0, min(end, len(ids)) - context)
            seen = ids[start : i + 1]
            alone.append(Encoded("x", "s", seen, np.arange(len(seen)) == len(seen) - 1))
            text_of.append(number)
    wanted = np.zeros(len(texts))
    for number, nll in zip(text_of, score(alone)[0], strict=True):
        wanted[number] += nll
    tokens = np.array([len(ids) - 1 for ids in texts])
    assert (np.abs(found - wanted) / tokens).max() < 1e-5
