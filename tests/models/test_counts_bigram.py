"""The counts bigram against a loop over pairs, hand arithmetic and published numbers."""

import dataclasses
import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import CountsBigramLM, evaluate, init, perplexity
from jaxlm.models.counts_bigram import PAIRS_PER_CALL, add_pairs

MAX_COUNT = 2**31 - 1
IDS = [0, 1, 1, 3, 0, 1, 2, 0, 1]  # V = 5; 4 is never seen; row 1 holds 1 -> 1, 1 -> 3, 1 -> 2 once each


def count_pairs(ids, vocab_size):
    table = np.zeros((vocab_size, vocab_size), np.int64)
    for context, successor in pairwise(ids):
        table[context, successor] += 1
    return table


def fitted(ids, vocab_size=5, smoothing=1.0):
    model = CountsBigramLM(vocab_size, smoothing)
    return model, model.fit(init(model, jax.random.key(0)), np.asarray(ids, np.int32))


def table_of(variables):
    return np.asarray(variables["counts"]["table"])


def with_count(count, vocab_size=5):
    table = np.zeros((vocab_size, vocab_size), np.int32)
    table[1, 2] = count
    return {"counts": {"table": jnp.asarray(table)}}


@pytest.mark.course
def test_hyperparameters_are_stored():
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
def test_models_with_equal_hyperparameters_are_equal():
    assert CountsBigramLM(5) == CountsBigramLM(5, 1.0)
    assert hash(CountsBigramLM(5)) == hash(CountsBigramLM(5, 1.0))
    assert len({CountsBigramLM(5), CountsBigramLM(5), CountsBigramLM(6), CountsBigramLM(5, 0.5)}) == 3


@pytest.mark.course
def test_fresh_model_is_uniform(fresh_perplexity):
    assert fresh_perplexity(CountsBigramLM(65)) == pytest.approx(65, rel=1e-5)


@pytest.mark.parametrize("smoothing", [-1, -1e-9, 1e-31, 1e31, float("inf"), float("nan")])
def test_smoothing_must_be_in_its_range(smoothing):
    with pytest.raises(ValueError, match=rf"smoothing must be 0 or in .*got {smoothing}".replace("+", r"\+")):
        CountsBigramLM(5, smoothing)


@pytest.mark.course
def test_fit_counts_every_pair():
    ids = np.random.default_rng(0).integers(0, 5, 5000)
    _, variables = fitted(ids)
    np.testing.assert_array_equal(table_of(variables), count_pairs(ids, 5))
    assert table_of(variables).dtype == np.int32


@pytest.mark.course
def test_fit_again_adds_to_the_table():
    model, variables = fitted(IDS)
    variables = model.fit(variables, np.array([4, 4, 0]))
    np.testing.assert_array_equal(table_of(variables), count_pairs(IDS, 5) + count_pairs([4, 4, 0], 5))


@pytest.mark.course
@pytest.mark.parametrize("length", [0, 1, 2, 3, 100])
def test_fit_of_t_ids_makes_t_minus_1_pairs(length):
    _, variables = fitted(np.zeros(length))
    assert table_of(variables).sum() == max(length - 1, 0)


@pytest.mark.parametrize("length", [2 * PAIRS_PER_CALL + shift for shift in (0, 1, 2)])
def test_fit_of_a_text_longer_than_one_call(length):
    ids = np.random.default_rng(0).integers(0, 5, length)
    expected = np.zeros((5, 5), np.int64)
    np.add.at(expected, (ids[:-1], ids[1:]), 1)
    np.testing.assert_array_equal(table_of(fitted(ids)[1]), expected)


@pytest.mark.course
def test_fit_leaves_its_arguments_valid():
    model = CountsBigramLM(5)
    table = np.arange(25, dtype=np.int32).reshape(5, 5)
    ids = np.array(IDS)
    for variables in (
        {"counts": {"table": table}, "kept": 7},
        {"counts": {"table": jnp.asarray(table)}, "kept": 7},
    ):
        first = model.fit(variables, ids)
        np.testing.assert_array_equal(table_of(variables), np.arange(25).reshape(5, 5))
        np.testing.assert_array_equal(table_of(first), table_of(model.fit(variables, ids)))
        assert first["kept"] == 7
    np.testing.assert_array_equal(ids, IDS)


