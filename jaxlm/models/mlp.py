"""The MLP: a network with one hidden layer and a context of several tokens."""

from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp
from flax import linen as nn
from numpy.typing import ArrayLike

from jaxlm._types import FloatBV, IntBN, KeyLike, Variables
from jaxlm.models._linen import FrozenModule, small_init
from jaxlm.models.interface import check_contexts, check_sizes
from jaxlm.models.jit import is_abstract
from jaxlm.utils.checks import check_number


@final
class MLPLanguageModel(FrozenModule):
    """Embed N tokens, concatenate, apply tanh, project: `logits = U tanh(H x + d) + b`, x = [e1; ...; eN].

    One more context token adds D * H parameters; in a table of counts, it multiplies the size by V.

    Args:
        context_length: N, at least 1.
        embedding_dim: D, the width of a token's embedding.
        hidden_dim: H, the number of hidden units.
        dropout: probability, in [0, 1), of dropping a hidden unit in training; the others are scaled by
            1 / (1 - dropout) (Srivastava et al. 2014). Predictions use all units.
        direct_connections: add `W x` to the logits, a linear path past the hidden layer.

    Variables: `{"params": ...}` with the embedding [V, D], the hidden layer's kernel [N * D, H] and bias [H], the
    projection's kernel [H, V] and bias [V]; with direct connections also W, a kernel [N * D, V].

    Source: Bengio et al. (2003), "A Neural Probabilistic Language Model", equation 1.

    >>> import jax, jaxlm
    >>> model = MLPLanguageModel(vocab_size=27, context_length=3, embedding_dim=8, hidden_dim=16)
    >>> variables = jaxlm.init(model, jax.random.key(0))
    >>> model.apply(variables, jax.numpy.array([[0, 0, 5], [0, 5, 13]])).shape
    (2, 27)
    """

    vocab_size: int
    context_length: int
    embedding_dim: int
    hidden_dim: int
    dropout: float = 0.0
    direct_connections: bool = False

    def setup(self) -> None:
        self.embedding = nn.Embed(self.vocab_size, self.embedding_dim)
        self.hidden = nn.Dense(self.hidden_dim)
        self.projection = nn.Dense(self.vocab_size, kernel_init=small_init())
        if self.direct_connections:
            self.direct = nn.Dense(self.vocab_size, use_bias=False, kernel_init=small_init())

    def __call__(self, contexts: ArrayLike, *, deterministic: bool = True) -> FloatBV:
        """Return logits for contexts [B, N]. Dropout needs `deterministic=False` and the RNG "dropout"."""
        contexts = check_contexts(contexts, self.context_length)
        embedded = self.embedding(contexts)  # [B, N, D]
        concatenated = embedded.reshape(contexts.shape[0], self.context_length * self.embedding_dim)
        hidden = nn.tanh(self.hidden(concatenated))  # [B, H]
        if not deterministic and (is_abstract(self.dropout) or self.dropout):
            # Equal to `nn.Dropout`, which does not accept a traced rate. It multiplies, because XLA divides by a
            # traced number on one device and multiplies by its reciprocal on several, with other bits.
            is_kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.dropout, hidden.shape)
            hidden = jnp.where(is_kept, hidden * (1 / (1 - self.dropout)), 0)
        logits: FloatBV = self.projection(hidden)
        return logits + self.direct(concatenated) if self.direct_connections else logits

    logits = __call__

    @nn.nowrap
    def apply_in_training(self, variables: Variables, contexts: IntBN, key: KeyLike) -> Any:
        """See `SupportsTraining`."""
        return self.apply(variables, contexts, deterministic=False, rngs={"dropout": key})

    @nn.nowrap
    def map_hyperparams(self, function: Callable[[Any], Any]) -> "MLPLanguageModel":
        """See `HasHyperparams`."""
        return self.copy(dropout=function(self.dropout))

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "context_length", "embedding_dim", "hidden_dim")
        if not (is_abstract(self.dropout) or 0 <= check_number("MLPLanguageModel: dropout", self.dropout) < 1):
            raise ValueError(f"MLPLanguageModel: dropout must be in [0, 1), got {self.dropout}")
        if not isinstance(self.direct_connections, bool):
            raise TypeError(
                f"MLPLanguageModel: direct_connections must be true or false, got {self.direct_connections!r}"
            )
        super().__post_init__()
