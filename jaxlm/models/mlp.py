"""The third rung: a network that reads more than one token of context."""

from flax import linen as nn
from jax import Array

from jaxlm.models.interface import check_contexts, check_sizes
from jaxlm.models.linen import FrozenModule, small_init


class MLPLanguageModel(FrozenModule):
    """`logits = U tanh(H [e1; ...; eN] + d) + b`: embed, concatenate, one hidden layer, project.

    Its size grows by the token of context as `embedding_dim * hidden_dim`, where a table of counts grows by the
    factor `vocab_size`. Its variables are five arrays: embedding [V, D], hidden kernel [N * D, H] and bias [H],
    output kernel [H, V] and bias [V].

    Bengio et al. (2003), "A Neural Probabilistic Language Model", equation 1 without direct connections.
    """

    vocab_size: int
    context_length: int
    embedding_dim: int
    hidden_dim: int

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "context_length", "embedding_dim", "hidden_dim")
        super().__post_init__()

    def setup(self) -> None:
        self.embedding = nn.Embed(self.vocab_size, self.embedding_dim)
        self.hidden = nn.Dense(self.hidden_dim)
        self.projection = nn.Dense(self.vocab_size, kernel_init=small_init())

    def __call__(self, contexts: Array) -> Array:
        """Contexts [B, N] -> logits [B, V]."""
        contexts = check_contexts(contexts, self.context_length)
        embedded = self.embedding(contexts)  # [B, N, D]
        concatenated = embedded.reshape(len(contexts), self.context_length * self.embedding_dim)
        logits: Array = self.projection(nn.tanh(self.hidden(concatenated)))
        return logits

    logits = __call__
