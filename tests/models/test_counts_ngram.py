"""N-gram counts against the published formulas in plain Python, and NLTK."""

import itertools
import math
from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jaxlm
from jaxlm import AddK, CountsNgramLM, KneserNey, ModifiedKneserNey, WittenBell

VOCAB = 12
ZIPF = (1 / np.arange(1, VOCAB + 1) ** 2) / (1 / np.arange(1, VOCAB + 1) ** 2).sum()
STREAM = np.random.default_rng(0).choice(VOCAB, 400, p=ZIPF)
SMOOTHINGS = [AddK(1.0), AddK(0.01), WittenBell(), KneserNey(), KneserNey(0.4), ModifiedKneserNey()]


def fitted(model, ids=STREAM):
    return model.fit(jaxlm.init(model, jax.random.key(0)), ids)


def some_contexts(context_length):
    """Half of the contexts are from the stream, half are random."""
    random = np.random.default_rng(1)
    starts = random.integers(0, len(STREAM) - context_length, 30)
    seen = STREAM[starts[:, None] + np.arange(context_length)[None, :]]
    return np.concatenate([seen, random.integers(0, VOCAB, (30, context_length))]).astype(np.int32)


class PlainNgrams:
    """Chen & Goodman's formulas with dictionaries and recursion, in float64."""

    def __init__(self, stream, order, vocab_size, smoothing):
        self.smoothing, self.vocab_size, self.order = smoothing, vocab_size, order
        stream = [int(token) for token in stream]
        self.counts = {order: Counter(tuple(stream[i : i + order]) for i in range(len(stream) - order + 1))}
        by_types = isinstance(smoothing, KneserNey | ModifiedKneserNey)
        for length in range(order - 1, 0, -1):
            self.counts[length] = Counter()
            for ngram, count in self.counts[length + 1].items():
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
        mass = sum(self.discount(c, length) for c in after.values())
        return (count - self.discount(count, length) + mass * shorter) / total


@pytest.mark.parametrize("smoothing", SMOOTHINGS, ids=str)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_are_those_of_the_published_formulas(order, smoothing):
    model = CountsNgramLM(VOCAB, order - 1, smoothing)
    contexts = some_contexts(order - 1)
    plain = PlainNgrams(STREAM, order, VOCAB, smoothing)
    expected = np.array(
        [[plain.probability(token, tuple(context)) for token in range(VOCAB)] for context in contexts.tolist()]
    )
    np.testing.assert_allclose(expected.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(model.apply(fitted(model), contexts)), expected, rtol=2e-6)


def test_target_log_probs_are_those_of_apply():
    model = CountsNgramLM(VOCAB, 2, WittenBell())
    variables, contexts = fitted(model), some_contexts(2)
    expected = np.asarray(model.apply(variables, contexts))
    rows, targets = (index.reshape(-1) for index in np.indices(expected.shape))
    log_probs = jax.jit(lambda variables: model.target_log_probs(variables, contexts)(rows, targets))(variables)
    np.testing.assert_allclose(log_probs, expected.reshape(-1), rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("order", [2, 3, 4])
def test_kneser_ney_equals_nltk(order):
    """NLTK does not discount unigrams; this subclass interpolates them with the uniform distribution too."""
    from nltk import lm  # takes a second
    from nltk.util import everygrams

    discount = 0.3

    class DiscountedUnigrams(lm.smoothing.KneserNey):
        def unigram_score(self, word):
            count, total = self._continuation_counts(word)
            types = sum(self._continuation_counts(other)[0] > 0 for other in map(str, range(VOCAB)))
            return (max(count - discount, 0) + discount * types / VOCAB) / total

    words = [str(token) for token in STREAM[:200]]
    theirs = lm.models.InterpolatedLanguageModel(
        DiscountedUnigrams, order, params={"discount": discount, "order": order}
    )
    theirs.fit([list(everygrams(words, max_len=order))], vocabulary_text=list(map(str, range(VOCAB))))
    model = CountsNgramLM(VOCAB, order - 1, KneserNey(discount))
    contexts = some_contexts(order - 1)
    ours = np.exp(model.apply(fitted(model, STREAM[:200]), contexts))
    for row, context in list(zip(ours, contexts, strict=True))[::6]:
        expected = [theirs.unmasked_score(str(token), tuple(map(str, context))) for token in range(VOCAB)]
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_without_smoothing_the_unseen_is_impossible():
    model = CountsNgramLM(4, 1, AddK(0))
    variables = fitted(model, [0, 1, 0, 1, 0, 2])
    log_probs = jax.jit(model.apply)(variables, np.arange(4))
    np.testing.assert_allclose(
        np.exp(log_probs), [[0, 2 / 3, 1 / 3, 0], [1, 0, 0, 0], [0] * 4, [0] * 4], atol=1e-6
    )


def test_a_fresh_table_is_uniform(fresh_perplexity):
    assert fresh_perplexity(CountsNgramLM(VOCAB, 2)) == pytest.approx(VOCAB)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(3, 397), max_size=4, unique=True), seed=st.integers(0, 100))
