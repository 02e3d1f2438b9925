"""The second rung: the same table, factored into an embedding and a projection, and learnt by gradient."""

from flax import linen as nn
from jax import Array

from jaxlm.models._linen import FrozenModule, small_init
from jaxlm.models.interface import check_contexts, check_sizes


class NeuralBigramLM(FrozenModule):
    """`logits = E[w] W + b`: a bigram whose table of logits has rank `embedding_dim`.

    With `embedding_dim >= vocab_size - 1` it can be any table of probabilities without zeros; below that,
    tokens share strength. Its variables are three arrays: embedding [V, D], kernel [D, V] and bias [V].

    The network without a hidden layer of Bengio et al. (2003), "A Neural Probabilistic Language Model".
    """

    vocab_size: int
    embedding_dim: int

    context_length = 1

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "embedding_dim")
        super().__post_init__()

    def setup(self) -> None:
        self.embedding = nn.Embed(self.vocab_size, self.embedding_dim)
        self.projection = nn.Dense(self.vocab_size, kernel_init=small_init())

    def __call__(self, contexts: Array) -> Array:
        """Contexts [B] or [B, 1] -> logits [B, V]."""
        contexts = check_contexts(contexts, self.context_length)
        logits: Array = self.projection(self.embedding(contexts[:, 0]))
        return logits

    logits = __call__
