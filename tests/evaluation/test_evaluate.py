"""Evaluation against NumPy, for every batch size and length of text."""

import dataclasses
import linecache
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from table_models import TableLM, nats_in_numpy, random_ids, random_table

from jaxlm import CountsBigramLM, CountsNgramLM, Evaluation, evaluate, init, perplexity, token_nats, window_nats
from jaxlm.evaluation.evaluate import score_windows
from jaxlm.evaluation.windows import group_windows


@pytest.mark.course
def test_perplexity_of_a_uniform_model_is_the_vocabulary():
    assert perplexity(TableLM(27, 0), jnp.zeros(27), random_ids(27, 300)) == pytest.approx(27, rel=1e-5)


@pytest.mark.course
def test_perplexity_divides_the_sum_of_nats_once():
    """Two windows cost log 2 and log 8: exp of their mean is 4, the mean of their perplexities 5."""
    variables = jnp.log(jnp.array([[4, 1, 1, 2], [1, 4, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1]], jnp.float32))
    result = evaluate(TableLM(4, 1), variables, np.array([0, 0, 1]))
    assert isinstance(result, Evaluation)
    assert result.num_tokens == 2
    assert result.nats_per_token == pytest.approx(math.log(4), rel=1e-6)
    assert result.perplexity == pytest.approx(4, rel=1e-6)
    assert perplexity(TableLM(4, 1), variables, [0, 0, 1]) == result.perplexity


@pytest.mark.course
def test_perplexity_is_a_python_float():
    model, variables = random_table(4, 1)
    assert [type(each) for each in evaluate(model, variables, [0, 1, 2])] == [float, float, int]
    assert type(perplexity(model, variables, [0, 1, 2])) is float


def test_perplexity_is_not_clipped():
    """A certain but wrong prediction in one of two windows gives exp(500); above the largest float it is inf."""
    variables = jnp.array([0.0, -1000.0, -jnp.inf, -jnp.inf])
    for ids, expected in (([0, 1], math.exp(500)), ([1, 1], math.inf), ([0, 0, 2], math.inf)):
        assert perplexity(TableLM(4, 0), variables, ids, batch_size=8) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("context_length", [0, 1, 2, 3])
def test_evaluate_scores_every_window(context_length):
    model, variables = random_table(4, context_length)
    for length in (context_length + 1, 50):
        ids = random_ids(4, length)
        expected = nats_in_numpy(variables, ids, context_length)
        result = evaluate(model, variables, ids, batch_size=8)
        assert result.num_tokens == len(expected) == length - context_length
        assert result.nats_per_token == pytest.approx(expected.mean(), rel=1e-6)
        assert result.perplexity == pytest.approx(math.exp(expected.mean()), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(ids=st.lists(st.integers(0, 3), min_size=3, max_size=60), seed=st.integers(0, 2**32 - 1))
def test_window_nats_is_in_the_order_of_the_text(ids, seed):
    model, variables = random_table(4, 2, seed)
    nats = window_nats(model, variables, ids, batch_size=8)
    assert nats.dtype == np.float32
    np.testing.assert_allclose(nats, nats_in_numpy(variables, ids, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.course
@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 16, 33, 70])
def test_perplexity_does_not_depend_on_the_batch_size(batch_size):
    model, variables = random_table(4, 2)
    for length in (3, 70, 71, 200):
        ids = random_ids(4, length)
        expected = math.exp(nats_in_numpy(variables, ids, 2).mean())
        assert perplexity(model, variables, ids, batch_size=batch_size) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("num_windows", "batch_size"),
    [
        (65_536, 8),
        (65_537, 8),
        pytest.param(65_001, 1000, marks=pytest.mark.slow),
        pytest.param(150_000, 100_000, marks=pytest.mark.slow),
    ],
)
def test_evaluate_of_a_text_longer_than_one_call(num_windows, batch_size):
    model, variables = random_table(4, 2)
    ids = random_ids(4, num_windows + 2)
    expected = nats_in_numpy(variables, ids, 2)
    result = evaluate(model, variables, ids, batch_size=batch_size)
    assert result.num_tokens == num_windows
    assert result.nats_per_token == pytest.approx(expected.mean(), rel=1e-6)
    np.testing.assert_allclose(window_nats(model, variables, ids, batch_size=batch_size), expected, rtol=1e-5)


@pytest.mark.slow
def test_score_windows_takes_memory_for_a_batch_only():
    """The logits of all 65,536 windows of a call would take 262 MB at V = 1000."""

    def temporary_bytes(length, batch_size):
        model, variables = random_table(1000, 1)
        windows, _ = group_windows(random_ids(1000, length), model, batch_size)
        lowered = score_windows.lower(model, variables, windows, batch_size)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    logits = 256 * 1000 * 4
    assert logits <= temporary_bytes(100, 256) == temporary_bytes(60_000, 256) < 6 * logits
    assert temporary_bytes(100, 16) < temporary_bytes(100, 256) / 3


def test_evaluate_limits_the_batch_to_the_text():
    """A batch of 2^30 windows at V = 1000 would take 4 TB; 512 are enough for 499 windows."""
    zeros = np.zeros((1000, 1000), np.float32)
    assert perplexity(TableLM(1000, 1), zeros, np.arange(500), batch_size=512) == pytest.approx(1000)
    size = score_windows._cache_size()
    perplexity(TableLM(1000, 1), zeros, np.arange(500), batch_size=2**30)
    assert score_windows._cache_size() == size


