"""Baselines that every model should beat, as plain dataclasses: a language model does not need Flax."""

from dataclasses import dataclass
from typing import final

import jax.numpy as jnp
from jax import Array, lax

from jaxlm._types import FloatBV, Variables


@final
@dataclass(frozen=True)
class UniformLM:
    """Predict every token with the same probability. The model has no variables; its perplexity is V.

    >>> UniformLM(vocab_size=3).apply({}, jnp.zeros((1, 0), jnp.int32)).tolist()
    [[0.0, 0.0, 0.0]]
    """

    vocab_size: int
    context_length: int = 0

    def apply(self, variables: Variables, contexts: Array) -> FloatBV:
        """Return logits [B, V], all zero, for contexts [B, N]."""
        # The barrier hides the constant from XLA, which would spend seconds on folding it.
        zero = lax.optimization_barrier(jnp.zeros(()))  # type: ignore[no-untyped-call]
        return jnp.broadcast_to(zero, (contexts.shape[0], self.vocab_size))


@final
@dataclass(frozen=True)
class UnigramLM:
    """Predict each token with its add-one smoothed frequency. Variables: the counts of the tokens, int32 [V].

    >>> logits = UnigramLM(vocab_size=3).apply(jnp.array([3, 1, 0]), jnp.zeros((1, 0), jnp.int32))
    >>> jnp.exp(logits).round(2).tolist()
    [[4.0, 2.0, 1.0]]
    """

    vocab_size: int
    context_length: int = 0

    def apply(self, variables: Array, contexts: Array) -> FloatBV:
        """Return logits [B, V], the same in every row, for contexts [B, N]."""
        return jnp.broadcast_to(jnp.log(variables + 1.0), (contexts.shape[0], self.vocab_size))