def test_fit_donates_its_argument_on_request():
    model, variables = fitted(IDS)
    donated = variables["counts"]["table"]
    variables = model.fit(variables, np.array([4, 4, 0]), donate=True)
    np.testing.assert_array_equal(table_of(variables), count_pairs(IDS, 5) + count_pairs([4, 4, 0], 5))
    assert donated.is_deleted()


@pytest.mark.course
@pytest.mark.parametrize("worst", [5, -1, 70])
def test_fit_of_an_id_out_of_range_is_an_error(worst):
    model, variables = fitted(IDS)
    with pytest.raises(ValueError, match=rf"ids: {worst} is outside 0..4"):
        model.fit(variables, np.array([0, worst, 4]))
    np.testing.assert_array_equal(table_of(variables), count_pairs(IDS, 5))


@pytest.mark.parametrize(
    ("table", "ids", "error", "message"),
    [
        (np.zeros((5, 5), np.int32), [0.0, 1.0], TypeError, "integers, got float"),
        (np.zeros((5, 5), np.int32), [[0, 1], [1, 0]], ValueError, r"shape \[2, 2\]"),
        # Without the check the scatter would write past the end of the smaller table.
        (np.zeros((4, 4), np.int32), [4, 4], ValueError, r"\[5, 5\], got int32\[4, 4\]"),
        (np.zeros((5, 5), np.float32), [4, 4], ValueError, "must be int32, got float32"),
    ],
)
def test_fit_rejects(table, ids, error, message):
    with pytest.raises(error, match=message):
        CountsBigramLM(5).fit({"counts": {"table": table}}, np.array(ids))


def test_fit_transfers_arrays_explicitly():
    model, variables = fitted(IDS)
    with jax.transfer_guard("disallow"):
        model.fit(variables, np.array(IDS))


def test_fit_reaches_the_int32_limit():
    model, variables = CountsBigramLM(5), with_count(MAX_COUNT - 2)
    variables = model.fit(model.fit(variables, np.array([1, 2])), np.array([1, 2]))
    assert table_of(variables)[1, 2] == MAX_COUNT


@pytest.mark.parametrize(("count", "ids"), [(MAX_COUNT, [1, 2]), (MAX_COUNT - 1, [1, 2, 1, 2])])
def test_fit_above_the_int32_limit_is_an_error(count, ids):
    model, variables = CountsBigramLM(5), with_count(count)
    with pytest.raises(ValueError, match=rf"count is {count}: {len(ids) - 1} more .*{MAX_COUNT}"):
        model.fit(variables, np.array(ids))
    assert table_of(variables)[1, 2] == count
    assert np.isfinite(model.apply(variables, jnp.array([1, 0, 2]))).all()


def test_fit_again_does_not_recompile():
    model, variables = fitted(IDS)
    size = add_pairs._cache_size()
    variables = model.fit(variables, np.array([*IDS, 0]))
    model.fit(variables, np.zeros(PAIRS_PER_CALL + 2, np.int32))
    assert add_pairs._cache_size() == size


def test_add_pairs_takes_memory_for_the_table_and_the_ids():
    """The table is donated and updated in place."""
    table, ids = jnp.zeros((1000, 1000), jnp.int32), jnp.zeros(PAIRS_PER_CALL + 1, jnp.int32)
    program = add_pairs.lower(table, ids, 1).compile()
    # Not `alias_size_in_bytes`, which jax 0.5.0 reports as 0 for a program from the persistent cache.
    assert "input_output_alias={ {}: (0, {}, " in program.as_text().partition("\n")[0]
    assert program.memory_analysis().temp_size_in_bytes <= 4 * ids.nbytes


@pytest.mark.course
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_logits_shape(shape):
    model, variables = fitted(IDS)
    logits = model.apply(variables, np.array([1, 0, 2]).reshape(shape))
    assert (logits.shape, logits.dtype) == ((3, 5), jnp.float32)
    np.testing.assert_array_equal(logits[1], model.apply(variables, np.array([0, 0, 0]))[0])