def test_fit_of_pieces_in_any_order_equals_fit_of_the_whole(cuts, seed):
    model = CountsNgramLM(VOCAB, 2, ModifiedKneserNey())
    bounds = [2, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[begin - 2 : end] for begin, end in itertools.pairwise(bounds)]
    variables = jaxlm.init(model, jax.random.key(0))
    for index in np.random.default_rng(seed).permutation(len(pieces)):
        variables = model.fit(variables, pieces[index])
    whole = fitted(model)
    assert jax.tree.structure(variables) == jax.tree.structure(whole)
    jax.tree.map(np.testing.assert_array_equal, variables, whole)


def test_fit_leaves_its_argument_unchanged():
    model = CountsNgramLM(VOCAB, 1)
    variables = fitted(model)
    before = jax.tree.map(np.array, variables)
    model.fit(variables, STREAM[:50])
    jax.tree.map(np.testing.assert_array_equal, before, variables)


def test_variables_of_inverts_ngrams_of():
    model = CountsNgramLM(VOCAB, 2)
    variables = fitted(model)
    ngrams, counts = model.ngrams_of(variables)
    expected = Counter(tuple(STREAM[i : i + 3].tolist()) for i in range(len(STREAM) - 2))
    assert dict(zip(map(tuple, ngrams.tolist()), counts.tolist(), strict=True)) == expected
    assert ngrams.tolist() == sorted(ngrams.tolist(), key=lambda w: [*w[-2::-1], w[-1]])
    # In another order, and with one n-gram in two parts.
    ngrams = np.concatenate([ngrams[::-1], ngrams[:1]])
    counts = np.append(counts[::-1], 1)
    counts[len(counts) - 2] -= 1
    counts, ngrams = counts[counts > 0], ngrams[counts > 0]
    jax.tree.map(np.testing.assert_array_equal, model.variables_of(ngrams, counts), variables)


@pytest.mark.parametrize(
    ("ngrams", "counts", "error", "message"),
    [
        ([[0.0, 1.0]], [1], TypeError, "must be integers, got float64 and int64"),
        ([[0, 1, 2]], [1], ValueError, r"\[M, 2\] and counts \[M\], got \[1, 3\] and \[1\]"),
        ([[0, 1]], [1, 1], ValueError, r"got \[1, 2\] and \[2\]"),
        ([[0, 4]], [1], ValueError, r"4 is outside 0\.\.3"),
        ([[0, 1]], [0], ValueError, "must be at least 1, got 0"),
        ([[0, 1], [0, 1]], [2**31 - 1, 1], ValueError, f"count is {2**31}, above the int32 limit"),
    ],
)
def test_variables_of_rejects(ngrams, counts, error, message):
    with pytest.raises(error, match=message):
        CountsNgramLM(4, 1).variables_of(np.array(ngrams), np.array(counts))


