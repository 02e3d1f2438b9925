"""Convert models to and from JSON, and their variables to and from nested dicts of arrays."""

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm import models
from jaxlm.checkpoints.named_arrays import check_arrays, flatten
from jaxlm.models import CountsNgramLM, LanguageModel, MixtureLM, init
from jaxlm.models.baselines import UniformLM, UnigramLM

_LINEN_FIELDS = {"name", "parent"}  # which Linen adds to every module for its own use
_EXPORTED = ("CountsBigramLM", "CountsNgramLM", "MixtureLM", "MLPLanguageModel", "NeuralBigramLM")
_SMOOTHINGS = ("AddK", "KneserNey", "ModifiedKneserNey", "WittenBell")
_MODELS: dict[str, Any] = {name: getattr(models, name) for name in _EXPORTED}
_MODELS |= {"UniformLM": UniformLM, "UnigramLM": UnigramLM}
_CLASSES = _MODELS | {name: getattr(models, name) for name in _SMOOTHINGS}


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


def expected_arrays(model: LanguageModel, origin: str) -> dict[str, Any] | None:
    """Return the expected shape and dtype of each saved array, or None if the model does not determine them.

    Raises a ValueError that starts with `origin` if the sizes are too large for an array.
    """
    # The number of n-grams depends on the text.
    if not is_library_model(model) or isinstance(model, MixtureLM | CountsNgramLM):
        return None
    if isinstance(model, UniformLM):
        return {}
    if isinstance(model, UnigramLM):
        return {"": jax.ShapeDtypeStruct((model.vocab_size,), np.int32)}  # type: ignore[no-untyped-call]
    try:
        return flatten(jax.eval_shape(lambda: init(model, jax.random.key(0))))
    except (TypeError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{origin}: a {type(model).__name__} cannot have these sizes ({reason:.100})") from None


def variables_to_arrays(model: LanguageModel, variables: Any) -> Any:
    """Return the arrays to save, in nested dicts. For n-gram models, only the counts; loading smooths them.

    Raises an error of any type if the variables belong to a different model.
    """
    if isinstance(model, MixtureLM):
        parts = zip(model.models, model.variables_of_each(variables), strict=True)
        arrays = {str(index): variables_to_arrays(*part) for index, part in enumerate(parts)}
        return {name: array for name, array in arrays.items() if not isinstance(array, Mapping) or array}
    if isinstance(model, CountsNgramLM):
        ngrams, counts = model.ngrams_of(variables)
        return {"ngrams": ngrams, "counts": counts.astype(np.int32)}
    return variables


def variables_from_arrays(model: LanguageModel, arrays: Any, origin: str) -> Any:
    """Invert `variables_to_arrays`. Check the arrays of library models.

    Raises a ValueError that starts with `origin` if the arrays are not the model's.
    """
    check_model_arrays(model, arrays, origin)
    if isinstance(model, MixtureLM):
        parts = _split_mixture(model, arrays, origin)
        return tuple(variables_from_arrays(*part, origin) for part in parts)
    if not isinstance(model, CountsNgramLM):
        return arrays
    _check_names(arrays, {"ngrams", "counts"}, origin, "a CountsNgramLM")
    try:
        return model.variables_of(**arrays)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{origin}: {error}") from None


def check_model_arrays(model: LanguageModel, arrays: Any, origin: str) -> None:
    """Raise a ValueError that starts with `origin` if nested `arrays` are not those of a library model."""
    if isinstance(model, MixtureLM):
        for part in _split_mixture(model, arrays, origin):
            check_model_arrays(*part, origin)
    elif (expected := expected_arrays(model, origin)) is not None:
        check_arrays(origin, flatten(arrays), expected)


def _split_mixture(model: MixtureLM, arrays: Any, origin: str) -> list[tuple[LanguageModel, Any]]:
    """Return the models of a mixture, each with its arrays; a model without variables has none."""
    names = [str(index) for index in range(len(model.models))]
    arrays = arrays if isinstance(arrays, Mapping) else {"": arrays}
    arrays = {name: arrays.get(name, {}) for name in {*names, *arrays}}
    _check_names(arrays, set(names), origin, f"a mixture of {len(names)} models")
    return [(part, arrays[name]) for part, name in zip(model.models, names, strict=True)]


def _check_names(arrays: Any, names: set[str], origin: str, owner: str) -> None:
    if not isinstance(arrays, Mapping) or arrays.keys() != names:
        raise ValueError(f"{origin}: the arrays of {owner} must be named {', '.join(sorted(names))}")


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
    types = {field.name: field.type for field in dataclasses.fields(record_class) if field.init}
    names = types.keys() - _LINEN_FIELDS
    if fields.keys() != names:
        raise ValueError(f"the fields of {class_name} must be {', '.join(sorted(names))}")
    try:
        values = {name: _value_from_json(value) for name, value in fields.items()}
        for name, value in values.items():
            if type(value) is int and types[name] in (float, "float"):
                values[name] = float(value)  # JAX cannot convert an int above 2^31
        return record_class(**values)
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
