"""Save and load models as a directory of JSON and arrays, or as one safetensors file. Loading executes no code."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.checkpoints.arrays import Name, check_arrays, format_name, named_leaves, read_arrays, write_arrays
from jaxlm.checkpoints.model_spec import (
    expected_arrays,
    is_library_model,
    model_from_spec,
    model_to_spec,
    variables_from_arrays,
    variables_to_arrays,
)
from jaxlm.models import LanguageModel
from jaxlm.text.tokenizers import Tokenizer, tokenizer_from_json, tokenizer_to_json
from jaxlm.utils.atomic_files import commit_directory, open_regular, read_regular, temporary_path, write_atomically
from jaxlm.utils.checksums import add_checksum, sha256_of, verify_checksum
from jaxlm.utils.json_files import MAX_JSON_BYTES, check_version, parse_json, read_json

_VERSION = 2
_MAX_DEPTH = 100  # of nested dicts; JAX's recursion fails at a depth of about 1,000

_NamedArrays = list[tuple[Name, np.ndarray[Any, Any]]]


def save_model(path: str | Path, model: LanguageModel, variables: Any, tokenizer: Tokenizer | None = None) -> None:
    """Save a model as the directory `path`: `model.json`, `variables/` and, with a tokenizer, `tokenizer.json`.

    The directory appears atomically. To load a model of your own class, pass it to `load_model`.
    Host function; not for use inside `jit`.

    Args:
        variables: nested dicts with string keys and arrays as leaves.

    Raises:
        OSError: `path` exists or cannot be written; nothing is left behind.
        TypeError: the variables are not such dicts.
        ValueError: the variables do not match the model or are not finite, or the tokenizer is too large for it.

    >>> import tempfile, jaxlm
    >>> model = jaxlm.NeuralBigramLM(vocab_size=5, embedding_dim=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     jaxlm.save_model(f"{folder}/bigram", model, jaxlm.init(model, jax.random.key(0)))
    ...     jaxlm.load_model(f"{folder}/bigram")[0] == model
    True
    """
    path = Path(path).absolute()
    if path.exists():
        raise FileExistsError(f"{path} exists; save to another path, or remove it first")
    arrays = _prepare_arrays(model, variables, tokenizer)
    unfinished = temporary_path(path)
    try:
        unfinished.mkdir(parents=True)
        index = write_arrays(unfinished / "variables", arrays)
        document = {"version": _VERSION, **model_to_spec(model), "tokenizer_sha256": None, **index}
        if tokenizer is not None:
            tokenizer.save(unfinished / "tokenizer.json")
            document["tokenizer_sha256"] = sha256_of((unfinished / "tokenizer.json").read_bytes())
        write_atomically(unfinished / "model.json", add_checksum(document))
        commit_directory(unfinished, path)
    except OSError as error:
        raise OSError(f"cannot save to {path}: {error}; free some space, or choose another path") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def load_model(path: str | Path, *, model: LanguageModel | None = None) -> tuple[Any, Any, Tokenizer | None]:
    """Return the model, its variables and its tokenizer from the directory that `save_model` wrote.

    All files are verified by their checksums. Host function; not for use inside `jit`.

    Args:
        model: the saved model, if it is of your own class.

    Returns:
        Model, variables on JAX's default device, and tokenizer (None when none was saved).

    Raises:
        FileNotFoundError: `path` is not a saved model.
        ValueError: it is damaged, of another version, or does not match `model`; the message names the path.

    >>> import tempfile, jaxlm
    >>> model = jaxlm.NeuralBigramLM(vocab_size=5, embedding_dim=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(f"{folder}/bigram", model, jaxlm.init(model, jax.random.key(0)))
    ...     load_model(f"{folder}/bigram")[0] == model
    True
    """
    path = Path(path).absolute()
    origin = path / "model.json"
    try:
        document = read_json(origin, follow_links=False)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path} is not a saved model: {origin.name} is missing") from None
    spec, model = _read_spec(document, origin, model)
    arrays = read_arrays(path / "variables", spec, expected_arrays(model, str(path)))
    tokenizer = None
    if spec.get("tokenizer_sha256") is not None:
        tokenizer = _read_tokenizer(path / "tokenizer.json", spec["tokenizer_sha256"])
    return model, _load_variables(str(path), model, arrays, tokenizer), tokenizer


def export_model(
    path: str | Path,
    model: LanguageModel,
    variables: Any,
    tokenizer: Tokenizer | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a model as one safetensors file, for `import_model`.

    Tensor names are paths such as `params/embedding/embedding`. The file's metadata holds the model and the
    tokenizer as JSON, under the key `jaxlm`. Host function; not for use inside `jit`.

    Raises:
        OSError: `path` exists and `overwrite` is False, or it cannot be written; an existing file is unchanged.
        TypeError, ValueError: as for `save_model`; also if safetensors does not support an array's dtype.

    >>> import tempfile, jaxlm
    >>> model = jaxlm.NeuralBigramLM(vocab_size=5, embedding_dim=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     jaxlm.export_model(f"{folder}/a.safetensors", model, jaxlm.init(model, jax.random.key(0)))
    ...     jaxlm.import_model(f"{folder}/a.safetensors")[0] == model
    True
    """
    import safetensors.numpy

    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; export to another path, or replace it with --overwrite")
    arrays = _prepare_arrays(model, variables, tokenizer)
    tensors = {"/".join(name): np.asarray(array, order="C") for name, array in arrays}
    tokenizer_document = None if tokenizer is None else json.loads(tokenizer_to_json(tokenizer))
    document = {"version": _VERSION, **model_to_spec(model), "tokenizer": tokenizer_document}
    document["tensors_sha256"] = _tensors_sha256(tensors)
    try:
        content = safetensors.numpy.save(tensors, metadata={"jaxlm": add_checksum(document)})
    except (safetensors.SafetensorError, KeyError) as error:
        raise TypeError(f"safetensors cannot store these variables: {error}") from None
    write_atomically(path, content)


def import_model(path: str | Path, *, model: LanguageModel | None = None) -> tuple[Any, Any, Tokenizer | None]:
    """Return the model, its variables and its tokenizer from the file that `export_model` wrote.

    Like `load_model`, but a missing file is an OSError. Host function; not for use inside `jit`.

    >>> import tempfile, jaxlm
    >>> model = jaxlm.NeuralBigramLM(vocab_size=5, embedding_dim=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_model(f"{folder}/bigram.safetensors", model, jaxlm.init(model, jax.random.key(0)))
    ...     import_model(f"{folder}/bigram.safetensors")[0] == model
    True
    """
    path = Path(path)
    metadata, tensors = _read_tensors(path)
    if "jaxlm" not in metadata:
        raise ValueError(f"{path} is not a model file: its metadata has no entry jaxlm; use one from jaxlm export")
    spec, model = _read_spec(parse_json(metadata["jaxlm"], origin=path), path, model)
    if spec.get("tensors_sha256") != _tensors_sha256(tensors):
        raise ValueError(f"checksum mismatch in {path}: its tensors have changed since the export")
    arrays = [(tuple(name.split("/")), tensor) for name, tensor in tensors.items()]
    tokenizer = None
    if spec.get("tokenizer") is not None:
        tokenizer = tokenizer_from_json(spec["tokenizer"], origin=path)
    return model, _load_variables(str(path), model, arrays, tokenizer), tokenizer


def _prepare_arrays(model: LanguageModel, variables: Any, tokenizer: Tokenizer | None) -> _NamedArrays:
    """Return the named NumPy arrays to save. Raise an error if `load_model` would refuse them."""
    try:
        arrays = variables_to_arrays(model, variables)
    except (KeyError, IndexError, AttributeError) as error:
        raise TypeError(f"variables are not those of a {type(model).__name__}: {error!r}") from None
    named = named_leaves(_to_numpy(arrays))
    if not isinstance(arrays, Mapping) or max(len(name) for name, _ in named) > _MAX_DEPTH:
        raise TypeError(f"variables must be nested dicts of arrays, at most {_MAX_DEPTH} levels deep")
    if (expected := expected_arrays(model, "variables")) is not None:
        check_arrays(f"variables of a {type(model).__name__}", named, expected)
    _check_values("cannot save", model, named, tokenizer)
    return named


def _load_variables(origin: str, model: LanguageModel, arrays: _NamedArrays, tokenizer: Tokenizer | None) -> Any:
    """Return the variables on JAX's default device, after checking them and the tokenizer."""
    _check_values(origin, model, arrays, tokenizer)
    return jax.device_put(variables_from_arrays(model, _nest(arrays, origin), origin))


def _to_numpy(tree: Any) -> Any:
    """Return nested dicts of NumPy arrays. Raise a TypeError for any other container, key or leaf."""
    if isinstance(tree, float | int):
        tree = jnp.asarray(tree)
    if isinstance(tree, jax.Array | np.ndarray | np.generic):
        return np.asarray(tree)
    if not isinstance(tree, Mapping) or not tree:
        found = "an empty dict" if isinstance(tree, Mapping) else type(tree).__name__
        raise TypeError(f"variables must be nested dicts of arrays, none empty, got {found}")
    for name in tree:
        if not isinstance(name, str) or not name or "/" in name:
            raise TypeError(f"the keys of variables must be non-empty strings without slashes, got {name!r}")
    return {name: _to_numpy(subtree) for name, subtree in tree.items()}


def _nest(arrays: _NamedArrays, origin: str) -> dict[str, Any]:
    """Return the named arrays as nested dicts. Raise a ValueError if one name is a prefix of another."""
    tree: dict[str, Any] = {}
    for name, array in arrays:
        branch = tree
        for part in name[:-1]:
            branch = branch.setdefault(part, {}) if isinstance(branch, dict) else branch
        if len(name) > _MAX_DEPTH or not isinstance(branch, dict) or name[-1] in branch:
            raise ValueError(f"{origin} is damaged: the names of its arrays do not form a tree")
        branch[name[-1]] = array
    return tree


def _read_spec(document: Any, origin: Path, own: LanguageModel | None) -> tuple[dict[str, Any], LanguageModel]:
    """Return the fields of a saved model's JSON document, and the model, after checking both."""
    check_version(document, _VERSION, origin=origin, what="saved model")
    match spec := verify_checksum(document, origin=origin):
        case {"class": str(), "vocab_size": int(), "context_length": int(), "fields": dict(), "of_jaxlm": bool()}:
            return spec, model_from_spec(spec, origin, own)
    raise ValueError(f"{origin} is damaged: its fields are not those of a saved model")


def _check_values(origin: str, model: LanguageModel, arrays: _NamedArrays, tokenizer: Tokenizer | None) -> None:
    """Raise a ValueError for dtypes that JAX would narrow, and for a tokenizer larger than the model.

    For library models, also refuse non-finite parameters and negative counts.
    """
    for name, array in arrays:
        message = f"{origin}: array {format_name(name)}"
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            raise ValueError(f"{message} is {array.dtype}, which JAX narrows; set jax_enable_x64")
        if not is_library_model(model):
            continue
        if not np.isfinite(array).all():
            raise ValueError(f"{message} contains NaN or infinity")
        if np.issubdtype(array.dtype, np.integer) and array.min() < 0:
            raise ValueError(f"{message} contains {array.min()}; counts must be at least 0")
    if tokenizer is not None and tokenizer.vocab_size > model.vocab_size:
        sizes = f"{tokenizer.vocab_size} tokens, more than the model's vocab_size={model.vocab_size}"
        raise ValueError(f"{origin}: the tokenizer has {sizes}")


def _read_tokenizer(path: Path, sha256: Any) -> Tokenizer:
    try:
        content = read_regular(path, max_bytes=MAX_JSON_BYTES, follow_links=False)
    except OSError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if sha256_of(content) != sha256:
        raise ValueError(f"checksum mismatch in {path}: it is not the tokenizer that was saved with the model")
    return tokenizer_from_json(parse_json(content, origin=path), origin=path)


def _read_tensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray[Any, Any]]]:
    import safetensors

    open_regular(path).close()  # safetensors would block on a pipe
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise ValueError(f"{path} is not a model file, or is damaged: {error!s:.200}") from None


def _tensors_sha256(tensors: Mapping[str, np.ndarray[Any, Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype}{list(tensors[name].shape)}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