def test_a_float_means_add_k():
    for k in (0.5, np.float32(0.5)):
        model = CountsNgramLM(VOCAB, 1, k)
        assert model == CountsNgramLM(VOCAB, 1, AddK(0.5))
        assert hash(model) == hash(CountsNgramLM(VOCAB, 1, AddK(0.5)))


class LoggingKneserNey(KneserNey):
    """A problem is logged once per process; with this name, no other test has logged it before."""


class LoggingModifiedKneserNey(ModifiedKneserNey):
    """See `LoggingKneserNey`."""


def test_a_text_too_small_for_estimates_logs_a_warning(caplog):
    model = CountsNgramLM(3, 1, LoggingModifiedKneserNey())
    jaxlm.init(model, jax.random.key(0))
    assert not caplog.text
    fitted(model, [0, 1, 2, 0, 1, 2])
    assert "discounts for order 2: the text is too small or too regular; using 0.5, 1.0, 1.5" in caplog.text


def test_fit_in_pieces_logs_each_order_once(caplog):
    """After [0, 1], n_2 is 0; after [0, 1, 1] the estimate is 1 / 3; after [0, 1, 1, 0], n_1 is 0."""
    model = CountsNgramLM(2, 0, LoggingKneserNey())
    variables = jaxlm.init(model, jax.random.key(0))
    for piece in ([0], [1], [1], [0], [0, 1]):
        variables = model.fit(variables, piece)
    assert len(caplog.records) == 1
    assert "discounts for order 1: the text is too small or too regular; using 0.5, 0.5, 0.5" in caplog.text


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: CountsNgramLM(5, 6), ValueError, "context_length must be at most 5, got 6"),
        (lambda: CountsNgramLM(5, -1), ValueError, "context_length must be at least 0, got -1"),
        (lambda: CountsNgramLM(0, 1), ValueError, "vocab_size must be at least 1"),
        (lambda: CountsNgramLM(5, 1, "1.0"), TypeError, r"smoothing must be a float, AddK\(k\).*got '1.0'"),
        (lambda: CountsNgramLM(5, 1, -1), ValueError, r"AddK: k must be 0 or in \[1e-30, 1e30\], got -1"),
        (lambda: AddK("1"), TypeError, "AddK: k must be a number, got '1'"),
        (lambda: AddK(-1), ValueError, r"AddK: k must be 0 or in \[1e-30, 1e30\], got -1"),
        (lambda: AddK(1e-50), ValueError, "AddK: k must be 0 or in .*got 1e-50"),
        (lambda: AddK(math.inf), ValueError, "AddK: k must be 0 or in .*got inf"),
        (lambda: KneserNey(1.5), ValueError, r"KneserNey: discount must be in \[0, 1\], got 1.5"),
        (lambda: KneserNey(-0.1), ValueError, r"KneserNey: discount must be in \[0, 1\], got -0.1"),
    ],
)
def test_hyperparameters_out_of_range_are_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([0, 1, 12], ValueError, "12 "),
        ([0, 1], ValueError, "at least 3 tokens.*got 2"),
        ([0.0, 1.0, 2.0], TypeError, "float64"),
    ],
)
def test_fit_rejects_wrong_ids(ids, error, message):
    model = CountsNgramLM(VOCAB, 2)
    with pytest.raises(error, match=message):
        fitted(model, ids)


def test_fit_rejects_variables_of_another_model():
    with pytest.raises(ValueError, match="belong to a different model"):
        CountsNgramLM(VOCAB, 3).fit(fitted(CountsNgramLM(VOCAB, 2)), STREAM)


def test_ngram_counts_with_numpy_sizes():
    counts = jaxlm.count_ngrams([3, 1, 3, 1], order=2, vocab_size=np.int64(4))
    assert counts.vocab_size.__class__ is int
    assert counts.ngrams().tolist() == [[1, 3], [3, 1]]
    assert jaxlm.init(jaxlm.CountsNgramLM(np.int64(4), 1), jax.random.key(0))["counts"].sum() == 0
