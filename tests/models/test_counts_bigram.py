"""The counts bigram against three lines of Python, hand arithmetic and published numbers."""

import copy
import dataclasses
import math
from collections import Counter
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxlm import CountsBigramLM, evaluate, init, perplexity
from jaxlm.models import counts_bigram
from jaxlm.models.counts_bigram import best_smoothing

MAX_COUNT = 2**31 - 1
IDS = [0, 1, 1, 3, 0, 1, 2, 0, 1]  # V = 5; 4 is never seen; row 1 holds 1 -> 1, 1 -> 3, 1 -> 2 once each

streams = st.lists(st.integers(0, 3), min_size=0, max_size=8)
few_examples = settings(max_examples=20, deadline=None)


def count_pairs(ids, vocab_size):
    table = np.zeros((vocab_size, vocab_size), np.int64)
    for context, successor in pairwise(ids):
        table[context, successor] += 1
    return table


def fitted(ids, vocab_size, smoothing=1.0):
    model = CountsBigramLM(vocab_size, smoothing)
    return model, model.fit(init(model, jax.random.key(0)), np.asarray(ids, np.int32))


def table_of(variables):
    return np.asarray(variables["counts"]["table"])


def with_count(count):
    table = np.zeros((3, 3), np.int32)
    table[1, 2] = count
    return {"counts": {"table": jnp.asarray(table)}}


def char_ids(text):
    characters, ids = np.unique(np.frombuffer(text.encode("utf-32-le"), np.uint32), return_inverse=True)
    return ids, len(characters)


@pytest.mark.course
def test_hyperparameters_are_kept():
    model = CountsBigramLM(vocab_size=27, smoothing=0.5)
    assert (model.vocab_size, model.smoothing, model.context_length) == (27, 0.5, 1)
    assert CountsBigramLM(27).smoothing == 1.0


@pytest.mark.course
def test_variables_are_one_table_of_zeros():
    variables = init(CountsBigramLM(5), jax.random.key(0))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables) == {
        "counts": {"table": ((5, 5), jnp.int32)}
    }
    assert not table_of(variables).any()


@pytest.mark.course
def test_models_are_hashable_and_equal_by_their_hyperparameters():
    assert CountsBigramLM(5) == CountsBigramLM(5, 1.0)
    assert hash(CountsBigramLM(5)) == hash(CountsBigramLM(5, 1.0))
    assert len({CountsBigramLM(5), CountsBigramLM(5), CountsBigramLM(6), CountsBigramLM(5, 0.5)}) == 3


@pytest.mark.parametrize("field", ["vocab_size", "smoothing"])
def test_hyperparameters_are_frozen(field):
    model = CountsBigramLM(5)
    with pytest.raises(Exception, match=r"(?i)frozen|cannot assign"):
        setattr(model, field, 2)
    assert model == CountsBigramLM(5)


@pytest.mark.course
def test_fresh_model_is_uniform():
    model = CountsBigramLM(65)
    ids = np.random.default_rng(0).integers(0, 65, 500)
    assert perplexity(model, init(model, jax.random.key(0)), ids) == pytest.approx(65, rel=1e-5)


@pytest.mark.parametrize("smoothing", [-1, -1e-9, float("inf"), float("nan")])
def test_smoothing_must_be_finite_and_not_negative(smoothing):
    with pytest.raises(ValueError, match=f"smoothing .*got {smoothing}"):
        CountsBigramLM(5, smoothing)


@pytest.mark.course
def test_fit_counts_every_pair():
    ids = np.random.default_rng(0).integers(0, 11, 5000)
    _, variables = fitted(ids, 11)
    np.testing.assert_array_equal(table_of(variables), count_pairs(ids, 11))
    assert table_of(variables).dtype == np.int32


@pytest.mark.course
def test_fit_again_adds_to_the_table():
    model, variables = fitted(IDS, 5)
    variables = model.fit(variables, np.array([4, 4, 0]))
    np.testing.assert_array_equal(table_of(variables), count_pairs(IDS, 5) + count_pairs([4, 4, 0], 5))


