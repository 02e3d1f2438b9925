"""Counts of n-grams against `collections.Counter`, however the text is cut."""

import itertools
import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jaxlm
from jaxlm.models import count_ngrams as module
from jaxlm.models.ngram_counts import NgramCounts


def assert_bytes_equal(counts, expected):
    assert (counts.vocab_size, counts.order) == (expected.vocab_size, expected.order)
    for one, other in ((counts.keys, expected.keys), (counts.counts, expected.counts)):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def as_counter(counts):
    return dict(zip(map(tuple, counts.ngrams().tolist()), counts.counts.tolist(), strict=True))


def plain_counter(ids, order):
    ids = np.asarray(ids).tolist()
    return dict(Counter(tuple(ids[i : i + order]) for i in range(len(ids) - order + 1)))


@st.composite
def texts(draw):
    """Ids, order and vocabulary size; with 2^20 tokens and order 4 to 6, keys have two words."""
    vocab_size, order = draw(st.sampled_from([1, 3, 4096, 2**20, 2**31 - 1])), draw(st.integers(1, 6))
    length, num_used = draw(st.integers(order, 60)), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    ids = random.choice(random.integers(0, vocab_size, num_used), length)
    return ids.astype(np.int32), order, vocab_size


@settings(max_examples=60, deadline=None)
@given(text=texts())
def test_count_ngrams_equals_counter(text):
    ids, order, vocab_size = text
    counts = jaxlm.count_ngrams(ids, order, vocab_size=vocab_size)
    assert as_counter(counts) == plain_counter(ids, order)
    assert counts.counts.sum() == len(ids) - order + 1


@settings(max_examples=50, deadline=None)
@given(text=texts(), data=st.data())
def test_count_ngrams_of_any_cut_and_order(text, data):
    ids, order, vocab_size = text
    num_windows = len(ids) - order + 1
    cuts = data.draw(st.lists(st.integers(1, num_windows), unique=True, max_size=5))
    bounds = itertools.pairwise(sorted({0, *cuts, num_windows}))
    parts = [
        jaxlm.count_ngrams(ids[begin : end + order - 1], order, vocab_size=vocab_size) for begin, end in bounds
    ]
    first, *others = data.draw(st.permutations(parts))
    assert_bytes_equal(sum(others, start=first), jaxlm.count_ngrams(ids, order, vocab_size=vocab_size))


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(module, "_PIECE", 7)


@settings(max_examples=50, deadline=None)
@given(text=texts(), memory=st.sampled_from([2**30, 2000, 64]), num_shards=st.integers(1, 3))
def test_count_ngrams_in_threads_files_and_shards(text, memory, num_shards):
    ids, order, vocab_size = text
    expected = jaxlm.count_ngrams(ids, order, vocab_size=vocab_size)
    stream = jaxlm.TokenStream((*np.array_split(ids, num_shards),), vocab_size)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as executor:
        patch.setattr(module, "_PIECE", 7)
        assert_bytes_equal(jaxlm.count_ngrams(stream, order, memory=memory), expected)
        assert_bytes_equal(jaxlm.count_ngrams(stream, order, memory=memory, executor=executor), expected)


@pytest.mark.slow
def test_count_ngrams_in_two_processes(small_pieces):
    random = np.random.default_rng(0)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        for vocab_size, order in ((3, 1), (5, 3), (4096, 5), (4096, 6)):
            ids = random.integers(0, vocab_size, 100)
            counts = jaxlm.count_ngrams(ids, order, vocab_size=vocab_size, executor=executor)
            assert_bytes_equal(counts, jaxlm.count_ngrams(ids, order, vocab_size=vocab_size))
            assert as_counter(counts) == plain_counter(ids, order)


@settings(max_examples=20, deadline=None)
@given(text=texts())
def test_load_inverts_save(tmp_path_factory, text):
    counts = jaxlm.count_ngrams(text[0], text[1], vocab_size=text[2])
    path = tmp_path_factory.mktemp("saved") / "counts"
    counts.save(path)
    assert_bytes_equal(NgramCounts.load(path), counts)


def test_load_names_a_changed_file(tmp_path):
    jaxlm.count_ngrams([0, 1, 0], 2).save(tmp_path / "counts")
    np.save(tmp_path / "counts" / "counts.npy", np.array([2, 1]))
    with pytest.raises(ValueError, match=r"counts\.npy is damaged: checksum mismatch"):
        NgramCounts.load(tmp_path / "counts")


def test_count_ngrams_takes_the_vocabulary_of_a_stream():
    stream = jaxlm.TokenStream((np.array([0, 1]),), vocab_size=9)
    assert jaxlm.count_ngrams(stream, 1).vocab_size == 9
    assert jaxlm.count_ngrams([0, 1], 1).vocab_size == 2


@pytest.mark.parametrize(
    ("ids", "order", "error", "message"),
    [
        ([0, 1], 3, ValueError, "at least 3 tokens.*got 2"),
        ([0, 1], 0, ValueError, "order must be at least 1, got 0"),
        ([0, 5], 1, ValueError, r"5 is outside 0\.\.3"),
        ([0.0, 1.0], 1, TypeError, "must be integers, got float64"),
    ],
)
def test_count_ngrams_rejects(ids, order, error, message):
    with pytest.raises(error, match=message):
        jaxlm.count_ngrams(ids, order, vocab_size=4)


@pytest.mark.parametrize(
    ("ids", "vocab_size", "error", "message"),
    [
        ([0, 2**31], None, ValueError, r"vocab_size must be below 2\*\*31, got 2147483649"),
        ([0, 1], 2**31, ValueError, r"vocab_size must be below 2\*\*31, got 2147483648"),
        ([0, 1], 0, ValueError, "vocab_size must be at least 1, got 0"),
        ([0, 1], 2.5, TypeError, "vocab_size must be an integer, got 2.5"),
        ([-3, -4], None, ValueError, r"-4 is outside 0\.\.0"),
    ],
)
def test_count_ngrams_rejects_vocab_size(ids, vocab_size, error, message):
    with pytest.raises(error, match=message):
        jaxlm.count_ngrams(ids, 1, vocab_size=vocab_size)


def test_count_ngrams_of_a_small_integer_order():
    assert jaxlm.count_ngrams([0] * 200, np.int8(2)).counts.tolist() == [199]


def test_counts_of_other_sizes_do_not_add_up():
    with pytest.raises(
        ValueError, match="same vocabulary and order, got vocab_size=2, order=1 and vocab_size=2, or"
    ):
        jaxlm.count_ngrams([0, 1], 1) + jaxlm.count_ngrams([0, 1], 2)
