"""Small models to sample from, and the two calls with short arguments."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm

VOCAB = 8
LOGITS = np.array([0.3, 2.0, -1.0, 1.5, -np.inf, 0.9, -2.5, 1.9])  # no ties; token 4 is impossible
COUNTS = np.random.default_rng(0).integers(0, 9, (VOCAB, VOCAB)) + np.eye(VOCAB, k=1, dtype=int)
CHAIN = np.eye(VOCAB, k=1)  # counts of 0 -> 1 -> ... -> 7, with nothing after 7


@dataclass(frozen=True)
class LogitsModel:
    """A user's own model without Flax: the variables are the logits [V] of every context."""

    vocab_size: int
    context_length: int = 1

    def apply(self, logits, contexts):
        assert contexts.dtype == jnp.int32
        return jnp.broadcast_to(logits[None, :], (len(contexts), self.vocab_size))


def with_normal_variables(model):
    """Return the model with variables that make each context prefer other tokens; fresh ones are near uniform."""
    rng = np.random.default_rng(2)
    fresh = jaxlm.init(model, jax.random.key(0))
    return model, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), fresh)


def with_counts(table, smoothing):
    return jaxlm.CountsBigramLM(len(table), smoothing), {"counts": {"table": jnp.asarray(table, jnp.int32)}}


COUNTS_BIGRAM = with_counts(COUNTS, 1.0)
BIGRAM = with_normal_variables(jaxlm.NeuralBigramLM(VOCAB, embedding_dim=3))
MLP = with_normal_variables(jaxlm.MLPLanguageModel(VOCAB, context_length=3, embedding_dim=2, hidden_dim=5))
LOGITS_MODEL = LogitsModel(VOCAB), jnp.asarray(LOGITS, jnp.float32)

each_model = pytest.mark.parametrize("model", [COUNTS_BIGRAM, BIGRAM, MLP], ids=["counts", "neural_bigram", "mlp"])
PROMPT = np.array([7, 0, 5, 2, 3])  # longer than any context here
PROMPTS = np.array([[7, 0, 5, 2, 3], [1, 1, 6, 0, 4]])


def draw(model, prompt=PROMPT, num_tokens=12, key=0, **options):
    return np.asarray(jaxlm.sample(*model, prompt, num_tokens, key=jax.random.key(key), **options))


def stream(model, prompt=PROMPT, num_tokens=12, key=0, **options):
    return jaxlm.sample_stream(*model, prompt, num_tokens, key=jax.random.key(key), **options)
