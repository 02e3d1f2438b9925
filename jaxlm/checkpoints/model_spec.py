"""Convert models to and from JSON."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm import models
from jaxlm.models import BackoffLM, LanguageModel, MixtureLM, smoothing
from jaxlm.models.baselines import UniformLM, UnigramLM

_LINEN_FIELDS = {"name", "parent"}  # which Linen adds to every module for its own use
_RUNGS = models.CountsBigramLM, models.CountsNgramLM, models.NeuralBigramLM, models.MLPLanguageModel
_MODELS: dict[str, Any] = {each.__name__: each for each in (*_RUNGS, BackoffLM, UniformLM, UnigramLM, MixtureLM)}
_SMOOTHINGS = smoothing.AddK, smoothing.KneserNey, smoothing.ModifiedKneserNey, smoothing.WittenBell
_CLASSES = _MODELS | {each.__name__: each for each in _SMOOTHINGS}


def is_library_model(model: LanguageModel) -> bool:
    """Return whether the model's class belongs to this library; for a mixture, the classes of all its models."""
    if type(model) is MixtureLM:
        return all(map(is_library_model, model.models))
    return type(model) in _MODELS.values()


def model_to_spec(model: LanguageModel) -> dict[str, Any]:
    """Return the model's class, sizes and fields as plain JSON."""
    sizes = {"vocab_size": int(model.vocab_size), "context_length": int(model.context_length)}
    return {"of_jaxlm": is_library_model(model), **sizes, **_to_json(model)}


def model_from_spec(
    spec: Mapping[str, Any], origin: str | Path, own: LanguageModel | None = None
) -> LanguageModel:
    """Return the library model that a spec describes, or the user's `own` model if the spec describes it.

    Raises a ValueError that names `origin` if the spec is invalid or describes a different model.
    """
    name = spec.get("class")
    try:
        if own is None and not (spec.get("of_jaxlm") and str(name) in _MODELS):
            remedy = "pass it: load_model(path, model=...)"
            raise ValueError(f"{name!r:.100} is not a model of this library; {remedy}")
        model = _from_json({"class": name, "fields": spec.get("fields")}) if own is None else own
        for field, value in model_to_spec(model).items():
            if value != (saved := spec.get(field)):
                raise ValueError(f"the saved model has {field} {saved!r:.200}, not {value!r:.200}")
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None
    return model


def _to_json(record: Any) -> dict[str, Any]:
    """Return the class of a record, and its fields that hold only JSON values and records of this library."""
    fields = {}
    for field in dataclasses.fields(record) if dataclasses.is_dataclass(record) else ():
        value = getattr(record, field.name)
        if field.init and (value is not None or field.name not in _LINEN_FIELDS):
            with contextlib.suppress(TypeError, ValueError):  # a user's field can hold anything
                fields[field.name] = json.loads(json.dumps(value, default=_value_to_json, allow_nan=False))
    return {"class": type(record).__name__, "fields": fields}


def _value_to_json(value: Any) -> Any:
    if type(value) in _CLASSES.values():
        return _to_json(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot convert a {type(value).__name__} to JSON")


def _from_json(value: Any) -> Any:
    """Invert `_to_json`. Raise a ValueError if a record is not one of this library, or its fields are invalid."""
    match value:
        case list():
            return tuple(map(_from_json, value))
        case {"class": str(name), "fields": dict(fields), **others} if name in _CLASSES and not others:
            names = {field.name for field in dataclasses.fields(_CLASSES[name]) if field.init} - _LINEN_FIELDS
            if fields.keys() != names:
                raise ValueError(f"the fields of {name} must be {', '.join(sorted(names))}")
            try:
                return _CLASSES[name](**{name: _from_json(value) for name, value in fields.items()})
            except (TypeError, ValueError, OverflowError, AttributeError) as error:
                raise ValueError(f"the fields of {name} are invalid: {error!s:.200}") from None
        case dict():
            raise ValueError(f"{value.get('class')!r:.100} is not a record of this library")
    return value
