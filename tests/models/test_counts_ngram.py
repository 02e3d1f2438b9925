"""Counts of n-grams against the published formulas written out plainly, NLTK, and the figures of KenLM."""

import functools
import itertools
import math
from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from nltk.lm.models import InterpolatedLanguageModel
from nltk.lm.smoothing import KneserNey as KneserNeyOfNltk
from nltk.util import everygrams

import jaxlm
from jaxlm import AddK, CountsNgramLM, KneserNey, ModifiedKneserNey, WittenBell

VOCAB = 12
ZIPF = (1 / np.arange(1, VOCAB + 1) ** 2) / (1 / np.arange(1, VOCAB + 1) ** 2).sum()
STREAM = np.random.default_rng(0).choice(VOCAB, 400, p=ZIPF)
SMOOTHINGS = [AddK(1.0), AddK(0.01), WittenBell(), KneserNey(), KneserNey(0.4), ModifiedKneserNey()]
each_smoothing = pytest.mark.parametrize("smoothing", SMOOTHINGS, ids=str)
each_table = pytest.mark.parametrize("table", ["dense", "sparse"])


def fitted(model, ids=STREAM):
    return model.fit(jaxlm.init(model, jax.random.key(0)), ids)


def some_contexts(context_length):
    """Half of them from the stream, so that they were seen; half at random."""
    random = np.random.default_rng(1)
    starts = random.integers(0, len(STREAM) - context_length, 30)
    seen = STREAM[starts[:, None] + np.arange(context_length)[None, :]]
    return np.concatenate([seen, random.integers(0, VOCAB, (30, context_length))]).astype(np.int32)


class PlainNgrams:
    """Chen & Goodman's formulas as they stand there: dictionaries, loops and recursion; float64."""

    def __init__(self, stream, order, vocab_size, smoothing):
        self.smoothing, self.vocab_size, self.order = smoothing, vocab_size, order
        stream = [int(token) for token in stream]
        self.counts = {order: Counter(tuple(stream[i : i + order]) for i in range(len(stream) - order + 1))}
        by_types = isinstance(smoothing, KneserNey | ModifiedKneserNey)
        for length in range(order - 1, 0, -1):
            longer = self.counts[length + 1]
            self.counts[length] = Counter()
            for ngram, count in longer.items():
                self.counts[length][ngram[1:]] += 1 if by_types else count

    def discount(self, count, length):
        if count == 0:
            return 0.0
        n = Counter(self.counts[length].values())
        y = n[1] / (n[1] + 2 * n[2]) if n[1] else None
        if isinstance(self.smoothing, KneserNey):
            if self.smoothing.discount is not None:
                return self.smoothing.discount
            return y if n[1] and n[2] else 0.5
        if 0 in (n[1], n[2], n[3], n[4]):
            estimates = [-1]
        else:
            estimates = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
        if not all(0 <= each <= most for most, each in enumerate(estimates, 1)):
            estimates = [0.5, 1, 1.5]  # KenLM's
        return estimates[min(count, 3) - 1]

    def probability(self, token, context):
        length = len(context) + 1
        after = {ngram[-1]: c for ngram, c in self.counts[length].items() if ngram[:-1] == context}
        count, total = after.get(token, 0), sum(after.values())
        if isinstance(self.smoothing, AddK):
            return (count + self.smoothing.k) / (total + self.smoothing.k * self.vocab_size)
        shorter = self.probability(token, context[1:]) if context else 1 / self.vocab_size
        if not total:
            return shorter
        if isinstance(self.smoothing, WittenBell):
            return (count + len(after) * shorter) / (total + len(after))
        taken = sum(self.discount(c, length) for c in after.values())
        return (count - self.discount(count, length) + taken * shorter) / total


