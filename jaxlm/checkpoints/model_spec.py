"""Convert models to and from JSON, and their variables to and from named arrays."""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm.checkpoints.named_arrays import flatten, unflatten
from jaxlm.models import (
    CountsBigramLM,
    CountsNgramLM,
    LanguageModel,
    MixtureLM,
    MLPLanguageModel,
    NeuralBigramLM,
    init,
)
from jaxlm.models.baselines import UniformLM, UnigramLM
from jaxlm.models.smoothing import AddK, KneserNey, ModifiedKneserNey, WittenBell
from jaxlm.utils.checks import describe_arrays

_LINEN_FIELDS = {"name", "parent"}  # which Linen adds to every module for its own use
_RUNGS = UniformLM, UnigramLM, CountsBigramLM, CountsNgramLM, NeuralBigramLM, MLPLanguageModel
_MODELS: dict[str, Any] = {each.__name__: each for each in (*_RUNGS, MixtureLM)}
_CLASSES = _MODELS | {each.__name__: each for each in (AddK, KneserNey, ModifiedKneserNey, WittenBell)}


def is_library_model(model: LanguageModel) -> bool:
    """Return whether the model's class belongs to this library; for a mixture, the classes of all its models."""
    if type(model) is MixtureLM:
        return all(map(is_library_model, model.models))
    return type(model) in _MODELS.values()


def model_to_spec(model: LanguageModel) -> dict[str, Any]:
    """Return the model's class, sizes and fields as plain JSON."""
    return {
        "class": type(model).__name__,
        "of_jaxlm": is_library_model(model),
        "vocab_size": int(model.vocab_size),
        "context_length": int(model.context_length),
        "fields": _fields_to_json(model),
    }


def model_from_spec(
    spec: Mapping[str, Any], origin: str | Path, own: LanguageModel | None = None
) -> LanguageModel:
    """Return the library model that a spec describes, or the user's `own` model if the spec describes it.

    Raises a ValueError that names `origin` if the spec is invalid or describes a different model.
    """
    if own is None and not (spec["of_jaxlm"] and spec["class"] in _MODELS):
        name = f"{spec['class']!r:.100}"
        raise ValueError(f"{origin}: {name} is not a model of this library; pass it: load_model(path, model=...)")
    try:
        model = _record_from_json(spec["class"], spec["fields"]) if own is None else own
    except ValueError as error:
        raise ValueError(f"{origin} is damaged: {error}") from None
    for name, value in model_to_spec(model).items():
        if value != spec[name]:
            raise ValueError(f"{origin}: the saved model has {name} {spec[name]!r:.200}, not {value!r:.200}")
    return model


def variables_to_arrays(model: LanguageModel, variables: Any) -> dict[str, Any]:
    """Return the arrays to save by name. For n-gram models, only the counts; loading smooths them.

    Raises an error of any type if the variables belong to a different model.
    """
    if isinstance(model, MixtureLM):
        parts = zip(model.models, model.variables_of_each(variables), strict=True)
        return _join_parts(variables_to_arrays(*part) for part in parts)
    if isinstance(model, CountsNgramLM):
        ngrams, counts = model.ngrams_of(variables)
        return {"ngrams": ngrams, "counts": counts.astype(np.int32)}
    return flatten(variables)


def variables_from_arrays(model: LanguageModel, arrays: Mapping[str, Any], origin: str) -> Any:
    """Invert `variables_to_arrays`. Compare the arrays with `expected_arrays` before.

    Raises a ValueError that starts with `origin` if the arrays are not the model's.
    """
    if isinstance(model, MixtureLM):
        parts = zip(model.models, _split_parts(model, arrays), strict=True)
        return tuple(variables_from_arrays(*part, origin) for part in parts)
    if not isinstance(model, CountsNgramLM):
        return unflatten(arrays, origin)
    try:
        return model.variables_of(**arrays)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{origin}: {error}") from None


def expected_arrays(model: LanguageModel, arrays: Mapping[str, Any], origin: str) -> dict[str, str]:
    """Return the expected dtype and shape of each saved array, as `describe_arrays` does.

    What the model does not determine is taken from `arrays`: the number of n-grams, and a user model's arrays.
    Raises a ValueError that starts with `origin` if the sizes are too large for an array.
    """
    if isinstance(model, MixtureLM):
        parts = zip(model.models, _split_parts(model, arrays), strict=True)
        return _join_parts(expected_arrays(*part, origin) for part in parts)
    if not is_library_model(model):
        return describe_arrays(arrays)
    if isinstance(model, CountsNgramLM):
        num_ngrams = arrays["counts"].size if "counts" in arrays else 0
        return {"ngrams": f"int32{[num_ngrams, int(model.context_length) + 1]}", "counts": f"int32{[num_ngrams]}"}
    if isinstance(model, UniformLM):
        return {}
    if isinstance(model, UnigramLM):
        return {"": f"int32{[int(model.vocab_size)]}"}
    try:
        return describe_arrays(flatten(jax.eval_shape(lambda: init(model, jax.random.key(0)))))
    except (TypeError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{origin}: a {type(model).__name__} cannot have these sizes ({reason:.100})") from None


def _join_parts(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Name the arrays of a mixture `NUMBER/NAME`: the number of the model, and the array's name in it."""
    numbered = enumerate(parts)
    return {f"{number}/{name}".removesuffix("/"): part[name] for number, part in numbered for name in part}


def _split_parts(model: MixtureLM, arrays: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Invert `_join_parts`. Arrays with other names are ignored."""
    parts: dict[str, dict[str, Any]] = {str(number): {} for number in range(len(model.models))}
    for name, array in arrays.items():
        number, _, rest = name.partition("/")
        parts.get(number, {})[rest] = array
    return list(parts.values())


def _fields_to_json(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that hold only numbers, strings, lists and records of this library."""
    values = {}
    for field in dataclasses.fields(record) if dataclasses.is_dataclass(record) else ():
        value = getattr(record, field.name)
        if field.init and (value is not None or field.name not in _LINEN_FIELDS):
            with contextlib.suppress(TypeError):
                values[field.name] = _value_to_json(value)
    return values


def _value_to_json(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError("JSON has no infinity and no NaN")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_value_to_json(each) for each in value]
    if type(value) in _CLASSES.values():
        return {"class": type(value).__name__, "fields": _fields_to_json(value)}
    raise TypeError(f"cannot convert a {type(value).__name__} to JSON")


def _record_from_json(class_name: str, fields: Mapping[str, Any]) -> Any:
    record_class = _CLASSES[class_name]
    names = {field.name for field in dataclasses.fields(record_class) if field.init} - _LINEN_FIELDS
    if fields.keys() != names:
        raise ValueError(f"the fields of {class_name} must be {', '.join(sorted(names))}")
    try:
        return record_class(**{name: _value_from_json(value) for name, value in fields.items()})
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ValueError(f"{error!s:.200}") from None


def _value_from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_value_from_json, value))
    match value:
        case {"class": str(name), "fields": dict(fields), **others} if name in _CLASSES and not others:
            return _record_from_json(name, fields)
        case dict():
            raise ValueError(f"{value.get('class')!r:.100} is not a record of this library")
    return value