@pytest.mark.course
@pytest.mark.parametrize("length", [0, 1, 2, 3, 100])
def test_fit_of_n_ids_makes_n_minus_1_pairs(length):
    _, variables = fitted(np.zeros(length), 2)
    assert table_of(variables).sum() == max(length - 1, 0)


@pytest.mark.course
def test_fit_is_pure_apart_from_donation():
    model = CountsBigramLM(5)
    before = {"counts": {"table": np.arange(25, dtype=np.int32).reshape(5, 5)}, "kept": {"note": 7}}
    given_variables, ids = copy.deepcopy(before), np.array(IDS)
    first = model.fit(given_variables, ids)
    np.testing.assert_equal(given_variables, before)
    np.testing.assert_array_equal(ids, IDS)
    again = model.fit(copy.deepcopy(before), ids)
    np.testing.assert_array_equal(table_of(first), table_of(again))
    assert first["kept"] == before["kept"]


@pytest.mark.course
@pytest.mark.parametrize("module", [np, jnp])
@pytest.mark.parametrize("worst", [5, -1, 70])
def test_fit_of_an_id_out_of_range_is_an_error(module, worst):
    model, variables = fitted(IDS, 5)
    with pytest.raises(ValueError, match=rf"ids: {worst} is outside 0\.\.4.*vocab_size=5"):
        model.fit(variables, module.array([0, worst, 4]))
    np.testing.assert_array_equal(table_of(variables), count_pairs(IDS, 5))


@pytest.mark.parametrize("ids", [np.array(IDS, np.int64), np.array(IDS, np.uint16), jnp.array(IDS), IDS])
def test_fit_takes_every_kind_of_integers(ids):
    model = CountsBigramLM(5)
    variables = model.fit(init(model, jax.random.key(0)), ids)
    np.testing.assert_array_equal(table_of(variables), count_pairs(IDS, 5))


def test_fit_of_floats_is_a_type_error():
    model, variables = fitted(IDS, 5)
    with pytest.raises(TypeError, match="integers, got float32"):
        model.fit(variables, jnp.array([0.0, 1.0]))


def test_fit_of_a_batch_is_an_error():
    model, variables = fitted(IDS, 5)
    with pytest.raises(ValueError, match=r"shape \[2, 3\]"):
        model.fit(variables, np.zeros((2, 3), np.int32))


def test_fit_of_another_models_table_is_an_error():
    """Unchecked, the scatter would write past the end of the smaller table."""
    with pytest.raises(ValueError, match=r"\[5, 5\].*\[4, 4\]|\[4, 4\].*\[5, 5\]"):
        CountsBigramLM(5).fit(init(CountsBigramLM(4), jax.random.key(0)), np.array([4, 4]))


def test_fit_copies_nothing_to_the_device_unasked():
    model, variables = fitted(IDS, 5)
    with jax.transfer_guard("disallow"):
        model.fit(variables, np.array(IDS))


def test_fit_reaches_the_int32_limit():
    model, variables = CountsBigramLM(3), with_count(MAX_COUNT - 2)
    variables = model.fit(model.fit(variables, np.array([1, 2])), np.array([1, 2]))
    assert table_of(variables)[1, 2] == MAX_COUNT


@pytest.mark.parametrize(("count", "ids"), [(MAX_COUNT, [1, 2]), (MAX_COUNT - 1, [1, 2, 1, 2])])
def test_fit_past_the_int32_limit_is_an_error_and_loses_nothing(count, ids):
    model, variables = CountsBigramLM(3), with_count(count)
    with pytest.raises(ValueError, match=rf"count is {count}: {len(ids) - 1} more .*{MAX_COUNT}"):
        model.fit(variables, np.array(ids))
    assert table_of(variables)[1, 2] == count
    assert np.isfinite(model.apply(variables, jnp.array([1]))).all()


