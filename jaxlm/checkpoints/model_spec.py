"""Models as plain JSON, and their variables as nested dicts of arrays: what a saved model is made of, and back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxlm.checkpoints.arrays import Name, compare_signatures, signatures
from jaxlm.models import (
    AddK,
    CountsBigramLM,
    CountsNgramLM,
    KneserNey,
    LanguageModel,
    MixtureLM,
    MLPLanguageModel,
    ModifiedKneserNey,
    NeuralBigramLM,
    WittenBell,
    init,
)

# Fields that a description may lack, for they came later or are None, and what they are then.
OPTIONAL_FIELDS = {"discount": None, "dropout": 0.0, "direct_connections": False}

_MODELS = {
    cls.__name__: cls for cls in (CountsBigramLM, CountsNgramLM, MixtureLM, MLPLanguageModel, NeuralBigramLM)
}
_RECORDS: dict[str, Any] = _MODELS | {
    cls.__name__: cls for cls in (AddK, KneserNey, ModifiedKneserNey, WittenBell)
}


def is_of_jaxlm(model: LanguageModel) -> bool:
    """Whether the class is the library's, or those of all it mixes; a reader's own may bear the same name."""
    if type(model) is MixtureLM:
        return all(map(is_of_jaxlm, model.models))
    return type(model) in _MODELS.values()


def model_to_spec(model: LanguageModel) -> dict[str, Any]:
    """The model's class, its sizes and its fields, as plain JSON."""
    return {
        "class": type(model).__name__,
        "of_jaxlm": is_of_jaxlm(model),
        "vocab_size": int(model.vocab_size),
        "context_length": int(model.context_length),
        "fields": _fields(model),
    }


def model_from_spec(document: Mapping[str, Any]) -> LanguageModel:
    """The model of this library that `model_to_spec` described.

    Raises:
        LookupError: its class is none of the library's.
        ValueError: its fields are not those of its class, or have values that it refuses.
    """
    if not document["of_jaxlm"] or document["class"] not in _MODELS:
        raise LookupError(f"{document['class']!r:.100} is no model of this library")
    model: LanguageModel = _record(document["class"], document["fields"])
    return model


def expected_arrays(model: LanguageModel) -> list[tuple[Name, str]] | None:
    """Name, dtype and shape of each array that is kept of the model's variables; None where it does not say.

    It says so neither of counts of n-grams, which are as many as a text has, nor for a reader's own.

    Raises:
        ValueError: no model can be of that size.
    """
    if not is_of_jaxlm(model) or isinstance(model, CountsNgramLM | MixtureLM):
        return None
    try:
        return signatures(jax.eval_shape(lambda: init(model, jax.random.key(0))))
    except (TypeError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"no {type(model).__name__} can be of that size ({reason:.100})") from None


def variables_to_arrays(model: LanguageModel, variables: Any) -> Any:
    """What is kept of the variables, nested dicts of arrays: of n-grams the counts, from which the rest follows.

    Raises:
        KeyError, TypeError, ValueError: they are another model's.
    """
    if isinstance(model, MixtureLM):
        own = zip(model.models, model.variables_of_each(variables), strict=True)
        return {str(number): variables_to_arrays(*each) for number, each in enumerate(own)}
    if isinstance(model, CountsNgramLM):
        ngrams, counts = model.ngrams_of(variables)
        # A dense table as it is, so that no small file asks for a large one.
        return variables["counts"] if model.is_dense else {"ngrams": ngrams, "counts": counts.astype(np.int32)}
    return variables


def variables_from_arrays(model: LanguageModel, kept: Any, origin: str) -> Any:
    """The variables of which `kept` was kept, checked: those of a reader's own model are taken as they are.

    Raises:
        ValueError: they are not the model's; the message begins with `origin`.
    """
    if isinstance(model, MixtureLM):
        names = [str(number) for number in range(len(model.models))]
        if not isinstance(kept, Mapping) or kept.keys() != set(names):
            raise ValueError(f"{origin}: a mixture of {len(names)} models has as many variables")
        return tuple(
            variables_from_arrays(each, kept[name], origin) for each, name in zip(model.models, names, strict=True)
        )
    if isinstance(model, CountsNgramLM):
        return _restored_counts(model, kept, origin)
    if (wanted := expected_arrays(model)) is not None:
        compare_signatures(origin, signatures(kept), wanted)
    return kept


def _restored_counts(model: CountsNgramLM, kept: Any, origin: str) -> Any:
    names = {"table"} if model.is_dense else {"ngrams", "counts"}
    if not isinstance(kept, Mapping) or kept.keys() != names:
        raise ValueError(
            f"{origin}: of counts of n-grams there must be {' and '.join(sorted(names))}, and no more"
        )
    if model.is_dense:
        shape = (model.vocab_size**model.context_length, model.vocab_size)
        wanted = jax.ShapeDtypeStruct(shape, np.int32)  # type: ignore[no-untyped-call]
        compare_signatures(origin, signatures(kept), signatures({"table": wanted}))
    try:
        ngrams, counts = model.ngrams_of({"counts": kept}) if model.is_dense else (kept["ngrams"], kept["counts"])
        return model.variables_of(ngrams, counts)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{origin}: {error}") from None


def _fields(record: Any) -> dict[str, Any]:
    """What a record is made of: plain values, lists of such, and this library's records in it with their class."""
    if not dataclasses.is_dataclass(record):
        return {}
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record) if field.init}
    plain = {name: _plain(value) for name, value in values.items()}
    return {name: value for name, value in plain.items() if value is not _NOT_PLAIN}


_NOT_PLAIN = object()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        plain = [_plain(each) for each in value]
        return _NOT_PLAIN if _NOT_PLAIN in plain else plain
    if type(value) in _RECORDS.values():
        return {"class": type(value).__name__, "fields": _fields(value)}
    return _NOT_PLAIN


def _record(name: str, fields: Mapping[str, Any]) -> Any:
    record_class = _RECORDS[name]
    # Linen adds these two to every module, for its own use.
    names = {field.name for field in dataclasses.fields(record_class) if field.init} - {"name", "parent"}
    values = {field: _value(each) for field, each in fields.items()}
    if not names - OPTIONAL_FIELDS.keys() <= values.keys() <= names:
        raise ValueError(f"the fields of a {name} are {', '.join(sorted(names))}")
    try:
        return record_class(**values)
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ValueError(f"{error!s:.200}") from None


def _value(document: Any) -> Any:
    if isinstance(document, list):
        return tuple(map(_value, document))
    match document:
        case {"class": str(name), "fields": dict(fields), **others} if name in _RECORDS and not others:
            return _record(name, fields)
        case dict():
            raise ValueError(f"{document.get('class')!r:.100} is no record of this library")
    return document
