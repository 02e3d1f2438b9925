"""The MLP with embeddings initialised at the scale that tanh needs."""

import math
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

import jaxlm


@dataclass(frozen=True)
class UnitEmbeddings:
    """An MLP whose embedding [V, D] is initialised from N(0, 1), as in makemore, instead of N(0, 1 / D).

    The inputs of tanh then have a standard deviation near 1, where tanh is not linear. With the smaller embedding,
    SGD spends most of a short training on growing them. Everything else is as in `network`.

    Karpathy (2022), "makemore", part 3; Glorot & Bengio (2010), "Understanding the Difficulty of Training Deep
    Feedforward Neural Networks".
    """

    network: jaxlm.MLPLanguageModel

    @property
    def vocab_size(self) -> int:
        return self.network.vocab_size

    @property
    def context_length(self) -> int:
        return self.network.context_length

    def init(self, key: Array, contexts: Array) -> Any:
        """Return the network's initial variables with the embedding scaled by sqrt(D)."""
        params = jaxlm.init(self.network, key)["params"]
        scale = math.sqrt(self.network.embedding_dim)
        return {"params": {**params, "embedding": jax.tree.map(lambda leaf: leaf * scale, params["embedding"])}}

    def apply(self, variables: Any, contexts: Array) -> Array:
        """Return the logits [B, V] after the contexts [B, N]."""
        logits: Array = self.network.apply(variables, contexts)  # type: ignore[assignment]  # Flax returns Any
        return logits
