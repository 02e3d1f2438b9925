"""What every language model is, and the checks that all of them share."""

import functools
from collections.abc import Callable
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from jaxlm.utils.checks import check_at_least


class LanguageModel(Protocol):
    """Anything hashable with a vocabulary, a context length and a pure `apply`.

    A model holds hyper-parameters only. Two models that compare equal share their compiled programs.
    """

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""

    @property
    def context_length(self) -> int:
        """N, the number of tokens that a prediction sees."""

    def apply(self, variables: Any, contexts: Array, /) -> Any:
        """Logits [B, V] of the token after each of `contexts`, int32 [B, N]."""

    def __hash__(self) -> int: ...


class TargetScorer(LanguageModel, Protocol):
    """A language model that knows a token's probability without the scores of all V, as counts do."""

    def target_log_probs(self, variables: Any, contexts: Array, /) -> Callable[[Array, Array], Array]:
        """For contexts [B, N], the function of rows [W] of them and targets [W] that gives log-probabilities [W].

        That is called several times: what the targets after one context share is computed before.
        """


def target_scorer(model: LanguageModel) -> TargetScorer | None:
    """`model`, if its own class can score targets; what cannot is scored by its logits, to the same result."""
    # Its own: a subclass, or a wrapper that passes names on, may have other logits.
    return cast(TargetScorer, model) if "target_log_probs" in vars(type(model)) else None


class NoisyModel(LanguageModel, Protocol):
    """A language model that is trained with noise, as dropout is."""

    def apply_in_training(self, variables: Any, contexts: Array, key: Array, /) -> Any:
        """Logits [B, V] under the noise of `key`; `apply` has none."""


def num_contexts(model: LanguageModel) -> int:
    """V^N, how many contexts there are."""
    return int(model.vocab_size) ** int(model.context_length)  # a NumPy integer would wrap


def init(model: LanguageModel, key: Array) -> Any:
    """Fresh variables for `model`: those that its own `init(key, contexts)` makes for a batch of one.

    Raises:
        TypeError: the model has no `init`.
    """
    if isinstance(model, nn.Module):
        return _init_module(model, key)
    make_variables = getattr(model, "init", None)
    if make_variables is None:
        raise TypeError(
            f"{type(model).__name__} has no init(key, contexts); make its variables yourself and pass them"
        )
    return make_variables(key, jnp.zeros((1, model.context_length), jnp.int32))


@functools.partial(jax.jit, static_argnames="model")
def _init_module(model: nn.Module, key: Array) -> Any:
    # Compiled as one program: 0.5 s for a first MLP, where compiling each small operation takes 1.3 s.
    return model.init(key, jnp.zeros((1, model.context_length), jnp.int32))


def num_params(variables: Any) -> int:
    """How many numbers `variables` hold, or what `jax.eval_shape` gives for them."""
    return sum(np.size(leaf) for leaf in jax.tree.leaves(variables))


@functools.cache  # to trace `init` takes milliseconds, and equal models are as large
def num_init_params(model: LanguageModel) -> int:
    """How many numbers its fresh variables hold, of which no device hears."""
    return num_params(jax.eval_shape(lambda: init(model, jax.random.key(0))))


def compute_logits(model: LanguageModel, variables: Any, contexts: Array) -> Array:
    """`model.apply(variables, contexts)`, known to be logits [B, V], in float32 or better.

    A model may compute in bfloat16; the sums of what comes after would lose its small probabilities.

    Raises:
        ValueError: they have another shape, as when the variables are those of another vocabulary.
    """
    return _checked_logits(model, model.apply(variables, contexts), contexts)


def compute_training_logits(model: LanguageModel, variables: Any, contexts: Array, key: Array) -> Array:
    """`compute_logits`, but of a `NoisyModel` the logits under the noise of `key`."""
    if not _is_noisy(type(model)):
        return compute_logits(model, variables, contexts)
    return _checked_logits(model, cast(NoisyModel, model).apply_in_training(variables, contexts, key), contexts)


def _is_noisy(model_class: type) -> bool:
    """Whether a class says how it is trained with noise. A subclass with other logits has to say it anew."""
    for each in model_class.__mro__:
        if "apply_in_training" in vars(each):
            return True
        if not {"apply", "__call__"}.isdisjoint(vars(each)):
            return False
    return False


def _checked_logits(model: LanguageModel, found: Any, contexts: Array) -> Array:
    logits = jnp.asarray(found)
    if logits.shape != (len(contexts), model.vocab_size):
        raise ValueError(
            f"{type(model).__name__} gave logits of shape {list(logits.shape)}, wanted [B, V] = "
            f"[{len(contexts)}, {model.vocab_size}]: are the variables those of another model?"
        )
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def check_contexts(contexts: Array, context_length: int) -> Array:
    """`contexts` as integers [B, N]; for N = 1 the shape [B] is taken too.

    Raises:
        TypeError: they are not integers.
        ValueError: they have another shape.
    """
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
    """Raises a TypeError or a ValueError unless each named field of `model` is a positive integer."""
    for field in fields:
        check_at_least(f"{type(model).__name__}: {field}", getattr(model, field), 1)
