"""`score` equals plain NumPy, for any batch size."""

import jax.numpy as jnp
import numpy as np
import pytest
from table_models import nats_in_numpy, random_ids, random_table

import jaxlm
from jaxlm.models.backoff_lm import ListedNgrams


@pytest.mark.parametrize("context_length", [0, 2])
def test_score_equals_numpy(context_length):
    model, logits = random_table(5, context_length)
    ids = random_ids(5, 80)
    scores = jaxlm.score(model, logits, ids, batch_size=32)
    nats = nats_in_numpy(logits, ids, context_length)
    np.testing.assert_allclose(scores.log_probs, -nats, rtol=1e-5)
    for position, (rank, entropy) in enumerate(zip(scores.ranks, scores.entropies, strict=True), context_length):
        row = logits[tuple(ids[position - context_length : position])].astype(np.float64)
        assert rank == 1 + [*np.argsort(-row)].index(ids[position])
        probabilities = np.exp(row) / np.exp(row).sum()
        assert entropy == pytest.approx(-(probabilities * np.log(probabilities)).sum(), rel=1e-5)


def test_score_does_not_depend_on_the_batch_size():
    model, logits = random_table(5, 2)
    whole, in_batches = (jaxlm.score(model, logits, random_ids(5, 80), batch_size=size) for size in (78, 32))
    for column, other in zip(whole, in_batches, strict=True):
        np.testing.assert_allclose(column, other, rtol=1e-6)


def test_score_ranks_equal_tokens_by_id():
    assert jaxlm.score(jaxlm.UniformLM(4), {}, [2, 0, 3, 1]).ranks.tolist() == [3, 1, 4, 2]


def test_score_of_impossible_tokens():
    model = jaxlm.CountsBigramLM(3, smoothing=0)
    scores = jaxlm.score(model, {"counts": {"table": jnp.array([[2, 2, 0], [0, 0, 0], [1, 0, 0]])}}, [0, 1, 2, 0])
    np.testing.assert_allclose(scores.log_probs, [np.log(0.5), -np.inf, 0])
    np.testing.assert_allclose(scores.entropies, [np.log(2), 0, 0])
    assert not np.signbit(scores.entropies).any()


def test_score_of_probabilities_that_do_not_sum_to_1():
    unigrams = ListedNgrams(np.array([[0], [1]]), np.log10([0.5, 0.125]), np.zeros(2))
    scores = jaxlm.score(*jaxlm.BackoffLM.from_ngrams(2, [unigrams]), [0, 1])
    np.testing.assert_allclose(scores.log_probs, np.log([0.5, 0.125]), rtol=1e-6)
    expected = -0.8 * np.log(0.8) - 0.2 * np.log(0.2)
    np.testing.assert_allclose(scores.entropies, [expected, expected], rtol=1e-6)


def test_score_limits_the_batch_size():
    scores = jaxlm.score(jaxlm.UniformLM(2), {}, [0, 1], batch_size=2**31 - 1)
    np.testing.assert_allclose(scores.entropies, [np.log(2), np.log(2)], rtol=1e-6)


def test_score_refuses_short_and_foreign_ids():
    for ids, problem in (([0], "at least 2"), ([0, 9], "9 is outside")):
        with pytest.raises(ValueError, match=problem):
            jaxlm.score(jaxlm.NeuralBigramLM(3, 2), {}, ids)
