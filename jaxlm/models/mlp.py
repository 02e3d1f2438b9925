"""The third rung: a network that reads more than one token of context."""

from typing import Any

from flax import linen as nn
from jax import Array

from jaxlm.models._linen import FrozenModule, small_init
from jaxlm.models.interface import check_contexts, check_sizes


class MLPLanguageModel(FrozenModule):
    """`logits = U tanh(H x + d) + b (+ W x)`, x = [e1; ...; eN]: embed, concatenate, one hidden layer, project.

    Its size grows by the token of context as `embedding_dim * hidden_dim`, where a table of counts grows by the
    factor `vocab_size`. Its variables are five arrays: embedding [V, D], hidden kernel [N * D, H] and bias [H],
    output kernel [H, V] and bias [V]; with direct connections a sixth, their kernel [N * D, V].

    Args:
        dropout: the share of the hidden units that a step of training leaves out, by chance and window by window;
            those that stay are scaled up (Srivastava et al. 2014, "Dropout"). Predictions use all of them.
        direct_connections: W, from the embeddings to the logits past the hidden layer.

    Bengio et al. (2003), "A Neural Probabilistic Language Model", equation 1.

    Raises:
        TypeError, ValueError: a size is no positive integer, or dropout does not lie in [0, 1).
    """

    vocab_size: int
    context_length: int
    embedding_dim: int
    hidden_dim: int
    dropout: float = 0.0
    direct_connections: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "context_length", "embedding_dim", "hidden_dim")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"MLPLanguageModel: dropout must lie in [0, 1), got {self.dropout}")
        if not isinstance(self.direct_connections, bool):
            raise TypeError(
                f"MLPLanguageModel: direct_connections must be true or false, got {self.direct_connections!r}"
            )
        super().__post_init__()

    def setup(self) -> None:
        self.embedding = nn.Embed(self.vocab_size, self.embedding_dim)
        self.hidden = nn.Dense(self.hidden_dim)
        self.thinning = nn.Dropout(self.dropout)
        self.projection = nn.Dense(self.vocab_size, kernel_init=small_init())
        if self.direct_connections:
            self.direct = nn.Dense(self.vocab_size, use_bias=False, kernel_init=small_init())

    def __call__(self, contexts: Array, *, dropout_key: Array | None = None) -> Array:
        """Contexts [B, N] -> logits [B, V]; with a key, those of a step of training."""
        contexts = check_contexts(contexts, self.context_length)
        embedded = self.embedding(contexts)  # [B, N, D]
        concatenated = embedded.reshape(len(contexts), self.context_length * self.embedding_dim)
        hidden = nn.tanh(self.hidden(concatenated))  # [B, H]
        hidden = self.thinning(hidden, deterministic=dropout_key is None, rng=dropout_key)
        logits: Array = self.projection(hidden)
        return logits + self.direct(concatenated) if self.direct_connections else logits

    logits = __call__

    @nn.nowrap
    def apply_in_training(self, variables: Any, contexts: Array, key: Array) -> Any:
        """As `NoisyModel` has it."""
        return self.apply(variables, contexts, dropout_key=key)
