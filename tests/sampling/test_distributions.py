"""The inverse of the running sum, against NumPy's in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxlm.sampling.distributions import _first_past, distributions, sample_tokens


@jax.jit
def draw_one(logits, share):
    return sample_tokens(distributions(logits), share)


@settings(max_examples=40, deadline=None)
@given(
    size=st.sampled_from([1, 9, 200]),
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0, 1, exclude_max=True, width=32),
)
def test_a_draw_inverts_the_running_sum(size, seed, share):
    """Against NumPy's in float64; a token next to the one wanted is right only where they meet within rounding."""
    random = np.random.default_rng(seed)
    logits = np.where(random.random(size) < 0.3, -np.inf, random.normal(size=size) * 4).astype(np.float32)
    logits[random.integers(size)] = 0
    token = int(draw_one(jnp.asarray(logits)[None, :], jnp.float32(share)[None])[0])
    weights = np.exp(logits.astype(np.float64))
    running = np.cumsum(weights) / weights.sum()
    assert weights[token] > 0
    assert running[token] > share - 1e-5
    assert running[token] - weights[token] / weights.sum() <= share + 1e-5


@pytest.mark.parametrize(
    ("weights", "threshold", "index"),
    [
        ([1, 2, 3], 0.5, 0),
        ([1, 2, 3], 1.0, 1),  # what is reached is not passed
        ([1, 0, 3], 1.0, 2),
        ([0, 0, 3], -0.001, 2),  # rounding between the levels may leave less than nothing to pass
        ([1, 2, 0], 3.001, 1),  # or more than there is
    ],
)
def test_what_has_no_weight_is_never_taken_whatever_rounding_leaves(weights, threshold, index):
    row = jnp.array([weights], jnp.float32)
    found, before = _first_past(row, jnp.cumsum(row, axis=1), jnp.array([[threshold]]))
    assert found.tolist() == [[index]]
    assert before.tolist() == [[sum(weights[:index])]]
