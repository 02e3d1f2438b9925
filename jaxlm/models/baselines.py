"""What a model must beat. Plain dataclasses: a language model need not know of Flax."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array, lax


@dataclass(frozen=True)
class UniformLM:
    """Every token equally likely: perplexity V. It has no variables."""

    vocab_size: int
    context_length: int = 0

    def apply(self, variables: Any, contexts: Array) -> Array:
        """Contexts [B, N] -> logits [B, V], all zero."""
        # The barrier keeps XLA from spending seconds on folding what follows from a constant.
        zero = lax.optimization_barrier(jnp.zeros(()))  # type: ignore[no-untyped-call]
        return jnp.broadcast_to(zero, (len(contexts), self.vocab_size))


@dataclass(frozen=True)
class UnigramLM:
    """Every token as likely as it is frequent, with add-one: `variables` are the counts, int32 [V]."""

    vocab_size: int
    context_length: int = 0

    def apply(self, variables: Array, contexts: Array) -> Array:
        """Contexts [B, N] -> logits [B, V], the same in every row."""
        return jnp.broadcast_to(jnp.log(variables + 1.0), (len(contexts), self.vocab_size))
