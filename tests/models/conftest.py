"""The perplexity of a fresh model, for the tests of every model."""

import jax
import numpy as np
import pytest

import jaxlm


@pytest.fixture(scope="session")
def fresh_perplexity():
    """A function that returns the perplexity of a fresh model on random ids, computed in NumPy."""

    def compute(model):
        random = np.random.default_rng(0)
        variables = jaxlm.init(model, jax.random.key(1))
        contexts = random.integers(0, model.vocab_size, (500, model.context_length))
        logits = np.asarray(jax.jit(model.apply)(variables, contexts), np.float64)
        targets = random.integers(0, model.vocab_size, 500)
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return np.exp(-log_probs[np.arange(500), targets].mean())

    return compute
