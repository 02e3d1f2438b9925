"""The language-model interface, and functions that work with every model."""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.errors import ModifyScopeVariableError
from jax import Array, lax
from numpy.typing import ArrayLike

# `runtime_checkable` of Python 3.11 uses `hasattr`, so a wrapper with `__getattr__` would seem to have every
# method. `typing_extensions` does not.
from typing_extensions import Protocol, runtime_checkable

from jaxlm._types import Contexts, FloatB, FloatBV, IntBN, KeyLike, TargetLogProbs, Variables
from jaxlm.models.jit import check_model, jit_model
from jaxlm.text.batching import as_integers
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.keys import check_key


@runtime_checkable
class LanguageModel(Protocol):
    """Anything hashable with a vocabulary size, a context length and a pure `apply`.

    A model holds hyperparameters only; its arrays are the `variables`. Equal models share compiled programs.

    The methods of `SupportsInit`, `SupportsTraining`, `SupportsTargetLogProbs` and `HasHyperparams` are optional.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class RepeatLM:  # the variables are the logit of repeating the last token
    ...     vocab_size: int = 4
    ...     context_length: int = 1
    ...     def apply(self, variables, contexts):
    ...         return variables * jax.nn.one_hot(contexts[:, -1], self.vocab_size)
    >>> import jaxlm
    >>> round(jaxlm.perplexity(RepeatLM(), 0.0, [0, 0, 1, 3]), 4)
    4.0
    """

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""

    @property
    def context_length(self) -> int:
        """N, the number of tokens before the predicted one that the model reads."""

    def apply(self, variables: Variables, contexts: IntBN, /) -> Any:
        """Return logits [B, V] of the token that follows each of `contexts`."""

    def __hash__(self) -> int: ...


@runtime_checkable
class SupportsInit(Protocol):
    """A model that creates its variables. Every Flax module does."""

    def init(self, key: KeyLike, contexts: IntBN, /) -> Variables:
        """Return fresh variables, given any contexts."""


@runtime_checkable
class SupportsTraining(Protocol):
    """A model whose logits differ in training, for example because of dropout."""

    def apply_in_training(self, variables: Variables, contexts: IntBN, key: KeyLike, /) -> Any:
        """Return logits [B, V] for a training step; `key` is the dropout key."""


@runtime_checkable
class SupportsTargetLogProbs(Protocol):
    """A model that computes the log-probability of one token faster than those of all V."""

    def target_log_probs(self, variables: Variables, contexts: IntBN, /) -> TargetLogProbs:
        """Return a function of rows [W] and targets [W]: log-probabilities of `targets` after `contexts[rows]`."""


def init(model: LanguageModel, key: Array) -> Variables:
    """Return fresh variables for `model`, from its method `init`.

    >>> import jaxlm
    >>> variables = init(jaxlm.NeuralBigramLM(vocab_size=5, embedding_dim=2), jax.random.key(0))
    >>> variables["params"]["embedding"]["embedding"].shape
    (5, 2)
    """
    check_model(model)
    if not isinstance(model, SupportsInit):
        raise TypeError(f"{type(model).__name__} has no init(key, contexts); create its variables yourself")
    # Compiled as one program: the first init of an MLP takes 0.5 s, against 1.3 s operation by operation.
    make_variables = _init_module if isinstance(model, nn.Module) else _init
    return make_variables(model, check_key(key))


def _init(model: Any, key: KeyLike) -> Variables:
    return model.init(key, jnp.zeros((1, model.context_length), jnp.int32))


_init_module = jit_model(_init)


def num_params(variables: Variables) -> int:
    """Return the number of elements in all arrays of `variables`."""
    return sum(np.size(leaf) for leaf in jax.tree.leaves(variables))


# Tracing `init` takes milliseconds. Typed, because named tuples of two types can be equal.
@functools.lru_cache(maxsize=128, typed=True)
def num_init_params(model: LanguageModel) -> int:
    """Return the number of elements in fresh variables, computed with `jax.eval_shape`."""
    return num_params(jax.eval_shape(lambda: init(model, jax.random.key(0))))


def num_contexts(model: LanguageModel) -> int:
    """Return V^N, the number of possible contexts."""
    return int(model.vocab_size) ** int(model.context_length)  # Python integers, because NumPy's wrap


