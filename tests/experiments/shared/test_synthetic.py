"""Markov sources against closed forms, and a long stream of one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.shared.synthetic import (
    MarkovSource,
    conditional_entropy,
    cross_entropy,
    draw_rows,
    sample_source,
    window_probabilities,
)
from jaxlm.models.baselines import UniformLM


def entropy(*shares):
    return -sum(share * math.log(share) for share in shares)


def test_a_chain_of_two_states_has_the_entropy_of_the_textbook():
    """Rates a and b between two states: stationary b / (a + b) and a / (a + b), Cover & Thomas, section 4.2."""
    a, b = 0.1, 0.4
    windows = window_probabilities(np.array([[1 - a, a], [b, 1 - b]]))
    stationary = np.array([b, a]) / (a + b)
    np.testing.assert_allclose(windows.sum(axis=(1, 2)), stationary)
    rate = stationary @ [entropy(a, 1 - a), entropy(b, 1 - b)]
    assert conditional_entropy(windows, 0) == pytest.approx(entropy(*stationary))
    assert conditional_entropy(windows, 1) == pytest.approx(rate)
    assert conditional_entropy(windows, 2) == pytest.approx(rate)


def test_a_noisy_parity_tells_nothing_to_who_sees_one_token():
    """The next bit is the parity of the last two, nine times in ten: to one token it is a fair coin."""
    rows = np.array([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1]])  # after 00, 01, 10, 11
    windows = window_probabilities(rows)
    # By 2000 steps of the chain of pairs.
    pairs = np.full((2, 2), 0.25)
    for _ in range(2000):
        pairs = np.einsum("ab,abc->bc", pairs, rows.reshape(2, 2, 2))
    np.testing.assert_allclose(windows, pairs[:, :, None] * rows.reshape(2, 2, 2), atol=1e-12)
    assert conditional_entropy(windows, 2) == pytest.approx(entropy(0.9, 0.1))
    assert conditional_entropy(windows, 1) > 0.99 * math.log(2) > 2 * conditional_entropy(windows, 2)


@pytest.mark.parametrize("order", [1, 2])
def test_a_source_is_at_its_own_floor_and_a_uniform_model_at_log_v(order):
    table = draw_rows(5, order, 0.5, 0)
    source, log_rows = MarkovSource(5, order), jnp.asarray(np.log(table), jnp.float32)
    windows = window_probabilities(table)
    assert cross_entropy(source, log_rows, windows) == pytest.approx(conditional_entropy(windows, order), rel=1e-6)
    uniform = UniformLM(5, context_length=order)
    assert cross_entropy(uniform, {}, windows) == pytest.approx(math.log(5), rel=1e-6)


def test_a_long_stream_has_the_window_probabilities():
    table = draw_rows(3, 2, 0.5, 0)
    source, log_rows = MarkovSource(3, 2), jnp.asarray(np.log(table), jnp.float32)
    ids = sample_source(source, log_rows, 200_000, key=jax.random.key(0))
    seen = np.bincount(ids[:-2] * 9 + ids[1:-1] * 3 + ids[2:], minlength=27).reshape(3, 3, 3) / (len(ids) - 2)
    np.testing.assert_allclose(seen, window_probabilities(table), atol=0.01)
