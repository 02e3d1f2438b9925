"""The language-model interface, and functions that work with every model."""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from jaxlm.models.jit import jit_model
from jaxlm.utils.checks import check_at_least


class LanguageModel(Protocol):
    """Anything hashable with a vocabulary size, a context length and a pure `apply`.

    A model holds hyperparameters only; its arrays are the `variables`. Equal models share compiled programs.

    Three methods are optional. `init(key, contexts)` returns fresh variables. `apply_in_training(variables,
    contexts, key)` returns logits [B, V] with the noise of a training step, such as dropout.
    `target_log_probs(variables, contexts)` is for a model that looks up one token faster than it computes V.
    It returns a function `(rows, targets) -> log_probs`, all [W]: each target's log-probability after its row.

    >>> from typing import NamedTuple
    >>> class RepeatLM(NamedTuple):  # the variables are the logit of repeating the last token
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

    def apply(self, variables: Any, contexts: Array, /) -> Any:
        """Return logits [B, V] of the token that follows each of `contexts`, int32 [B, N]."""

    def __hash__(self) -> int: ...


def init(model: LanguageModel, key: Array) -> Any:
    """Return fresh variables for `model`, from its method `init`.

    >>> import jaxlm
    >>> variables = init(jaxlm.NeuralBigramLM(vocab_size=5, embedding_dim=2), jax.random.key(0))
    >>> variables["params"]["embedding"]["embedding"].shape
    (5, 2)
    """
    if isinstance(model, nn.Module):
        return _init_module(model, key)
    init_model = getattr(model, "init", None)
    if init_model is None:
        raise TypeError(f"{type(model).__name__} has no init(key, contexts); create its variables yourself")
    return init_model(key, jnp.zeros((1, model.context_length), jnp.int32))


@jit_model
def _init_module(model: nn.Module, key: Array) -> Any:
    # In one program, because the first init of an MLP takes 0.5 s then, and 1.3 s operation by operation.
    return model.init(key, jnp.zeros((1, model.context_length), jnp.int32))


def num_params(variables: Any) -> int:
    """Return the number of elements in all arrays of `variables`."""
    return sum(np.size(leaf) for leaf in jax.tree.leaves(variables))


@functools.cache  # tracing `init` takes milliseconds, and equal models have equal sizes
def num_init_params(model: LanguageModel) -> int:
    """Return the number of elements in fresh variables. `jax.eval_shape` allocates no arrays for it."""
    return num_params(jax.eval_shape(lambda: init(model, jax.random.key(0))))


def num_contexts(model: LanguageModel) -> int:
    """Return V^N, the number of possible contexts."""
    return int(model.vocab_size) ** int(model.context_length)  # Python integers, because NumPy's wrap


def contexts_to_numbers(contexts: Any, vocab_size: int) -> Any:
    """Return contexts [B, N] as numbers in base V, int32 [B], in NumPy if they are a NumPy array."""
    numpy: Any = jnp if isinstance(contexts, Array) else np
    numbers = numpy.zeros(len(contexts), np.int32)
    for position in range(contexts.shape[1]):
        numbers = numbers * int(vocab_size) + contexts[:, position]
    return numbers


def compute_logits(model: LanguageModel, variables: Any, contexts: Array) -> Array:
    """Return `model.apply(variables, contexts)` as logits [B, V] in at least float32, after checking their shape.

    A model may compute in bfloat16, but sums over V in bfloat16 would lose small probabilities.
    """
    return _check_logits(model, model.apply(variables, contexts), contexts)


def compute_training_logits(model: LanguageModel, variables: Any, contexts: Array, key: Array) -> Array:
    """Return the logits [B, V] of a training step, from `apply_in_training` if the model has such a method.

    A subclass that overrides only the logits does not inherit the method.
    """
    methods = {"apply_in_training", "apply", "__call__"}
    owner = next((each for each in type(model).__mro__ if methods & vars(each).keys()), object)
    if "apply_in_training" not in vars(owner):
        return compute_logits(model, variables, contexts)
    logits = model.apply_in_training(variables, contexts, key)  # type: ignore[attr-defined]
    return _check_logits(model, logits, contexts)


def get_target_log_probs(model: LanguageModel) -> Callable[..., Callable[[Array, Array], Array]] | None:
    """Return `model.target_log_probs` if the model's own class defines it, otherwise None.

    A subclass or a wrapper that inherits the method may have other logits.
    """
    return model.target_log_probs if "target_log_probs" in vars(type(model)) else None  # type: ignore[attr-defined]


def _check_logits(model: LanguageModel, values: Any, contexts: Array) -> Array:
    logits = jnp.asarray(values)
    if logits.shape != (len(contexts), model.vocab_size):
        raise ValueError(
            f"{type(model).__name__} returned logits of shape {list(logits.shape)}, expected [B, V] = "
            f"[{len(contexts)}, {model.vocab_size}]; do the variables belong to another model?"
        )
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def check_contexts(contexts: Array, context_length: int) -> Array:
    """Return `contexts` [B, N], or [B] if N = 1, as integers [B, N]; raise an error for another type or shape."""
    contexts = jnp.asarray(contexts)
    if not jnp.issubdtype(contexts.dtype, jnp.integer):
        raise TypeError(f"contexts must be integers, got {contexts.dtype}")
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
