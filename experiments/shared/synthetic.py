"""Seeded Markov sources, and what a model can know of them: all exact, sums over every context."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxlm

Floats = np.ndarray[Any, np.dtype[np.float64]]

_BURN_IN = 1000  # tokens after which no start is remembered


@dataclass(frozen=True)
class MarkovSource:
    """A source as a language model: the log-probabilities [V^N, V] after each context are its variables."""

    vocab_size: int
    context_length: int

    def apply(self, variables: Array, contexts: Array) -> Array:
        """Contexts [B, N] -> log-probabilities [B, V]."""
        places = self.vocab_size ** jnp.arange(self.context_length)[::-1]
        return variables[contexts @ places]


def draw_rows(vocab_size: int, order: int, concentration: float, seed: int) -> Floats:
    """The distributions [V^order, V] after each context, from Dirichlet(concentration)."""
    random = np.random.default_rng([seed, order])
    return random.dirichlet(np.full(vocab_size, concentration), size=vocab_size**order)


def sample_source(source: MarkovSource, log_rows: Array, num_tokens: int, *, key: Array) -> np.ndarray[Any, Any]:
    """A stream [num_tokens] of the source, once it has forgotten its start."""
    start = np.zeros(source.context_length, np.int32)
    ids = jaxlm.sample(source, log_rows, start, _BURN_IN + num_tokens, key=key)
    return np.asarray(ids)[-num_tokens:]


def window_probabilities(table: Floats) -> Floats:
    """How probable each window of three tokens is, [V, V, V], in a source with the rows [V, V] or [V^2, V].

    The stationary probabilities p(a, b) solve p(b, c) = sum_a p(a, b) P(c | a, b), and sum to 1.
    """
    vocab_size = table.shape[1]
    rows = np.broadcast_to(table.reshape(-1, vocab_size, vocab_size), (vocab_size,) * 3)  # P(c | a, b)
    moves = np.einsum("abc,bd->dcab", rows, np.eye(vocab_size)).reshape(vocab_size**2, vocab_size**2)
    system = moves - np.eye(vocab_size**2)
    system[-1] = 1  # one of the equations follows from the others; this one is the sum
    stationary = np.linalg.solve(system, np.eye(vocab_size**2)[-1])
    return stationary.reshape(vocab_size, vocab_size, 1) * rows


def conditional_entropy(joint: Floats, context_length: int | None = None) -> float:
    """H(last token | the N before it) in nats, for the probabilities [V, ..., V] of windows; N = None is all."""
    if context_length is not None:
        joint = joint.sum(axis=tuple(range(joint.ndim - 1 - context_length)))
    rows = joint / np.maximum(joint.sum(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    return float(-(joint * np.log(rows, where=rows > 0, out=np.zeros_like(rows))).sum())


def cross_entropy(model: jaxlm.LanguageModel, variables: Any, windows: Floats) -> float:
    """The model's nats per token under the window probabilities [V, V, V], all contexts and successors of them."""
    vocab_size = model.vocab_size
    pairs = np.indices((vocab_size, vocab_size), np.int32).reshape(2, -1).T  # [V^2, 2]
    log_probs = jax.nn.log_softmax(model.apply(variables, jnp.asarray(pairs[:, 2 - model.context_length :])))
    return float(-(windows.reshape(-1, vocab_size) * np.asarray(log_probs, np.float64)).sum())