@pytest.mark.course
@pytest.mark.parametrize("smoothing", [1.0, 0.01, 100.0])
def test_logits_are_log_probabilities(smoothing):
    model, variables = fitted(IDS, smoothing=smoothing)
    probabilities = np.exp(np.asarray(model.apply(variables, np.array([0, 1, 4])), np.float64))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.course
def test_logits_are_add_k_smoothed_counts():
    """Row 1 was followed once each by 1, 2 and 3: (1 + 0.5) / (3 + 2.5) for those, 0.5 / 5.5 for 0 and 4."""
    model, variables = fitted(IDS, smoothing=0.5)
    expected = [0.5 / 5.5, 1.5 / 5.5, 1.5 / 5.5, 1.5 / 5.5, 0.5 / 5.5]
    np.testing.assert_allclose(np.exp(model.apply(variables, np.array([0, 1, 4]))[1]), expected, rtol=1e-6)


@pytest.mark.course
def test_logits_without_smoothing_are_minus_inf_for_the_unseen():
    model, variables = fitted(IDS, smoothing=0)
    expected = [-np.inf, math.log(1 / 3), math.log(1 / 3), math.log(1 / 3), -np.inf]
    np.testing.assert_allclose(model.apply(variables, np.array([0, 1, 4]))[1], expected, rtol=1e-6)
    assert perplexity(model, variables, np.array([0, 1, 0])) == math.inf


@pytest.mark.course
def test_logits_of_an_unseen_row():
    """With smoothing the row is uniform; without, every token is impossible and nothing is NaN."""
    model, variables = fitted(IDS, smoothing=0.1)
    rows = np.array([0, 1, 4])
    np.testing.assert_allclose(model.apply(variables, rows)[2], np.full(5, math.log(1 / 5)), rtol=1e-6)
    model = dataclasses.replace(model, smoothing=0)
    np.testing.assert_array_equal(model.apply(variables, rows)[2], np.full(5, -np.inf))
    assert perplexity(model, variables, np.array([4, 0])) == math.inf


@pytest.mark.parametrize("smoothing", [0, 0.5])
def test_target_log_probs_equals_logits(smoothing):
    model, variables = fitted(IDS, smoothing=smoothing)
    rows, targets = (index.reshape(-1) for index in np.indices((3, 5)))
    contexts = np.array([0, 1, 4])
    log_probs = model.target_log_probs(variables, contexts)(rows, targets)
    np.testing.assert_allclose(log_probs, model.apply(variables, contexts).reshape(-1), rtol=1e-6)


@pytest.mark.course
def test_logits_is_the_same_as_call():
    model, variables = fitted(IDS)
    contexts = np.array([[0], [4], [1]])
    logits = model.apply(variables, contexts, method=model.logits)
    np.testing.assert_array_equal(logits, model.apply(variables, contexts))
    np.testing.assert_array_equal(logits, model.bind(variables).logits(contexts))


@pytest.mark.parametrize(("smoothing", "nats"), [(0, 2.4540), (1, 2.4546)])
def test_names_have_the_published_nats(names, smoothing, nats):
    """One newline ends a name and begins the next, so no pair belongs to two names."""
    ids = np.frombuffer(("\n" + names.strip() + "\n").encode(), np.uint8)
    ids = np.where(ids == ord("\n"), 0, ids - ord("a") + 1)
    evaluation = evaluate(*fitted(ids, 27, smoothing), ids)
    assert evaluation.num_tokens == 228_146
    assert evaluation.nats_per_token == pytest.approx(nats, abs=5e-5)


def test_counts_with_a_sum_above_int32_cost_log_2():
    model, table = CountsBigramLM(2), np.full((2, 2), MAX_COUNT, np.int32)
    variables = {"counts": {"table": table}}
    np.testing.assert_allclose(model.apply(variables, np.array([0, 1])), np.full((2, 2), -math.log(2)), rtol=1e-6)
    assert evaluate(model, variables, [0, 1, 1]).nats_per_token == pytest.approx(math.log(2), rel=1e-6)