@pytest.mark.parametrize("count", [MAX_COUNT, MAX_COUNT - 1])
def test_the_limit_of_a_short_text_is_that_of_its_pairs(count):
    """Of a large table only the counts that the text adds to are looked at."""
    table = np.zeros((50, 50), np.int32)
    table[1, 2] = count
    model = CountsBigramLM(50)
    variables = model.fit({"counts": {"table": jnp.asarray(table)}}, np.array([2, 1, 3]))
    assert table_of(variables)[1, 2] == count
    with pytest.raises(ValueError, match=f"count is {count}: 2 more .*{MAX_COUNT}"):
        model.fit(variables, np.array([0, 1, 2]))


def test_fit_again_compiles_nothing(caplog):
    model, variables = fitted(IDS, 5)
    with jax.log_compiles():
        variables = model.fit(variables, np.array(IDS))
        model.fit(variables, np.array([*IDS, 0]))  # a text of another length neither
        assert "Compiling" not in caplog.text
        counts_bigram.add_pairs.clear_cache()
        fitted(IDS, 6)
    assert "Compiling" in caplog.text


@pytest.mark.course
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_logits_shape(shape):
    model, variables = fitted(IDS, 5)
    contexts = np.array([1, 0, 2]).reshape(shape)
    logits = model.apply(variables, contexts)
    assert (logits.shape, logits.dtype) == ((3, 5), jnp.float32)
    np.testing.assert_array_equal(logits[1], model.apply(variables, np.array([0]))[0])


@pytest.mark.course
@pytest.mark.parametrize("smoothing", [1.0, 0.01, 100.0])
def test_logits_are_log_probabilities(smoothing):
    model, variables = fitted(IDS, 5, smoothing)
    probabilities = np.exp(np.asarray(model.apply(variables, np.arange(5)), np.float64))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.course
def test_logits_are_add_k_smoothed_counts():
    """Row 1 was followed once each by 1, 2 and 3: (1 + 0.5) / (3 + 2.5) for those, 0.5 / 5.5 for 0 and 4."""
    model, variables = fitted(IDS, 5, smoothing=0.5)
    expected = [0.5 / 5.5, 1.5 / 5.5, 1.5 / 5.5, 1.5 / 5.5, 0.5 / 5.5]
    np.testing.assert_allclose(np.exp(model.apply(variables, np.array([1]))[0]), expected, rtol=1e-6)


@pytest.mark.course
def test_logits_without_smoothing_are_minus_inf_for_the_unseen():
    model, variables = fitted(IDS, 5, smoothing=0)
    expected = [-np.inf, math.log(1 / 3), math.log(1 / 3), math.log(1 / 3), -np.inf]
    np.testing.assert_allclose(model.apply(variables, np.array([1]))[0], expected, rtol=1e-6)
    assert perplexity(model, variables, np.array([0, 1, 0])) == math.inf


@pytest.mark.course
def test_logits_of_an_unseen_row():
    """Smoothed, it is uniform; without smoothing nothing is possible, and nothing is NaN."""
    model, variables = fitted(IDS, 5, smoothing=0.1)
    np.testing.assert_allclose(model.apply(variables, np.array([4])), np.full((1, 5), math.log(1 / 5)), rtol=1e-6)
    model = dataclasses.replace(model, smoothing=0)
    np.testing.assert_array_equal(model.apply(variables, np.array([4])), np.full((1, 5), -np.inf))
    assert perplexity(model, variables, np.array([4, 0])) == math.inf


@pytest.mark.course
def test_logits_is_the_same_as_call():
    model, variables = fitted(IDS, 5)
    contexts = np.array([[0], [4]])
    np.testing.assert_array_equal(
        model.apply(variables, contexts, method=model.logits), model.apply(variables, contexts)
    )
    np.testing.assert_array_equal(
        model.bind(variables).logits(contexts), model.apply(variables, contexts, method="__call__")
    )


