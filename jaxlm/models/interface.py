"""The language-model interface, and functions that work with every model."""

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.errors import ModifyScopeVariableError
from jax import Array
from numpy.typing import ArrayLike

# Protocols of `typing_extensions`, because Python 3.11 finds in a wrapper what its `__getattr__` forwards.
from typing_extensions import Protocol, runtime_checkable

from jaxlm._types import Contexts, FloatBV, IntBN, KeyLike, TargetLogProbs, Variables
from jaxlm.models.jit import jit_model
from jaxlm.utils.checks import check_at_least

T = TypeVar("T")


@runtime_checkable
class LanguageModel(Protocol):
    """Anything hashable with a vocabulary size, a context length and a pure `apply`.

    A model holds hyperparameters only; its arrays are the `variables`. Equal models share compiled programs.

    The methods of `SupportsInit`, `SupportsTraining`, `SupportsTargetLogProbs` and `jit.HasNumbers` are optional.

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

    def apply(self, variables: Variables, contexts: IntBN, /) -> Any:
        """Return logits [B, V] of the token that follows each of `contexts`."""

    def __hash__(self) -> int: ...


@runtime_checkable
class SupportsInit(Protocol):
    """A model that makes its variables. Every Flax module does."""

    def init(self, key: KeyLike, contexts: IntBN, /) -> Variables:
        """Return fresh variables, given any contexts."""


@runtime_checkable
class SupportsTraining(Protocol):
    """A model with other logits in training, for example with dropout."""

    def apply_in_training(self, variables: Variables, contexts: IntBN, key: KeyLike, /) -> Any:
        """Return logits [B, V] of a training step. `key` is consumed."""


@runtime_checkable
class SupportsTargetLogProbs(Protocol):
    """A model that looks up one token faster than it computes V."""

    def target_log_probs(self, variables: Variables, contexts: IntBN, /) -> TargetLogProbs:
        """Return a function of rows of `contexts` and of targets that returns log-probabilities."""


def refuse_subclasses(cls: type[T]) -> type[T]:
    """Make a subclass of `cls` a TypeError, because it could inherit a fast path that does not fit its logits."""

    def refuse(subclass: Any, /, **kwargs: Any) -> None:
        raise TypeError(f"{cls.__name__} cannot be subclassed; write a model that holds one and calls its apply")

    cls.__init_subclass__ = classmethod(refuse)  # type: ignore[assignment]
    return cls


def init(model: LanguageModel, key: KeyLike) -> Variables:
    """Return fresh variables for `model`, from its method `init`.

    >>> import jaxlm
    >>> variables = init(jaxlm.NeuralBigramLM(vocab_size=5, embedding_dim=2), jax.random.key(0))
    >>> variables["params"]["embedding"]["embedding"].shape
    (5, 2)
    """
    if not isinstance(model, SupportsInit):
        raise TypeError(f"{type(model).__name__} has no init(key, contexts); create its variables yourself")
    # In one program, because the first init of an MLP takes 0.5 s then, and 1.3 s operation by operation.
    make_variables = _init_module if isinstance(model, nn.Module) else _init
    return make_variables(model, key)


def _init(model: Any, key: KeyLike) -> Variables:
    return model.init(key, jnp.zeros((1, model.context_length), jnp.int32))


_init_module = jit_model(_init)


def num_params(variables: Variables) -> int:
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


def check_model(model: Any) -> None:
    """Raise a TypeError that names the field and the remedy unless `model` is hashable."""
    if _is_hashable(model):
        return
    problem = "declare it with @dataclass(frozen=True)"
    for field in getattr(type(model), "__match_args__", ()):  # the fields of a dataclass or a named tuple
        if not _is_hashable(value := getattr(model, field)):
            kind = type(value).__name__
            problem = f"its field {field} is not ({kind}); use a tuple, and put arrays into the variables"
    raise TypeError(f"{type(model).__name__} must be hashable: {problem}")


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def check_collections(model: Any, variables: Variables) -> None:
    """Raise a TypeError if a Flax module has variables that its `apply` updates: only params can be trained."""
    if not isinstance(model, nn.Module) or not (others := variables.keys() - {"params"}):
        return
    is_updated = "batch_stats" in others
    try:
        contexts = jnp.zeros((1, model.context_length), jnp.int32)
        jax.eval_shape(model.apply, variables, contexts)
    except ModifyScopeVariableError:
        is_updated = True
    if is_updated:
        updated = ", ".join(sorted(others))
        raise TypeError(
            f"{type(model).__name__} updates {updated} in its forward pass, but training updates "
            "only params; use layers without running statistics, such as nn.LayerNorm"
        )


@jax.named_scope("logits")
def compute_logits(model: LanguageModel, variables: Variables, contexts: Contexts) -> FloatBV:
    """Return `model.apply(variables, contexts)` as logits in at least float32, after checking their shape.

    A model may compute in bfloat16, but sums over V in bfloat16 would lose small probabilities. A pure function.

    >>> from jaxlm import UniformLM
    >>> compute_logits(UniformLM(vocab_size=2), {}, np.zeros((1, 0), np.int32)).tolist()
    [[0.0, 0.0]]
    """
    return _check_logits(model, model.apply(variables, contexts), contexts)


@jax.named_scope("logits")
def compute_training_logits(model: LanguageModel, variables: Variables, contexts: Contexts, key: KeyLike) -> Array:
    """Return the logits of a training step. `key` is consumed if the model has dropout."""
    if not isinstance(model, SupportsTraining):
        return compute_logits(model, variables, contexts)
    return _check_logits(model, model.apply_in_training(variables, contexts, key), contexts)


def _check_logits(model: LanguageModel, values: Any, contexts: Contexts) -> FloatBV:
    logits = jnp.asarray(values)
    if logits.shape != (len(contexts), model.vocab_size):
        raise ValueError(
            f"{type(model).__name__} returned logits of shape {list(logits.shape)}, expected [B, V] = "
            f"[{len(contexts)}, {model.vocab_size}]; do the variables belong to another model?"
        )
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def check_contexts(contexts: ArrayLike, context_length: int) -> IntBN:
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
