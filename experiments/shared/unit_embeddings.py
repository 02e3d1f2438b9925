"""Another start for a network: embeddings as large as tanh needs them."""

import math
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

import jaxlm


@dataclass(frozen=True)
class UnitEmbeddings:
    """The network, its embedding [V, D] drawn from N(0, 1), as makemore's is, and not from N(0, 1 / D).

    What enters tanh is then of size 1 from the start, where it bends; else SGD has to get there first, which takes
    most of a short training. Everything else is the network's own, its variables too.

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
        """The network's fresh variables, the embedding's times sqrt(D)."""
        params = jaxlm.init(self.network, key)["params"]
        scale = math.sqrt(self.network.embedding_dim)
        return {"params": {**params, "embedding": jax.tree.map(lambda leaf: leaf * scale, params["embedding"])}}

    def apply(self, variables: Any, contexts: Array) -> Array:
        """Contexts [B, N] -> logits [B, V]."""
        logits: Array = self.network.apply(variables, contexts)  # type: ignore[assignment]  # Flax says Any
        return logits

    def apply_in_training(self, variables: Any, contexts: Array, key: Array) -> Any:
        """The network's own."""
        return self.network.apply_in_training(variables, contexts, key)
