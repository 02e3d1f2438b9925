"""The neural bigram: a low-rank table of logits, trained by gradient descent."""

from typing import final

from flax import linen as nn
from numpy.typing import ArrayLike

from jaxlm._types import FloatBV
from jaxlm.models._linen import FrozenModule, small_init
from jaxlm.models.interface import check_contexts, check_sizes


@final
class NeuralBigramLM(FrozenModule):
    """Predict the next token from the last one: `logits = E[v] W + b` for the context token v.

    Without the bias, the table of logits has at most the rank D = `embedding_dim`. With D >= V - 1 the model can
    represent every table of positive probabilities.

    Variables: `{"params": ...}` with E, the embedding [V, D]; W, the projection's kernel [D, V]; b, its bias [V].

    Source: Bengio et al. (2003), "A Neural Probabilistic Language Model", without the hidden layer.

    >>> import jax, jaxlm
    >>> model = NeuralBigramLM(vocab_size=27, embedding_dim=8)
    >>> variables = jaxlm.init(model, jax.random.key(0))
    >>> model.apply(variables, jax.numpy.array([3, 5])).shape
    (2, 27)
    """

    vocab_size: int
    embedding_dim: int

    context_length = 1

    def setup(self) -> None:
        self.embedding = nn.Embed(self.vocab_size, self.embedding_dim)
        self.projection = nn.Dense(self.vocab_size, kernel_init=small_init())

    def __call__(self, contexts: ArrayLike) -> FloatBV:
        """Return logits for contexts [B] or [B, 1]."""
        contexts = check_contexts(contexts, self.context_length)
        embedded = self.embedding(contexts[:, 0])  # [B, D]
        return self.projection(embedded)

    logits = __call__

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "embedding_dim")
        super().__post_init__()
