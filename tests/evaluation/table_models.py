"""Models that look their logits up in a table, and their nats in NumPy."""

import dataclasses

import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class TableLM:
    """Logits looked up by the last N tokens. Variables: [V, ..., V] with N + 1 axes."""

    vocab_size: int
    context_length: int

    def apply(self, variables, contexts):
        if self.context_length == 0:
            return jnp.broadcast_to(variables, (len(contexts), self.vocab_size))
        return jnp.asarray(variables)[tuple(contexts.T)]


def random_table(vocab_size, context_length, seed=0):
    logits = np.random.default_rng(seed).normal(size=(vocab_size,) * (context_length + 1))
    return TableLM(vocab_size, context_length), logits.astype(np.float32)


def random_ids(vocab_size, length, seed=1):
    return np.random.default_rng(seed).integers(0, vocab_size, length)


def nats_in_numpy(logits, ids, context_length):
    """Return the nats of every window, in float64."""
    probabilities = np.exp(np.asarray(logits, np.float64))
    log_probs = np.log(probabilities / probabilities.sum(axis=-1, keepdims=True))
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(ids), context_length + 1)
    return -log_probs[tuple(windows.T)]
