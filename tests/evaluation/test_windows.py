"""Grouping keeps every window with its own context and target, and each context once."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from table_models import TableLM, random_ids

from jaxlm.evaluation.windows import WINDOWS_PER_CALL, group_windows


def check_grouping(ids, vocab_size, context_length, batch_size):
    windows, order = group_windows(np.array(ids, np.int32), TableLM(vocab_size, context_length), batch_size)
    contexts = [
        tuple(windows.ids[begin : begin + context_length])
        for begin in windows.contexts[windows.rows[: len(order)]]
    ]
    expected = [(tuple(ids[i : i + context_length]), ids[i + context_length]) for i in range(len(order))]
    assert len(order) == len(ids) - context_length
    assert list(zip(contexts, windows.targets[: len(order)].tolist(), strict=True)) == [expected[i] for i in order]
    for batch in range(windows.num_batches):
        rows = windows.rows[windows.bounds[batch] : windows.bounds[batch + 1]]
        assert set(rows // batch_size) == {batch}
    assert windows.bounds[windows.num_batches] == len(order)
    assert windows.num_batches == -(-(windows.rows[: len(order)].max() + 1) // batch_size)
    return windows, order, contexts


@settings(max_examples=30, deadline=None)
@given(
    ids=st.lists(st.integers(0, 4), min_size=3, max_size=60),
    context_length=st.integers(0, 2),
    batch_size=st.sampled_from([1, 4]),
)
def test_group_windows_scores_each_context_once(ids, context_length, batch_size):
    windows, order, contexts = check_grouping(ids, 5, context_length, batch_size)
    assert windows.num_batches == -(-len(set(contexts)) // batch_size)
    assert sorted(order) == list(range(len(order)))


@pytest.mark.parametrize(("vocab_size", "context_length"), [(65_536, 1), (256, 2), (2, 16), (70_000, 0)])
def test_group_windows_up_to_2_16_contexts(vocab_size, context_length):
    ids = [vocab_size - 1] * (context_length + 1) + [0] * (context_length + 1) + [vocab_size - 1] * context_length
    windows, _, contexts = check_grouping(ids, vocab_size, context_length, 4)
    assert windows.rows[: len(contexts)].max() + 1 == len(set(contexts)) < len(contexts)


@pytest.mark.parametrize(("vocab_size", "context_length"), [(65_537, 1), (41, 3), (np.int64(2**16), 4)])
def test_group_windows_above_2_16_contexts_does_not_group(vocab_size, context_length):
    # With repeated contexts, and with ids v and v + 65,536, which are equal in 16 bits.
    ids = (random_ids(2, 30) * (vocab_size - 1)).tolist()
    windows, order, contexts = check_grouping(ids, vocab_size, context_length, 4)
    assert windows.rows[: len(contexts)].max() + 1 == len(contexts)
    np.testing.assert_array_equal(order, np.arange(len(order)))


def test_group_windows_has_shapes_for_all_texts():
    short, _ = group_windows(np.array([0, 1], np.int32), TableLM(2, 1), 100)
    full, _ = group_windows(np.zeros(WINDOWS_PER_CALL + 1, np.int32), TableLM(2, 1), 100)
    assert [(np.shape(each), np.dtype(np.int32)) for each in short[:-1]] == [(x.shape, x.dtype) for x in full[:-1]]