def test_logits_of_another_shape_are_an_error():
    model, variables = fitted(IDS, 5)
    with pytest.raises(ValueError, match=r"shape \[B, 1\] or \[B\], got \[3, 2\]"):
        model.apply(variables, np.zeros((3, 2), np.int32))


def test_logits_of_counts_whose_sum_passes_int32():
    table = np.full((2, 2), MAX_COUNT, np.int32)
    logits = CountsBigramLM(2).apply({"counts": {"table": table}}, np.array([0]))
    np.testing.assert_allclose(np.exp(logits), [[0.5, 0.5]], rtol=1e-6)


@few_examples
@given(streams, streams)
def test_fit_of_two_joined_pieces_is_fit_of_the_whole(first, second):
    model, variables = fitted(first, 4)
    joined = model.fit(variables, np.array(first[-1:] + second, np.int32))
    np.testing.assert_array_equal(table_of(joined), count_pairs(first + second, 4))


@few_examples
@given(st.integers(2, 40), st.integers(0, 1000), st.integers(0, 2**32 - 1))
def test_fit_is_a_loop_over_the_pairs(vocab_size, length, seed):
    ids = np.random.default_rng(seed).zipf(1.5, length) % vocab_size
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(counts_bigram, "_PAIRS_PER_CALL", 128)  # so that there are several pieces
        _, variables = fitted(ids, vocab_size)
    np.testing.assert_array_equal(table_of(variables), count_pairs(ids, vocab_size))


def test_a_text_longer_than_one_compiled_call():
    ids = np.random.default_rng(0).integers(0, 3, 2 * counts_bigram._PAIRS_PER_CALL + 2)
    _, variables = fitted(ids, 3)
    expected = np.zeros((3, 3), np.int64)
    np.add.at(expected, (ids[:-1], ids[1:]), 1)
    np.testing.assert_array_equal(table_of(variables), expected)


def test_memory_is_the_table_and_one_piece():
    """The table is donated and added to in place; beside it there are the keys of one piece, not of the text."""
    table = jnp.zeros((1000, 1000), jnp.int32)
    piece = jnp.zeros(counts_bigram._PAIRS_PER_CALL + 1, jnp.int32)
    memory = counts_bigram.add_pairs.lower(table, piece, 1).compile().memory_analysis()
    assert memory.alias_size_in_bytes == table.nbytes
    assert memory.temp_size_in_bytes <= 4 * piece.nbytes
    sizes = set()
    counted = counts_bigram.add_pairs
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            counts_bigram, "add_pairs", lambda *arguments: sizes.add(arguments[1].size) or counted(*arguments)
        )
        fitted(np.zeros(1_000_000, np.int32), 5)
    assert sizes == {piece.size}


@few_examples
@given(st.lists(streams, max_size=4), st.randoms(use_true_random=False))
def test_fit_does_not_mind_the_order_of_pieces(pieces, random):
    model = CountsBigramLM(4)
    tables = []
    for _ in range(2):
        variables = init(model, jax.random.key(0))
        for piece in pieces:
            variables = model.fit(variables, np.array(piece, np.int32))
        tables.append(table_of(variables))
        random.shuffle(pieces)
    np.testing.assert_array_equal(tables[0], tables[1])
    np.testing.assert_array_equal(tables[0], sum((count_pairs(piece, 4) for piece in pieces), np.zeros((4, 4))))


@few_examples
@given(st.lists(st.integers(0, 3), min_size=6, max_size=8), st.permutations(range(4)))
def test_permuting_ids_permutes_the_table_and_keeps_the_perplexity(ids, permutation):
    permutation = np.array(permutation)
    model, variables = fitted(ids, 4, smoothing=0.5)
    _, permuted = fitted(permutation[ids], 4)
    np.testing.assert_array_equal(table_of(permuted)[np.ix_(permutation, permutation)], table_of(variables))
    assert perplexity(model, permuted, permutation[ids]) == pytest.approx(
        perplexity(model, variables, np.array(ids)), rel=1e-6
    )