def encode_contexts(contexts: Any, vocab_size: int) -> Any:
    """Encode each context [B, N] as one integer in base V, int32 [B]. NumPy in, NumPy out."""
    numpy: Any = jnp if isinstance(contexts, Array) else np
    codes = numpy.zeros(len(contexts), np.int32)
    for position in range(contexts.shape[1]):
        codes = codes * int(vocab_size) + contexts[:, position]
    return codes


def check_collections(model: Any, variables: Variables) -> None:
    """Raise a TypeError if a Flax module has collections that `apply` updates, such as `batch_stats`."""
    if not isinstance(model, nn.Module) or not (others := variables.keys() - {"params"}):
        return
    with contextlib.suppress(ModifyScopeVariableError):
        jax.eval_shape(model.apply, variables, jnp.zeros((1, model.context_length), jnp.int32))
        if "batch_stats" not in others:
            return
    raise TypeError(
        f"{type(model).__name__} has {', '.join(sorted(others))}, which training would leave unchanged; "
        "use layers without running statistics, such as nn.LayerNorm"
    )


@jax.named_scope("logits")
def compute_logits(
    model: LanguageModel, variables: Variables, contexts: Contexts, *, key: KeyLike | None = None
) -> FloatBV:
    """Return `model.apply(variables, contexts)` as float32 or wider, with its shape checked. A pure function.

    A model may compute in bfloat16, but sums over V in bfloat16 would lose small probabilities.

    Args:
        contexts: integers [B, N].
        key: dropout key of a training step; None means prediction, without dropout.

    Returns:
        logits [B, V].

    Raises:
        ValueError: the model returned another shape.
        TypeError: the model is not hashable.

    >>> from jaxlm import UniformLM
    >>> compute_logits(UniformLM(vocab_size=2), {}, np.zeros((1, 0), np.int32)).tolist()
    [[0.0, 0.0]]
    """
    check_model(model)
    if key is not None and isinstance(model, SupportsTraining):
        logits = jnp.asarray(model.apply_in_training(variables, contexts, key))
    else:
        logits = jnp.asarray(model.apply(variables, contexts))
    if logits.shape != (contexts.shape[0], model.vocab_size):
        raise ValueError(
            f"{type(model).__name__} returned logits of shape {list(logits.shape)}, expected [B, V] = "
            f"[{contexts.shape[0]}, {model.vocab_size}]; check that the variables belong to this model"
        )
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


@jax.named_scope("center")
def center_logits(logits: FloatBV) -> tuple[FloatBV, FloatB]:
    """Return logits minus the maximum of their row, and the log of the sum of their exponentials.

    The difference of the two is `jax.nn.log_softmax(logits)`, but -inf, not NaN, in a row of -inf.
    """
    largest = lax.stop_gradient(logits.max(axis=1, keepdims=True))
    # -inf - -inf is NaN, so a row of -inf stays as it is, with the sum 1.
    centered = logits - jnp.where(largest == -jnp.inf, 0, largest)
    sums = jnp.exp(centered).sum(axis=1)
    return centered, jnp.log(jnp.where(sums == 0, 1, sums))


def target_log_probs(model: LanguageModel, variables: Variables, contexts: IntBN) -> TargetLogProbs:
    """Return the function that `SupportsTargetLogProbs` describes, for any model."""
    if isinstance(model, SupportsTargetLogProbs):
        return model.target_log_probs(variables, contexts)
    centered, log_sums = center_logits(compute_logits(model, variables, contexts))
    return lambda rows, targets: centered[rows, targets] - log_sums[rows]


def check_contexts(contexts: ArrayLike, context_length: int) -> IntBN:
    """Return `contexts` as integers [B, N]. [B] is accepted if N = 1; any other type or shape is an error."""
    contexts = jnp.asarray(as_integers(contexts, "contexts"))
    if context_length == 1 and contexts.ndim == 1:
        return contexts[:, None]
    if contexts.ndim != 2 or contexts.shape[1] != context_length:
        wanted = f"[B, {context_length}]" + (" or [B]" if context_length == 1 else "")
        raise ValueError(f"contexts must have shape {wanted}, got {list(contexts.shape)}")
    return contexts


def check_sizes(model: Any, *fields: str) -> None:
    """Raise a TypeError or a ValueError unless each named field of `model` is a positive integer."""
    for field in fields:
        check_at_least(f"{type(model).__name__}: {field}", getattr(model, field), 1)