@each_table
@each_smoothing
@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_are_those_of_the_published_formulas(order, smoothing, table):
    model = CountsNgramLM(VOCAB, order - 1, smoothing, table)
    contexts = some_contexts(order - 1)
    plain = PlainNgrams(STREAM, order, VOCAB, smoothing)
    expected = [
        [plain.probability(token, tuple(context)) for token in range(VOCAB)] for context in contexts.tolist()
    ]
    found = np.exp(model.apply(fitted(model), contexts))
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@each_table
@each_smoothing
@pytest.mark.parametrize("order", [1, 2, 4])
def test_every_distribution_sums_to_one(order, smoothing, table):
    model = CountsNgramLM(VOCAB, order - 1, smoothing, table)
    sums = np.exp(model.apply(fitted(model), some_contexts(order - 1))).sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=2e-6)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_kneser_ney_is_nltks(order):
    """With its lowest order discounted into a uniform one as all others are; NLTK's own stops above that."""
    discount = 0.3

    class DiscountedToTheEnd(KneserNeyOfNltk):
        def unigram_score(self, word):
            count, total = self._continuation_counts(word)
            types = sum(self._continuation_counts(other)[0] > 0 for other in map(str, range(VOCAB)))
            return (max(count - discount, 0) + discount * types / VOCAB) / total

    words = [str(token) for token in STREAM[:200]]
    theirs = InterpolatedLanguageModel(DiscountedToTheEnd, order, params={"discount": discount, "order": order})
    theirs.fit([list(everygrams(words, max_len=order))], vocabulary_text=list(map(str, range(VOCAB))))
    model = CountsNgramLM(VOCAB, order - 1, KneserNey(discount))
    contexts = some_contexts(order - 1)
    ours = np.exp(model.apply(fitted(model, STREAM[:200]), contexts))
    for row, context in zip(ours, contexts, strict=True):
        for token in range(VOCAB):
            expected = theirs.unmasked_score(str(token), tuple(map(str, context)))
            assert row[token] == pytest.approx(expected, abs=1e-6)


def test_add_k_of_pairs_is_the_counts_bigram():
    bigram = jaxlm.CountsBigramLM(VOCAB, smoothing=0.25)
    expected = bigram.apply(bigram.fit(jaxlm.init(bigram, jax.random.key(0)), STREAM), np.arange(VOCAB))
    for table in ("dense", "sparse"):
        model = CountsNgramLM(VOCAB, 1, AddK(0.25), table)
        np.testing.assert_allclose(model.apply(fitted(model), np.arange(VOCAB)), expected, atol=1e-6)


@each_table
def test_without_smoothing_what_was_never_seen_is_impossible(table):
    model = CountsNgramLM(4, 1, AddK(0), table)
    log_probs = np.asarray(model.apply(fitted(model, [0, 1, 0, 1, 0, 2]), np.arange(4)))
    np.testing.assert_allclose(
        np.exp(log_probs), [[0, 2 / 3, 1 / 3, 0], [1, 0, 0, 0], [0] * 4, [0] * 4], atol=1e-6
    )
    assert jaxlm.perplexity(model, fitted(model, [0, 1, 0, 1, 0, 2]), [3, 3]) == math.inf


@each_table
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(3, 397), max_size=4, unique=True), seed=st.integers(0, 100))
def test_fit_of_any_pieces_in_any_order_is_the_fit_of_the_whole(table, cuts, seed):
    model = CountsNgramLM(VOCAB, 2, ModifiedKneserNey(), table)
    bounds = [2, *sorted(cuts), len(STREAM)]
    # Each piece begins with the two tokens before it.
    pieces = [STREAM[begin - 2 : end] for begin, end in itertools.pairwise(bounds)]
    variables = jaxlm.init(model, jax.random.key(0))
    for index in np.random.default_rng(seed).permutation(len(pieces)):
        variables = model.fit(variables, pieces[index])
    whole = fitted(model)
    assert jax.tree.structure(variables) == jax.tree.structure(whole)
    for leaf, twin in zip(jax.tree.leaves(variables), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(leaf, twin)


def test_fit_leaves_its_argument_as_it_was():
    model = CountsNgramLM(VOCAB, 1, table="sparse")
    variables = fitted(model)
    before = jax.tree.map(np.array, variables)
    model.fit(variables, STREAM[:50])
    jax.tree.map(np.testing.assert_array_equal, before, variables)


@each_table
@each_smoothing
def test_targets_are_scored_as_by_the_whole_distribution(smoothing, table):
    model = CountsNgramLM(VOCAB, 3, smoothing, table)
    variables = fitted(model)
    windows = np.lib.stride_tricks.sliding_window_view(np.random.default_rng(3).integers(0, VOCAB, 300), 4)
    contexts, targets = windows[:, :3], windows[:, 3]
    score = jax.jit(lambda rows, targets: model.target_log_probs(variables, contexts)(rows, targets))
    rows = np.random.default_rng(4).permutation(len(contexts))
    expected = np.asarray(model.apply(variables, contexts))[rows, targets[rows]]
    np.testing.assert_allclose(score(rows, targets[rows]), expected, rtol=1e-5)


def test_a_fresh_table_is_uniform():
    for table in ("dense", "sparse"):
        model = CountsNgramLM(VOCAB, 2, ModifiedKneserNey(), table)
        assert jaxlm.perplexity(model, jaxlm.init(model, jax.random.key(0)), STREAM) == pytest.approx(VOCAB)


def test_samples_follow_the_counts():
    """After 0 comes 1, after 1 comes 2, after 2 comes 0: with hardly anything left for the others."""
    for table in ("dense", "sparse"):
        model = CountsNgramLM(3, 1, KneserNey(0.001), table)
        variables = fitted(model, np.arange(300) % 3)
        drawn = jaxlm.sample(model, variables, [0], 50, key=jax.random.key(0))
        np.testing.assert_array_equal(drawn, np.arange(51) % 3)


def test_auto_is_dense_where_the_table_is_small():
    assert CountsNgramLM(27, 3).is_dense
    assert not CountsNgramLM(4096, 1).is_dense
    assert not CountsNgramLM(27, 4).is_dense


def test_a_text_too_small_for_estimates_falls_back_with_a_warning(caplog):
    model = CountsNgramLM(3, 1, ModifiedKneserNey())
    jaxlm.init(model, jax.random.key(0))
    assert not caplog.text  # an empty table is no text
    variables = fitted(model, [0, 1, 2, 0, 1, 2])
    assert "order 2: no n-gram has a count of 3; it takes 0.5, 1.0, 1.5" in caplog.text
    assert np.isfinite(model.apply(variables, [[0], [1], [2]])).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 6), "context_length must be at most 5, got 6"),
        ((5, -1), "context_length must be at least 0, got -1"),
        ((0, 1), "vocab_size must be at least 1"),
        ((5, 1, KneserNey(), "huge"), "table must be auto, dense or sparse, got 'huge'"),
        (
            (4096, 2, KneserNey(), "dense"),
            r"V\^3 = 68,719,476,736 cells needs 549,755,813,888 bytes; use table='sparse'",
        ),
    ],
)
def test_what_cannot_be_is_a_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        CountsNgramLM(*arguments)


