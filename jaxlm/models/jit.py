"""`jax.jit` for functions of a model. Float hyperparameters are traced, so a new value does not recompile."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import numpy as np
from jax.tree_util import Partial
from typing_extensions import Protocol, runtime_checkable

Function = TypeVar("Function", bound=Callable[..., Any])

# Replaces a traced hyperparameter in the static part of a model.
_PLACEHOLDER = jax.ShapeDtypeStruct((), np.float32)  # type: ignore[no-untyped-call]


@runtime_checkable
class HasHyperparams(Protocol):
    """A model that lists the float hyperparameters that `jit_model` traces. Other models are static."""

    def map_hyperparams(self, function: Callable[[Any], Any]) -> Any:
        """Return the model with `function(number)` in place of each number that `apply` uses.

        A hyperparameter that `apply` does not use may be set to a constant, so that it does not recompile.
        """


def jit_model(
    fun: Function, *, static_argnames: str | Iterable[str] = (), donate_argnames: str | Iterable[str] = ()
) -> Function:
    """Return `jax.jit(fun)` for a function whose first argument is a model.

    The model is static except for its float hyperparameters, such as a dropout rate. A hyperparameter that is 0 is
    static too, so that `fun` can skip its term.
    """

    @functools.partial(jax.jit, static_argnames=static_argnames, donate_argnames=donate_argnames)
    @functools.wraps(fun)
    def jitted(make_model: Partial, /, *args: Any, **kwargs: Any) -> Any:
        return fun(make_model(), *args, **kwargs)

    @functools.wraps(fun)
    def call(model: Any, /, *args: Any, **kwargs: Any) -> Any:
        return jitted(_split(model), *args, **kwargs)

    program, function = cast(Any, jitted), cast(Any, call)
    function.lower = lambda model, *args, **kwargs: program.lower(_split(model), *args, **kwargs)
    function._cache_size = lambda: program._cache_size()
    return cast(Function, call)


def is_abstract(number: Any) -> bool:
    """Return whether the value of a number is unknown because it is traced."""
    return isinstance(number, jax.core.Tracer | jax.ShapeDtypeStruct)


def check_model(model: Any) -> None:
    """Raise a TypeError that names the field and the remedy unless `model` is hashable, or has traced fields."""
    if _is_hashable(model) or any(map(is_abstract, _split_cached.__wrapped__(model).args)):
        return
    problem = "; declare it with @dataclass(frozen=True)"
    is_dataclass = dataclasses.is_dataclass(model)
    fields = [field.name for field in dataclasses.fields(model)] if is_dataclass else getattr(model, "_fields", ())
    for field in fields:
        if not _is_hashable(value := getattr(model, field)):
            kind = type(value).__name__
            problem = f": its field {field} is a {kind}; use a tuple, and put arrays into the variables"
    raise TypeError(f"{type(model).__name__} is not hashable{problem}")


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


class _Structure(NamedTuple):
    """A model with placeholders, the static part. Calling it with the hyperparameters returns the model."""

    model: Any
    type: type  # because named tuples of two types can be equal

    def __call__(self, *hyperparams: Any) -> Any:
        if not hyperparams:
            return self.model
        remaining = iter(hyperparams)
        return self.model.map_hyperparams(lambda number: next(remaining) if number is _PLACEHOLDER else number)


def _split(model: Any) -> Partial:
    """Return a pytree of the traced hyperparameters, which returns the model when called."""
    try:
        return _split_cached(model)
    except TypeError:
        check_model(model)
        return _split_cached.__wrapped__(model)


@functools.lru_cache(maxsize=128, typed=True)  # because copying a Linen module takes 0.3 ms
def _split_cached(model: Any) -> Partial:
    hyperparams: list[Any] = []

    def extract(number: Any) -> Any:
        if not is_abstract(number) and number == 0:
            return number
        hyperparams.append(number if is_abstract(number) else float(number))
        return _PLACEHOLDER

    structure = model.map_hyperparams(extract) if isinstance(model, HasHyperparams) else model
    return Partial(_Structure(structure, type(model)), *hyperparams)  # type: ignore[no-untyped-call]
