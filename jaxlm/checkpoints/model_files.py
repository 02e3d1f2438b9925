"""Save and load models as safetensors files. Loading executes no code."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxlm.checkpoints.model_spec import model_from_spec, model_to_spec
from jaxlm.checkpoints.named_arrays import check_model_arrays, variables_from_arrays, variables_to_arrays
from jaxlm.models import LanguageModel
from jaxlm.text.tokenizer_files import tokenizer_from_json, tokenizer_to_json
from jaxlm.text.tokenizers import Tokenizer
from jaxlm.utils.atomic_files import check_absent, expand, open_regular, write_atomically
from jaxlm.utils.json_files import add_checksum, check_document, parse_json

MODEL_FILE = "model.safetensors"
_VERSION = 2


class SavedModel(NamedTuple):
    """A model as `load_model` returns it.

    >>> import jaxlm
    >>> saved = SavedModel(jaxlm.UniformLM(5), {}, None)
    >>> saved.model.vocab_size
    5
    """

    model: Any
    variables: Any  # on JAX's default device
    tokenizer: Tokenizer | None  # None if none was saved


def save_model(
    path: str | os.PathLike[str],
    model: LanguageModel,
    variables: Any,
    tokenizer: Tokenizer | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Save a model as one safetensors file: at `path` if it ends in .safetensors, else in the directory `path`.

    Tensor names are paths such as `params/embedding/embedding`. The file's metadata holds the model and the
    tokenizer as JSON, under the key `jaxlm`. Host function; not for use inside `jit`.

    Args:
        path: the file, or the directory for `model.safetensors`, which is created if it does not exist.
        variables: one array, or nested dicts with string keys and arrays as leaves.
        overwrite: replace an existing model.

    Raises:
        OSError: The file exists and `overwrite` is False, or it cannot be written; an existing file is unchanged.
        TypeError: The variables are not such dicts, or safetensors does not support an array's dtype.
        ValueError: The variables do not match the model or are not finite, or the tokenizer is too large for it.

    >>> import tempfile, jaxlm
    >>> model = jaxlm.NeuralBigramLM(vocab_size=5, embedding_dim=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     jaxlm.save_model(f"{folder}/bigram", model, jaxlm.init(model, jax.random.key(0)))
    ...     jaxlm.load_model(f"{folder}/bigram").model == model
    True
    """
    import safetensors.numpy

    path = expand(path)
    file = path if path.suffix == ".safetensors" else path / MODEL_FILE
    check_absent(file, overwrite=overwrite)
    tensors = variables_to_arrays(model, variables)
    for name, leaf in tensors.items():
        array = np.asarray(jnp.asarray(leaf) if isinstance(leaf, float | int) else leaf, order="C")
        # safetensors writes this name, and dtypes of ml_dtypes such as float8, but cannot read them.
        if name == "__metadata__" or (array.dtype.isbuiltin == 2 and array.dtype != jnp.bfloat16):
            raise TypeError(f"safetensors cannot store these variables: {name!r} of dtype {array.dtype}")
        tensors[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    check_model_arrays(model, tensors, origin := f"cannot save a {type(model).__name__}")
    _check_tokenizer(tokenizer, model, origin)
    document = {"version": _VERSION, **model_to_spec(model), "tensors_sha256": _tensors_sha256(tensors)}
    document["tokenizer"] = None if tokenizer is None else json.loads(tokenizer_to_json(tokenizer))
    try:
        content = safetensors.numpy.save(tensors, metadata={"jaxlm": add_checksum(document)})
    except (safetensors.SafetensorError, KeyError) as error:
        raise TypeError(f"safetensors cannot store these variables: {error}") from None
    write_atomically(file, content, parents=True)


def read_model(path: Path, *, model: LanguageModel | None = None) -> SavedModel:
    """Return what `save_model` wrote to `path`. `load_model` is the public function, which also opens runs."""
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.exists():
        remedy = "pass a run directory, a model directory or a .safetensors file"
        raise FileNotFoundError(f"{path} is not a saved model: {file} does not exist; {remedy}")
    if file.suffix == ".arpa":
        raise ValueError(f"{file} is an ARPA file; convert it with `jaxlm import`, or open it with `read_arpa`")
    metadata, tensors = _read_tensors(file)
    if "jaxlm" not in metadata:
        raise ValueError(f"{file} is not a saved model of jaxlm: its metadata has no field 'jaxlm'")
    document = parse_json(metadata["jaxlm"], origin=file)
    spec = check_document(document, _VERSION, origin=file, what="saved model")
    model = model_from_spec(spec, file, model)
    if spec.get("tensors_sha256") != _tensors_sha256(tensors):
        raise ValueError(f"checksum mismatch in {file}: its tensors have changed since it was saved")
    saved = spec.get("tokenizer")
    tokenizer = None if saved is None else tokenizer_from_json(saved, origin=file)
    _check_tokenizer(tokenizer, model, str(file))
    return SavedModel(model, jax.device_put(variables_from_arrays(model, tensors, str(file))), tokenizer)


def _check_tokenizer(tokenizer: Tokenizer | None, model: LanguageModel, origin: str) -> None:
    if tokenizer is not None and tokenizer.vocab_size > model.vocab_size:
        sizes = f"{tokenizer.vocab_size} tokens, more than the model's vocab_size={model.vocab_size}"
        raise ValueError(f"{origin}: the tokenizer has {sizes}")


def _read_tensors(path: Path) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    import safetensors

    open_regular(path).close()  # safetensors would block on a pipe
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (MemoryError, OSError):
        raise
    except Exception as error:  # safetensors raises many types for a file that it cannot parse
        raise ValueError(f"{path} is not a model file, or is damaged: {error!s:.200}") from None


def _tensors_sha256(tensors: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype}{list(tensors[name].shape)}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
