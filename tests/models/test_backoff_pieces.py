"""The trie of n-grams does not depend on the pieces in which it is built."""

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm import AddK, CountsNgramLM, KneserNey, ModifiedKneserNey, WittenBell
from jaxlm.models import backoff


@pytest.mark.parametrize("smoothing", [AddK(0.5), WittenBell(), KneserNey(), ModifiedKneserNey()], ids=str)
@pytest.mark.parametrize(("vocab_size", "order"), [(5, 1), (5, 4), (2**20, 4)])  # the last has keys of two words
def test_build_trie_in_pieces(vocab_size, order, smoothing, monkeypatch):
    ids = np.random.default_rng(0).integers(0, 5, 300) * (vocab_size // 5)
    counts = jaxlm.count_ngrams(ids, order, vocab_size=vocab_size)
    _, whole = CountsNgramLM.from_counts(counts, smoothing)
    monkeypatch.setattr(backoff, "_PIECE", 10)
    _, in_pieces = CountsNgramLM.from_counts(counts, smoothing)
    jax.tree.map(np.testing.assert_array_equal, in_pieces, whole)