def test_evaluate_again_does_not_recompile():
    model, variables = random_table(4, 1)
    evaluate(model, variables, random_ids(4, 100))
    size = score_windows._cache_size()
    other, variables = random_table(4, 1, seed=5)
    evaluate(other, variables, random_ids(4, 70_000))
    evaluate(other, variables, random_ids(4, 100), device="cpu")
    evaluate(other, variables, random_ids(4, 100), device=jax.devices("cpu")[0])
    assert score_windows._cache_size() == size


@pytest.mark.course
@pytest.mark.parametrize(("length", "context_length"), [(0, 0), (0, 1), (1, 1), (3, 3), (2, 3)])
def test_perplexity_of_a_text_too_short_is_an_error(length, context_length):
    model, variables = random_table(3, context_length)
    with pytest.raises(ValueError, match=rf"ids must have at least {context_length + 1} tokens.*got {length}"):
        perplexity(model, variables, np.zeros(length, np.int32))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ids": [0, 3, 1]}, ValueError, r"ids: 3 is outside 0\.\.2"),
        ({"ids": [0, -2, 1]}, ValueError, "ids: -2 "),
        ({"ids": [0.0, 1.0]}, TypeError, "integers, got float64"),
        ({"ids": [[0, 1], [1, 0]]}, ValueError, r"got shape \[2, 2\]"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"device": "abacus"}, ValueError, "'abacus'"),
    ],
)
def test_evaluate_rejects_wrong_arguments(arguments, error, message):
    model, variables = random_table(3, 1)
    with pytest.raises(error, match=message):
        evaluate(model, variables, **{"ids": [0, 1]} | arguments)


@pytest.mark.parametrize(("vocab_size", "table_size"), [(9, 4), (4, 9)])
def test_evaluate_rejects_variables_of_another_vocabulary(vocab_size, table_size):
    table = jnp.ones((table_size, table_size), jnp.int32)
    with pytest.raises(ValueError, match=rf"logits of shape \[\d+, {table_size}\].*{vocab_size}"):
        perplexity(TableLM(vocab_size, 1), table, [0, 1, 2])
    with pytest.raises(ValueError, match=rf"int32\[{vocab_size}, {vocab_size}\], got int32\[{table_size}, "):
        perplexity(CountsBigramLM(vocab_size), {"counts": {"table": table}}, [0, 1, 2])


@dataclasses.dataclass(frozen=True)
class SharpWrapper:
    """A wrapper with logits of its own that forwards all other names to the model."""

    model: Any

    def __getattr__(self, name):
        return getattr(self.model, name)

    def apply(self, variables, contexts):
        return self.model.apply(variables, contexts) * 2


def test_evaluate_uses_the_logits_of_a_wrapper():
    counts = CountsBigramLM(4)
    variables = counts.fit(init(counts, jax.random.key(0)), random_ids(4, 100))
    ids = random_ids(4, 50, seed=2)
    table = np.asarray(counts.apply(variables, jnp.arange(4)), np.float64) * 2
    expected = nats_in_numpy(table, ids, 1).mean()
    found = evaluate(SharpWrapper(counts), variables, ids).nats_per_token
    assert found == pytest.approx(expected, rel=1e-6)


def test_evaluate_computes_in_float32_for_a_bfloat16_model():
    """The model rounds its logits; the sum of 1000 exponentials is not rounded."""

    class HalfPrecisionLM(TableLM):
        def apply(self, variables, contexts):
            return super().apply(variables, contexts).astype(jnp.bfloat16)

    _, table = random_table(1000, 1)
    rounded = np.asarray(jnp.asarray(table).astype(jnp.bfloat16), np.float64)
    ids = random_ids(1000, 200)
    nats = nats_in_numpy(rounded, ids, 1).mean()
    assert evaluate(HalfPrecisionLM(1000, 1), table, ids).nats_per_token == pytest.approx(nats, rel=1e-6)


class ProbabilitiesLM(TableLM):
    """The mistake of returning probabilities instead of their logarithms."""

    def apply(self, variables, contexts):
        return jax.nn.softmax(super().apply(variables, contexts))


def test_evaluate_warns_of_probabilities():
    """Python shows a text once per line that it is attributed to, so the line must not depend on the caller."""
    model, table = random_table(5, 1)
    ids = random_ids(5, 50)
    with pytest.warns(
        UserWarning, match="ProbabilitiesLM.apply returns probabilities; return their log"
    ) as caught:
        evaluate(ProbabilitiesLM(5, 1), 3 * table, ids)
    assert "warnings.warn(" in linecache.getline(caught[0].filename, caught[0].lineno)
    for small in (table, 0 * table, np.eye(5, dtype=np.float32) - 1):  # no warnings, which would be errors
        evaluate(model, small, ids)


@pytest.mark.parametrize("model", [CountsBigramLM(4, 0.0), CountsNgramLM(4, 1, 0.0)], ids=["bigram", "ngram"])
def test_debug_nans_accepts_impossible_tokens(model):
    """Without smoothing, the token 3 and all that follows it have the log-probability -inf."""
    variables = model.fit(init(model, jax.random.key(0)), [0, 1, 2, 0])
    with jax.debug_nans(True):
        assert evaluate(model, variables, [0, 3, 1]).perplexity == math.inf
        logits = model.apply(variables, np.array([[0], [3]]))
        assert token_nats(logits, np.array([1, 1])).tolist() == [0, math.inf]
