"""A stream of shards behaves like the concatenated array."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jaxlm
from jaxlm import TokenStream

IDS = np.random.default_rng(0).integers(0, 9, 60).astype(np.uint16)


def cut(cuts):
    """Return `IDS` as a stream of shards that end at `cuts`."""
    return TokenStream(tuple(np.split(IDS, sorted(cuts))), vocab_size=9)


streams = st.builds(cut, st.lists(st.integers(0, 60), max_size=5))
bounds = st.none() | st.integers(-70, 70)
positions = st.lists(st.lists(st.integers(-60, 59), min_size=2, max_size=2), max_size=4)


@settings(deadline=None)
@given(streams, bounds, bounds)
def test_slices_equal_those_of_the_array(stream, begin, end):
    part = stream[begin:end]
    assert isinstance(part, TokenStream)
    assert (len(part), part.shape, part.dtype) == (len(IDS[begin:end]), IDS[begin:end].shape, np.uint16)
    np.testing.assert_array_equal(part, IDS[begin:end])
    np.testing.assert_array_equal(part[1:4], IDS[begin:end][1:4])


@settings(deadline=None)
@given(streams, positions, st.integers(-60, 59))
def test_positions_equal_those_of_the_array(stream, rows, position):
    rows = np.array(rows, np.int64).reshape(-1, 2)
    assert stream[rows].dtype == np.uint16
    np.testing.assert_array_equal(stream[rows], IDS[rows])
    assert type(stream[position]) is int
    assert stream[np.int8(position)] == stream[position] == IDS[position]


@settings(deadline=None)
@given(streams, st.integers(1, 30), st.integers(0, 3))
def test_segments_hold_each_window_once(stream, size, overlap):
    segments = [*stream.segments(size, overlap)]
    assert all(len(each) == size + overlap for each in segments[:-1])
    views = [np.lib.stride_tricks.sliding_window_view(each, overlap + 1) for each in segments]
    np.testing.assert_array_equal(
        np.concatenate(views), np.lib.stride_tricks.sliding_window_view(IDS, overlap + 1)
    )


def call_helpers(ids):
    """Return what the helpers compute from the ids, as a pytree of arrays."""
    model = jaxlm.CountsBigramLM(9)
    variables = model.fit(jaxlm.init(model, jax.random.key(0)), ids)
    models, mixed = (model, jaxlm.UniformLM(9)), (variables, {})
    return {
        "fit": variables,
        "ngrams": jaxlm.count_ngrams(ids, 3, vocab_size=9).counts,
        "evaluate": jaxlm.evaluate(model, variables, ids),
        "window_nats": jaxlm.window_nats(model, variables, ids),
        "mixture_weights": jaxlm.mixture_weights(models, mixed, ids),
        "get_batch": jaxlm.get_batch(ids, 3, 5, key=jax.random.key(1)),
        "get_batch_under_jit": jax.jit(lambda key: jaxlm.get_batch(ids, 3, 5, key=key))(jax.random.key(2)),
        "windows": jaxlm.windows(ids, 3),
        "split_ids": [*map(np.asarray, jaxlm.split_ids(ids))],
        "check_ids": jaxlm.check_ids(ids, 9),
    }


@pytest.fixture(scope="module")
def expected():
    return call_helpers(IDS)


@settings(max_examples=5, deadline=None)
@given(stream=streams)
def test_helpers_accept_streams(stream, expected):
    jax.tree.map(np.testing.assert_array_equal, call_helpers(stream), expected)


def test_slices_are_views():
    shard = np.zeros(5, np.uint16)
    part = TokenStream((np.zeros(3, np.uint16), shard), 9)[4:]
    shard[2] = 7
    assert np.asarray(part).tolist() == [0, 7, 0, 0]


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (slice(0, 9, 2), ValueError, "step of a slice must be 1, got 2; index with an array"),
        ([[0, 60]], IndexError, "position 60 is outside a stream of 60 tokens"),
        (-61, IndexError, "position -61 is outside"),
        (0.5, TypeError, "integers or a slice, got float64"),
        (IDS > 3, TypeError, "got bool"),
    ],
)
def test_stream_refuses_index(index, error, message):
    with pytest.raises(error, match=message):
        cut([7])[index]


@pytest.mark.parametrize(
    ("shards", "got"),
    [
        ((), "none"),
        ((IDS, IDS.astype(np.int32)), r"int32\[T\], uint16\[T\]"),
        ((IDS * 0.5,), r"float64\[T\]"),
        ((IDS.reshape(6, 10),), r"uint16\[6, 10\]"),
    ],
)
def test_stream_refuses_shards(shards, got):
    with pytest.raises(TypeError, match=rf"shards must be integer arrays \[T\] of one dtype, got {got}"):
        TokenStream(shards, 9)


def test_smaller_vocabulary_reads_and_checks_the_ids():
    with pytest.raises(ValueError, match=r"ids: 8 is outside 0\.\.6"):
        jaxlm.evaluate(jaxlm.UniformLM(7), {}, cut([7, 30]))
