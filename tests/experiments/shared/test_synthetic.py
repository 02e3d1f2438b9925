"""Zipf tokens against their frequencies; Markov sources against closed forms and a long sample."""

import math

import jax
import numpy as np
import pytest

from experiments.shared.synthetic import (
    conditional_entropy,
    cross_entropy,
    draw_source,
    sample_source,
    window_probabilities,
    zipf_ids,
)
from jaxlm.models.baselines import UniformLM


def entropy(*probabilities):
    return -sum(each * math.log(each) for each in probabilities)


def test_zipf_ids_has_zipf_frequencies_and_is_fixed():
    ids = zipf_ids(50, 200_000)
    assert ids.dtype == np.int32
    harmonic = sum(1 / rank for rank in range(1, 51))
    np.testing.assert_allclose(
        np.bincount(ids, minlength=50) / len(ids), 1 / np.arange(1, 51) / harmonic, rtol=0.2
    )
    np.testing.assert_array_equal(ids, zipf_ids(50, 200_000))


def test_two_state_chain_has_the_textbook_entropy():
    """Rates a and b between two states: stationary b / (a + b) and a / (a + b), Cover & Thomas, section 4.2."""
    a, b = 0.1, 0.4
    windows = window_probabilities(np.array([[1 - a, a], [b, 1 - b]]))
    stationary = np.array([b, a]) / (a + b)
    np.testing.assert_allclose(windows.sum(axis=(1, 2)), stationary)
    rate = stationary @ [entropy(a, 1 - a), entropy(b, 1 - b)]
    assert conditional_entropy(windows, 0) == pytest.approx(entropy(*stationary))
    assert conditional_entropy(windows, 1) == pytest.approx(rate)
    assert conditional_entropy(windows, 2) == pytest.approx(rate)


def test_noisy_parity_looks_random_to_one_token():
    """The next bit is the parity of the last two with probability 0.9."""
    rows = np.array([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1]])  # after 00, 01, 10, 11
    windows = window_probabilities(rows)
    pairs = np.full((2, 2), 0.25)
    for _ in range(2000):  # power iteration
        pairs = np.einsum("ab,abc->bc", pairs, rows.reshape(2, 2, 2))
    np.testing.assert_allclose(windows, pairs[:, :, None] * rows.reshape(2, 2, 2), atol=1e-12)
    assert conditional_entropy(windows, 2) == pytest.approx(entropy(0.9, 0.1))
    assert conditional_entropy(windows, 1) > 0.99 * math.log(2)


@pytest.mark.parametrize("order", [1, 2])
def test_cross_entropy_of_the_source_is_its_entropy(order):
    source, log_rows, windows = draw_source(5, order, 0.5, 0)
    assert cross_entropy(source, log_rows, windows) == pytest.approx(conditional_entropy(windows, order), rel=1e-6)
    uniform = UniformLM(5, context_length=order)
    assert cross_entropy(uniform, {}, windows) == pytest.approx(math.log(5), rel=1e-6)


@pytest.mark.slow
def test_sample_source_has_the_window_probabilities():
    source, log_rows, windows = draw_source(3, 2, 0.5, 0)
    ids = sample_source(source, log_rows, 200_000, key=jax.random.key(0))
    counts = np.bincount(ids[:-2] * 9 + ids[1:-1] * 3 + ids[2:], minlength=27).reshape(3, 3, 3)
    np.testing.assert_allclose(counts / (len(ids) - 2), windows, atol=0.01)
