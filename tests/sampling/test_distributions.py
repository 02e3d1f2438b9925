"""One token from one uniform number, against NumPy's cumulative sums in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxlm.sampling.distributions import Distributions, Options, compute_distributions, sample_tokens


@jax.jit
def sample_one(logits, uniform):
    return sample_tokens(compute_distributions(logits, Options()), uniform)


@settings(max_examples=40, deadline=None)
@given(
    size=st.sampled_from([1, 9, 200]),
    seed=st.integers(0, 2**32 - 1),
    uniform=st.floats(0, 1, exclude_max=True, width=32),
)
def test_sample_tokens_inverts_the_cumulative_sum(size, seed, uniform):
    """Near a boundary between two tokens, both are right within the rounding of float32."""
    random = np.random.default_rng(seed)
    logits = np.where(random.random(size) < 0.3, -np.inf, random.normal(size=size) * 4).astype(np.float32)
    logits[random.integers(size)] = 0
    token = int(sample_one(jnp.asarray(logits)[None, :], jnp.float32(uniform)[None])[0])
    weights = np.exp(logits.astype(np.float64))
    cumulative = np.cumsum(weights) / weights.sum()
    assert weights[token] > 0
    assert cumulative[token] > uniform - 1e-5
    assert cumulative[token] - weights[token] / weights.sum() <= uniform + 1e-5


@pytest.mark.parametrize(
    ("blocks", "uniform", "token"),
    [
        ([[1, 1, 2]], 0.125, 0),
        ([[1, 1, 2]], 0.25, 1),  # a cumulative sum that equals the threshold does not exceed it
        ([[1, 0, 3]], 0.25, 2),
        ([[1, 0], [0, 3]], 0.25, 3),
        ([[1, 0], [0, 0], [1, 2]], 0.5, 5),
        # Rounding may move the threshold below zero or above the total.
        ([[0, 0, 3]], -0.001, 2),
        ([[1, 2, 0]], 1.001, 1),
        ([[0, 1], [2, 0], [0, 0]], 1.001, 2),
        ([[0, 0]], 0.5, -1),
    ],
)
def test_sample_tokens_never_takes_a_zero_weight(blocks, uniform, token):
    weights = jnp.array([blocks], jnp.float32)
    sums = weights.sum(axis=2)
    rows = Distributions(weights, sums, jnp.cumsum(sums, axis=1), None)
    assert sample_tokens(rows, jnp.array([uniform], jnp.float32)).tolist() == [token]
