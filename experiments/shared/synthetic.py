"""Synthetic token streams: independent Zipf tokens for benchmarks, and Markov sources with exact entropies."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxlm
from experiments.shared.training import Floats, Ids

_BURN_IN = 1000  # tokens after which the stream no longer depends on its start


def zipf_ids(vocab_size: int, num_tokens: int, seed: int = 0) -> Ids:
    """Return independent tokens, int32 [num_tokens]; token r has a probability proportional to 1 / (r + 1)."""
    weights = 1 / np.arange(1, vocab_size + 1)
    uniforms = np.random.default_rng(seed).random(num_tokens)
    ids = np.searchsorted(np.cumsum(weights) / weights.sum(), uniforms)
    return ids.clip(max=vocab_size - 1).astype(np.int32)


@dataclass(frozen=True)
class MarkovSource:
    """A Markov source of order `context_length` as a language model.

    Its variables are the log-probabilities [V^N, V] after each context.
    """

    vocab_size: int
    context_length: int

    def apply(self, variables: Array, contexts: Array) -> Array:
        """Return the log-probabilities [B, V] after the contexts [B, N]."""
        place_values = self.vocab_size ** jnp.arange(self.context_length)[::-1]
        return variables[contexts @ place_values]


def draw_source(
    vocab_size: int, order: int, concentration: float, seed: int
) -> tuple[MarkovSource, Array, Floats]:
    """Draw a Markov source of order 1 or 2; return it, its variables, and its window probabilities [V, V, V]."""
    random = np.random.default_rng([seed, order])
    rows = random.dirichlet(np.full(vocab_size, concentration), size=vocab_size**order)  # [V^N, V]
    return MarkovSource(vocab_size, order), jnp.asarray(np.log(rows), jnp.float32), window_probabilities(rows)


def sample_source(source: MarkovSource, log_rows: Array, num_tokens: int, *, key: Array) -> Ids:
    """Return tokens [num_tokens] of the source, after a burn-in."""
    start = np.zeros(source.context_length, np.int32)
    ids = jaxlm.sample(source, log_rows, start, _BURN_IN + num_tokens, key=key)
    return np.asarray(ids)[-num_tokens:]


def window_probabilities(rows: Floats) -> Floats:
    """Return the stationary probability of each window of three tokens, [V, V, V].

    Args:
        rows: transition probabilities of order 1 [V, V] or order 2 [V^2, V].

    The stationary probabilities p(a, b) solve p(b, c) = sum_a p(a, b) P(c | a, b) and sum to 1.
    """
    vocab_size = rows.shape[1]
    conditional = np.broadcast_to(rows.reshape(-1, vocab_size, vocab_size), (vocab_size,) * 3)  # P(c | a, b)
    transitions = np.einsum("abc,bd->dcab", conditional, np.eye(vocab_size)).reshape([vocab_size**2] * 2)
    system = transitions - np.eye(vocab_size**2)
    system[-1] = 1  # one equation follows from the others; replace it by the sum
    stationary = np.linalg.solve(system, np.eye(vocab_size**2)[-1])
    return stationary.reshape(vocab_size, vocab_size, 1) * conditional


def conditional_entropy(joint: Floats, context_length: int | None = None) -> float:
    """Return H(last token | the N tokens before it) in nats.

    Args:
        joint: probabilities of windows of tokens, [V, ..., V].
        context_length: N; None conditions on all tokens before the last.
    """
    if context_length is not None:
        joint = joint.sum(axis=tuple(range(joint.ndim - 1 - context_length)))
    rows = joint / np.maximum(joint.sum(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    return float(-(joint * np.log(rows, where=rows > 0, out=np.zeros_like(rows))).sum())


def cross_entropy(model: jaxlm.LanguageModel, variables: Any, windows: Floats) -> float:
    """Return the exact nats per token of the model under window probabilities [V, V, V], without sampling."""
    vocab_size = model.vocab_size
    pairs = np.indices((vocab_size, vocab_size), np.int32).reshape(2, -1).T  # [V^2, 2]
    log_probs = jax.nn.log_softmax(model.apply(variables, jnp.asarray(pairs[:, 2 - model.context_length :])))
    return float(-(windows.reshape(-1, vocab_size) * np.asarray(log_probs, np.float64)).sum())