def test_fit_jitted_is_fit_unjitted():
    with jax.disable_jit():
        _, unjitted = fitted(IDS, 5)
    _, jitted = fitted(IDS, 5)
    np.testing.assert_array_equal(table_of(jitted), table_of(unjitted))


def test_maximum_likelihood_perplexity_on_its_own_text():
    """exp of -sum of c(v, w) log(c(v, w) / c(v)), over the number of pairs."""
    ids = np.random.default_rng(1).choice(6, size=400, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    pairs, contexts = Counter(pairwise(ids)), Counter(ids[:-1])
    nats = -sum(count * math.log(count / contexts[context]) for (context, _), count in pairs.items())
    model, variables = fitted(ids, 6, smoothing=0)
    assert perplexity(model, variables, ids) == pytest.approx(math.exp(nats / 399), rel=1e-6)


@pytest.mark.parametrize(("smoothing", "nats"), [(0, 2.4540), (1, 2.4546)])
def test_names_give_the_published_nats(names, smoothing, nats):
    """Every name between two ends; one newline ends a name and begins the next, so no pair is of two names."""
    ids, vocab_size = char_ids("\n" + names.strip() + "\n")
    assert vocab_size == 27
    evaluation = evaluate(*fitted(ids, vocab_size, smoothing), ids)
    assert evaluation.num_tokens == 228_146
    assert evaluation.nats_per_token == pytest.approx(nats, abs=5e-5)


def test_classic_shakespeare_by_characters(classic_shakespeare):
    ids, vocab_size = char_ids(classic_shakespeare)
    num_train = int(len(ids) * 0.9)
    model, variables = fitted(ids[:num_train], vocab_size)
    np.testing.assert_array_equal(
        table_of(variables).reshape(-1),
        np.bincount(ids[: num_train - 1] * vocab_size + ids[1:num_train], minlength=vocab_size**2),
    )
    assert perplexity(model, variables, ids[num_train:]) == pytest.approx(11.96, abs=0.05)


def test_best_smoothing_is_the_candidate_with_the_lowest_nats():
    random = np.random.default_rng(2)
    train_ids, held_out_ids = random.integers(0, 6, 60) % 5, random.integers(0, 6, 80)
    model, variables = fitted(train_ids, 6)
    candidates = [100.0, 0.3, 0.001]
    nats = [
        evaluate(dataclasses.replace(model, smoothing=k), variables, held_out_ids).nats_per_token
        for k in candidates
    ]
    smoothing, lowest = best_smoothing(variables["counts"]["table"], held_out_ids, candidates)
    assert smoothing == candidates[int(np.argmin(nats))]
    assert lowest == pytest.approx(min(nats), rel=1e-6)
    for candidate, expected in zip(candidates, nats, strict=True):
        assert best_smoothing(table_of(variables), held_out_ids, [candidate]) == (
            candidate,
            pytest.approx(expected, rel=1e-6),
        )


def test_best_smoothing_of_counts_whose_sum_passes_int32():
    table = np.full((2, 2), MAX_COUNT, np.int32)
    assert best_smoothing(table, [0, 1], [1.0]) == (1.0, pytest.approx(math.log(2)))


@pytest.mark.parametrize("candidates", [[], [0.0], [1.0, -1.0], [float("nan")], [float("inf")], 0.5])
def test_best_smoothing_wants_positive_candidates(candidates):
    with pytest.raises(ValueError, match="candidates must be positive"):
        best_smoothing(np.ones((2, 2), np.int32), [0, 1], candidates)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([0, 2], ValueError, r"held_out_ids: 2 is outside 0\.\.1"),
        ([0], ValueError, "held_out_ids: 1 tokens"),
        ([0.0, 1.0], TypeError, "held_out_ids must be integers"),
    ],
)
def test_best_smoothing_checks_its_ids(ids, error, message):
    with pytest.raises(error, match=message):
        best_smoothing(np.ones((2, 2), np.int32), ids, [1.0])