def test_smoothing_is_one_of_the_four():
    with pytest.raises(TypeError, match=r"smoothing must be AddK\(k\).*got 1.0"):
        CountsNgramLM(5, 1, 1.0)
    with pytest.raises(ValueError, match="AddK: k must be finite and at least 0, got -1"):
        AddK(-1)
    with pytest.raises(ValueError, match=r"KneserNey: discount must lie in 0\.\.1, got 1.5"):
        KneserNey(1.5)


def test_bad_ids_are_errors():
    model = CountsNgramLM(VOCAB, 2)
    variables = jaxlm.init(model, jax.random.key(0))
    with pytest.raises(ValueError, match=r"12 is outside 0\.\.11"):
        model.fit(variables, [0, 1, 12])
    with pytest.raises(ValueError, match="2 tokens are too few"):
        model.fit(variables, [0, 1])
    with pytest.raises(TypeError):
        model.fit(variables, [0.0, 1.0, 2.0])


def test_variables_of_another_model_are_an_error():
    dense, sparse = (fitted(CountsNgramLM(VOCAB, 2, table=table)) for table in ("dense", "sparse"))
    with pytest.raises(ValueError, match="another model's"):
        CountsNgramLM(VOCAB, 2, table="sparse").fit(dense, STREAM)
    with pytest.raises(ValueError, match="another model's"):
        CountsNgramLM(VOCAB, 3, table="sparse").fit(sparse, STREAM)


@functools.cache
def split_of(tokenizer, text):
    return jaxlm.split_ids(tokenizer.encode(text))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "smoothing", "at_most", "kenlm"),
    [(2, KneserNey(), 126, None), (2, ModifiedKneserNey(), 124, 123), (3, ModifiedKneserNey(), 104, 102.6)],
    ids=str,
)
def test_perplexity_on_tiny_shakespeare_is_kenlms(classic_shakespeare, order, smoothing, at_most, kenlm):
    tokenizer = jaxlm.BPETokenizer.train(classic_shakespeare, 4096)
    train_ids, val_ids = split_of(tokenizer, classic_shakespeare)
    model = CountsNgramLM(4096, order - 1, smoothing)
    perplexity = jaxlm.perplexity(model, fitted(model, train_ids), val_ids)
    assert perplexity <= at_most
    if kenlm is not None:
        assert perplexity == pytest.approx(kenlm, rel=0.01)


@pytest.mark.slow
def test_characters_at_order_five_are_kenlms(classic_shakespeare):
    tokenizer = jaxlm.CharTokenizer.train(classic_shakespeare)
    train_ids, val_ids = split_of(tokenizer, classic_shakespeare)
    model = CountsNgramLM(tokenizer.vocab_size, 4)
    assert jaxlm.perplexity(model, fitted(model, train_ids), val_ids) == pytest.approx(4.76, rel=0.002)
