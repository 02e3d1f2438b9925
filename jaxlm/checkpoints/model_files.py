"""Saved models: a folder of JSON and arrays, or one file of safetensors. Nothing in either is ever run."""

import hashlib
import json
import reprlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlm.checkpoints.arrays import Name, compare_signatures, named_leaves, read_arrays, signatures, write_arrays
from jaxlm.checkpoints.model_spec import (
    OPTIONAL_FIELDS,
    expected_arrays,
    is_of_jaxlm,
    model_from_spec,
    model_to_spec,
    variables_from_arrays,
    variables_to_arrays,
)
from jaxlm.models import LanguageModel
from jaxlm.text.tokenizers import Tokenizer, tokenizer_from_json, tokenizer_to_json
from jaxlm.utils.atomic_files import (
    check_regular,
    commit_directory,
    read_regular,
    temporary_path,
    write_atomically,
)
from jaxlm.utils.checksums import add_checksum, sha256_of, verify_checksum
from jaxlm.utils.json_files import MAX_JSON_BYTES, check_version, parse_json, read_json

_VERSION = 2
_MAX_DEPTH = 100  # of nested dicts, far below what JAX can take apart


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
        ValueError: the tokenizer has more tokens than the model, the variables are another model's, or not finite.
    """
    path = Path(path).absolute()
    if path.exists():
        raise FileExistsError(f"{path} exists; save to another path, or remove it first")
    arrays = _checked_arrays(model, variables, tokenizer)
    unfinished = temporary_path(path)
    try:
        unfinished.mkdir(parents=True)
        index = write_arrays(unfinished / "variables", arrays)
        tokenizer_sum = None
        if tokenizer is not None:
            tokenizer.save(unfinished / "tokenizer.json")
            tokenizer_sum = sha256_of(read_regular(unfinished / "tokenizer.json"))
        document = {"version": _VERSION, **model_to_spec(model), "tokenizer_sha256": tokenizer_sum, **index}
        write_atomically(unfinished / "model.json", add_checksum(document))
        commit_directory(unfinished, path)
    except OSError as error:
        raise OSError(f"cannot save to {path}: {error}; free some space, or choose another path") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def load_model(path: str | Path, *, model: LanguageModel | None = None) -> tuple[Any, Any, Tokenizer | None]:
    """The model, its variables (on JAX's default device) and its tokenizer, as `save_model` saved them.

    All is checked before it is used: one byte that changed since is an error.

    Args:
        model: the reader's own model whose variables were saved; not needed for the models of this library.

    Raises:
        FileNotFoundError: there is no saved model at `path`.
        ValueError: it is damaged, of another version, or not of `model`; the message names the path.
    """
    path = Path(path).absolute()
    origin = path / "model.json"
    try:
        document = read_json(origin, follow_links=False)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path} holds no saved model: {origin.name} is missing") from None
    model, document = _read_description(document, origin, model)
    arrays = read_arrays(path / "variables", document, _wanted(model, path))
    variables = _restored(model, arrays, path)
    tokenizer = None
    if document.get("tokenizer_sha256") is not None:
        tokenizer = _read_tokenizer(path / "tokenizer.json", document["tokenizer_sha256"])
        _check_sizes(str(path), model, tokenizer)
    return model, variables, tokenizer


def export_model(
    path: str | Path,
    model: LanguageModel,
    variables: Any,
    tokenizer: Tokenizer | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Writes a model as one file, in the safetensors format, for those who mail it; `import_model` reads it.

    The tensors are named by their places, as `params/embedding/embedding`; the rest stands in the file's metadata,
    under `jaxlm`, as JSON.

    Raises:
        FileExistsError: `path` exists, without `overwrite`.
        OSError: it cannot be written; what stood at `path` is untouched.
        TypeError, ValueError: as `save_model`; also for variables that the format cannot hold.
    """
    import safetensors.numpy

    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; export to another path, or replace it with --overwrite")
    arrays = _checked_arrays(model, variables, tokenizer)
    tensors = {"/".join(name): np.asarray(array, order="C") for name, array in arrays}
    document = {
        "version": _VERSION,
        **model_to_spec(model),
        "tokenizer": None if tokenizer is None else json.loads(tokenizer_to_json(tokenizer)),
        "tensors_sha256": _sum_of(tensors),
    }
    try:
        content = safetensors.numpy.save(tensors, metadata={"jaxlm": add_checksum(document)})
    except (safetensors.SafetensorError, KeyError) as error:
        raise TypeError(f"safetensors cannot hold these variables: {error}") from None
    write_atomically(path, content)


def import_model(path: str | Path, *, model: LanguageModel | None = None) -> tuple[Any, Any, Tokenizer | None]:
    """What `export_model` wrote to the file `path`, checked as `load_model` checks a folder.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is damaged, not of `export_model`, or not of `model`; the message names the path.
    """
    metadata, tensors = _read_tensors(Path(path))
    if "jaxlm" not in metadata:
        raise ValueError(f"{path} is no model that jaxlm exported: its metadata say nothing of jaxlm")
    model, document = _read_description(parse_json(metadata["jaxlm"], origin=path), path, model)
    if document.get("tensors_sha256") != _sum_of(tensors):
        raise ValueError(f"{path} is damaged: its tensors are not those that were exported")
    arrays = [(tuple(name.split("/")), array) for name, array in tensors.items()]
    variables = _restored(model, arrays, path)
    tokenizer = None
    if document.get("tokenizer") is not None:
        tokenizer = tokenizer_from_json(document["tokenizer"], origin=path)
        _check_sizes(str(path), model, tokenizer)
    return model, variables, tokenizer


def _checked_arrays(
    model: LanguageModel, variables: Any, tokenizer: Tokenizer | None
) -> list[tuple[Name, np.ndarray[Any, Any]]]:
    """The variables as named NumPy arrays, once they are known to be such as `load_model` takes back."""
    kept = _kept(model, variables)
    tree = _as_numpy(kept)
    arrays = named_leaves(tree)
    if not isinstance(kept, Mapping) or max(len(name) for name, _ in arrays) > _MAX_DEPTH:
        raise TypeError(f"variables must be nested dicts of arrays, no deeper than {_MAX_DEPTH}")
    if (wanted := _wanted(model, "variables")) is not None:
        compare_signatures(f"variables of a {type(model).__name__}", signatures(tree), wanted)
    _check_values("variables", model, arrays)
    if tokenizer is not None:
        _check_sizes("cannot save", model, tokenizer)
    return arrays


def _wanted(model: LanguageModel, origin: str | Path) -> list[tuple[Name, str]] | None:
    try:
        return expected_arrays(model)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None


def _kept(model: LanguageModel, variables: Any) -> Any:
    try:
        return variables_to_arrays(model, variables)
    except (KeyError, IndexError, AttributeError) as error:
        raise TypeError(f"variables are not those of a {type(model).__name__}: {error!r}") from None


def _restored(model: LanguageModel, arrays: list[tuple[Name, np.ndarray[Any, Any]]], path: str | Path) -> Any:
    """The variables of which the arrays were kept, on JAX's default device, once all of it is checked."""
    _check_values(str(path), model, arrays)
    return jax.device_put(variables_from_arrays(model, _nested(arrays, path), str(path)))


def _as_numpy(tree: Any) -> Any:
    if isinstance(tree, float | int):
        return np.asarray(jnp.asarray(tree))
    if isinstance(tree, Array | np.ndarray | np.generic):
        return np.asarray(tree)
    if not isinstance(tree, Mapping) or not tree:
        raise TypeError(
            f"variables must be nested dicts of arrays, none of them empty, got {type(tree).__name__} in them"
        )
    for name in tree:
        if not isinstance(name, str) or not name or "/" in name:
            raise TypeError(
                "variables must be nested dicts with string keys, not empty and without slashes, "
                f"got the key {name!r}"
            )
    return {name: _as_numpy(subtree) for name, subtree in tree.items()}


def _nested(arrays: list[tuple[Name, np.ndarray[Any, Any]]], origin: str | Path) -> dict[str, Any]:
    """Nested dicts of the named arrays. Raises a ValueError where a name leads through another's array."""
    tree: dict[str, Any] = {}
    for name, array in arrays:
        branch = tree
        for word in name[:-1]:
            branch = branch.setdefault(word, {}) if isinstance(branch, dict) else branch
        if len(name) > _MAX_DEPTH or not isinstance(branch, dict) or name[-1] in branch:
            raise ValueError(f"{origin} is damaged: the names of its arrays are no tree")
        branch[name[-1]] = array
    return tree


def _read_description(
    document: Any, origin: str | Path, model: LanguageModel | None
) -> tuple[LanguageModel, dict[str, Any]]:
    """The model that a sealed document describes, or `model` where it is just that one; and the document."""
    check_version(document, _VERSION, origin=origin, what="saved model")
    document = verify_checksum(document, origin=origin)
    match document:
        case {"class": str(), "vocab_size": int(), "context_length": int(), "fields": dict(), "of_jaxlm": bool()}:
            pass
        case _:
            raise ValueError(f"{origin} is damaged: its fields are not those of a saved model")
    if model is None:
        try:
            model = model_from_spec(document)
        except LookupError:
            raise ValueError(
                f"{origin} holds a model {document['class']!r:.100}, which is not of this library: "
                "pass load_model(path, model=...)"
            ) from None
        except ValueError as error:
            raise ValueError(f"{origin} is damaged: {error}") from None
    for name, value in model_to_spec(model).items():
        wanted = document[name]
        if name == "fields":
            wanted = {each: OPTIONAL_FIELDS[each] for each in value.keys() & OPTIONAL_FIELDS} | wanted
        if value != wanted:
            found = reprlib.repr(document[name])
            raise ValueError(f"{origin} is of a model of {name} {found}, not {value!r:.200}")
    return model, document


def _check_values(origin: str, model: LanguageModel, arrays: list[tuple[Name, np.ndarray[Any, Any]]]) -> None:
    """Raises a ValueError where JAX would round numbers, params are not finite, or counts negative.

    A reader's own model may hold any finite or infinite number.
    """
    for name, array in arrays:
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            raise ValueError(
                f"{origin}: array {'/'.join(name)!r:.200} is {array.dtype}, which JAX rounds; set jax_enable_x64"
            )
        if not is_of_jaxlm(model):
            continue
        if not np.isfinite(array).all():
            raise ValueError(
                f"{origin}: array {'/'.join(name)!r} holds NaN or infinity, which no trained model does"
            )
        if np.issubdtype(array.dtype, np.integer) and array.min() < 0:
            raise ValueError(f"{origin}: array {'/'.join(name)!r} holds the count {array.min()}, below 0")


def _check_sizes(origin: str, model: LanguageModel, tokenizer: Tokenizer) -> None:
    if tokenizer.vocab_size > model.vocab_size:
        raise ValueError(
            f"{origin}: the tokenizer has {tokenizer.vocab_size} tokens, the model only "
            f"vocab_size={model.vocab_size}"
        )


def _read_tokenizer(path: Path, wanted_sum: Any) -> Tokenizer:
    try:
        content = read_regular(path, max_bytes=MAX_JSON_BYTES, follow_links=False)
    except OSError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if sha256_of(content) != wanted_sum:
        raise ValueError(f"{path} is damaged: it is not the tokenizer that was saved with the model")
    return tokenizer_from_json(parse_json(content, origin=path), origin=path)


def _read_tensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray[Any, Any]]]:
    import safetensors

    check_regular(path)  # safetensors would wait for a pipe
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (MemoryError, OSError):
        raise
    # Anything: the file may come from a stranger.
    except Exception as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {error!s:.200}") from None


def _sum_of(tensors: Mapping[str, np.ndarray[Any, Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype}{list(tensors[name].shape)}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
