"""Saved models: a folder with JSON for the settings and Orbax for the arrays. Nothing in it is ever run."""

import dataclasses
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxlm.files import write_atomically
from jaxlm.models import CountsBigramLM, LanguageModel, MLPLanguageModel, NeuralBigramLM, init
from jaxlm.tokenizers import Tokenizer, load_tokenizer

_SCHEMA_VERSION = 1
_MODEL_CLASSES = {cls.__name__: cls for cls in (CountsBigramLM, NeuralBigramLM, MLPLanguageModel)}


def save_model(path: str | Path, model: LanguageModel, variables: Any, tokenizer: Tokenizer | None = None) -> None:
    """Saves a model as the folder `path`: `model.json`, `variables/` and, with a tokenizer, `tokenizer.json`.

    The folder appears when it is whole. Any model can be saved, a reader's own too; `load_model` has to be given
    that one again.

    Args:
        variables: nested dicts with string keys, arrays as leaves.

    Raises:
        FileExistsError: `path` exists.
        OSError: it cannot be written; nothing is left behind.
        TypeError: the variables are not such dicts.
        ValueError: the tokenizer has more tokens than the model, or the variables are another model's.
    """
    path = Path(path).absolute()
    if path.exists():
        raise FileExistsError(f"{path} exists; save to another path, or remove it first")
    if tokenizer is not None and tokenizer.vocab_size > model.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model only vocab_size={model.vocab_size}"
        )
    arrays = _as_numpy(variables)
    _check_arrays("variables", model, arrays)
    description = {"version": _SCHEMA_VERSION, **_describe(model), "has_tokenizer": tokenizer is not None}
    unfinished = path.with_name(f".{uuid.uuid4().hex}")
    try:
        unfinished.mkdir(parents=True)
        import orbax.checkpoint as ocp

        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(unfinished / "variables", arrays)
        if tokenizer is not None:
            tokenizer.save(unfinished / "tokenizer.json")
        write_atomically(unfinished / "model.json", json.dumps(description, indent=2) + "\n")
        unfinished.rename(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise OSError(
            f"cannot save to {path}: {_first_line(error)}; free some space, or choose another path"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def load_model(path: str | Path, *, model: LanguageModel | None = None) -> tuple[Any, Any, Tokenizer | None]:
    """The model, its variables (on JAX's default device) and its tokenizer, as `save_model` saved them.

    Args:
        model: the reader's own model whose variables were saved; not needed for the models of this library.

    Raises:
        FileNotFoundError: there is no saved model at `path`.
        ValueError: it is damaged, of a later version, or not of `model`; the message names the path.
    """
    path = Path(path).absolute()
    description = _read_description(path / "model.json")
    model = _rebuild(path, description) if model is None else _same_model(path, description, model)
    variables = _read_arrays(path / "variables")
    _check_arrays(str(path), model, variables)
    tokenizer = load_tokenizer(path / "tokenizer.json") if description["has_tokenizer"] else None
    return model, jax.device_put(variables), tokenizer


def _as_numpy(tree: Any) -> Any:
    if isinstance(tree, Array | np.ndarray | np.generic | float | int):
        return np.asarray(tree)
    if not isinstance(tree, Mapping) or not tree:
        raise TypeError(
            f"variables must be nested dicts of arrays, none of them empty, got {type(tree).__name__} in them"
        )
    for name in tree:
        if not isinstance(name, str):
            raise TypeError(f"variables must be nested dicts with string keys, got the key {name!r}")
    return {name: _as_numpy(subtree) for name, subtree in tree.items()}


def _describe(model: LanguageModel) -> dict[str, Any]:
    return {
        "class": type(model).__name__,
        "of_jaxlm": _is_rung(model),
        "vocab_size": int(model.vocab_size),
        "context_length": int(model.context_length),
        "fields": _plain_fields(model),
    }


def _is_rung(model: LanguageModel) -> bool:
    """Whether the class is the library's; a reader's own may well bear the same name."""
    return type(model) in _MODEL_CLASSES.values()


def _plain_fields(model: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(model):
        return {}
    values = {field.name: getattr(model, field.name) for field in dataclasses.fields(model) if field.init}
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return {name: value for name, value in plain.items() if isinstance(value, bool | int | float | str)}


def _read_description(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path.parent} holds no saved model: {path.name} is missing") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is damaged: it is no JSON") from None
    version = document.get("version") if isinstance(document, dict) else None
    if type(version) is not int or version != _SCHEMA_VERSION:
        raise ValueError(f"{path} is not a saved model of version {_SCHEMA_VERSION} (version: {version!r})")
    match document:
        case {"class": str(), "vocab_size": int(), "context_length": int(), "fields": dict()} if isinstance(
            document.get("has_tokenizer"), bool
        ) and isinstance(document.get("of_jaxlm"), bool):
            return document
    raise ValueError(f"{path} is damaged: its fields are not those of a saved model")


def _rebuild(path: Path, description: dict[str, Any]) -> LanguageModel:
    name = description["class"]
    if not description["of_jaxlm"] or name not in _MODEL_CLASSES:
        raise ValueError(f"{path} holds a {name}, which is not of this library: pass load_model(path, model=...)")
    try:
        model: Any = _MODEL_CLASSES[name](**description["fields"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}/model.json is damaged: {error}") from None
    return _same_model(path, description, model)


def _same_model(path: Path, description: dict[str, Any], model: LanguageModel) -> LanguageModel:
    for name, value in _describe(model).items():
        if value != description[name]:
            raise ValueError(f"{path} was saved from a model of {name} {description[name]!r}, not {value!r}")
    return model


def _read_arrays(path: Path) -> Any:
    import orbax.checkpoint as ocp

    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            return checkpointer.restore(path)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: its arrays cannot be read ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _check_arrays(origin: str, model: LanguageModel, variables: Any) -> None:
    """Raises a ValueError where the variables are not of the names, shapes and dtypes of the library's `model`."""
    if not _is_rung(model):
        return
    expected = jax.eval_shape(lambda: init(model, jax.random.key(0)))
    found, wanted = _signature(variables), _signature(expected)
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{origin}: array {name} is {found.get(name, 'missing')}, "
                f"{type(model).__name__} has {wanted.get(name, 'none of that name')}"
            )


def _signature(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(name): f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves}
