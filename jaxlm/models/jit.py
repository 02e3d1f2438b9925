"""`jax.jit` for functions of a model: the model's numbers are traced, so another value compiles nothing."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import jax
import numpy as np
from typing_extensions import Protocol, runtime_checkable

Function = TypeVar("Function", bound=Callable[..., Any])

# Replaces a traced number in the static part of a model.
_PLACEHOLDER = jax.ShapeDtypeStruct((), np.float32)  # type: ignore[no-untyped-call]


@runtime_checkable
class HasNumbers(Protocol):
    """A model that names the numbers that `jit_model` traces. All other models are static."""

    def map_numbers(self, function: Callable[[Any], Any]) -> Any:
        """Return the model with each of its numbers replaced by `function(number)`."""


@jax.tree_util.register_pytree_node_class
class _SplitModel:
    """A pytree of the numbers of a model. Its structure, the model with placeholders, is static."""

    def __init__(self, structure: Any, numbers: Any) -> None:
        self.structure, self.numbers = structure, numbers

    def tree_flatten(self) -> tuple[Any, Any]:
        # With the type, because named tuples of two types can be equal.
        return self.numbers, (type(self.structure), self.structure)

    @classmethod
    def tree_unflatten(cls, static: Any, numbers: Any) -> "_SplitModel":
        return cls(static[1], numbers)

    def join(self) -> Any:
        numbers = iter(self.numbers)

        def fill(number: Any) -> Any:
            return next(numbers) if number is _PLACEHOLDER else number

        return self.structure.map_numbers(fill) if self.numbers else self.structure


def _split_model(model: Any) -> _SplitModel:
    numbers: list[Any] = []

    def take(number: Any) -> Any:
        if is_abstract(number):
            numbers.append(number)
        elif number == 0:
            return number
        else:
            numbers.append(float(number))
        return _PLACEHOLDER

    structure = model.map_numbers(take) if isinstance(model, HasNumbers) else model
    return _SplitModel(structure, tuple(numbers))


_split_model_cached = functools.lru_cache(maxsize=1024, typed=True)(_split_model)


def _split(model: Any) -> _SplitModel:
    try:
        return _split_model_cached(model)  # copying a Linen module takes 0.3 ms
    except TypeError:  # a model with numbers that are traced already cannot be hashed
        return _split_model(model)


def jit_model(
    fun: Function, *, static_argnames: str | Iterable[str] = (), donate_argnames: str | Iterable[str] = ()
) -> Function:
    """Return `jax.jit(fun)` for a function whose first argument is a model.

    The model is static except for its numbers, such as a dropout rate. A number that is 0 is static too, so that
    `fun` can skip what it would multiply.
    """

    @functools.partial(jax.jit, static_argnames=static_argnames, donate_argnames=donate_argnames)
    @functools.wraps(fun)
    def jitted(model: Any, /, *args: Any, **kwargs: Any) -> Any:
        return fun(model.join(), *args, **kwargs)

    @functools.wraps(fun)
    def call(model: Any, /, *args: Any, **kwargs: Any) -> Any:
        return jitted(_split(model), *args, **kwargs)

    program: Any = jitted
    attributes: Any = call
    attributes.lower = lambda model, *args, **kwargs: program.lower(_split(model), *args, **kwargs)
    attributes._cache_size = lambda: program._cache_size()
    return cast(Function, call)


def is_abstract(number: Any) -> bool:
    """Return whether the value of a number is unknown because it is traced."""
    return isinstance(number, jax.core.Tracer | jax.ShapeDtypeStruct)
