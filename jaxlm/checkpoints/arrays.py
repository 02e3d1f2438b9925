"""Write and read named arrays as uncompressed Zarr, through Orbax, with a checksum for every file.

Each array is a single uncompressed chunk. Any Zarr reader can read it, and it needs no more memory than its file.
Orbax stores no checksums and checks little of what it reads. `write_arrays` returns the checksums in an index, and
the caller stores that in a JSON file.
"""

import errno
import inspect
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.checksums import file_checksums, verify_file_checksums
from jaxlm.utils.json_files import read_json

# Files that Orbax adds to those of the arrays. Others are refused: Orbax might read arrays from them.
_ORBAX_FILES = re.compile(r"_[A-Z_]+|commit_success\.txt|array_metadatas/process_0")

Name = tuple[str, ...]


def write_arrays(directory: Path, arrays: Iterable[tuple[Name, Any]]) -> dict[str, Any]:
    """Write named arrays to the new `directory`, and return the index that `read_arrays` needs, as plain JSON.

    Raises:
        TypeError: an array is empty or not numeric. For a random key, pass `jax.random.key_data(key)`.
        OSError: the arrays cannot be written.
    """
    named = [(name, np.asarray(array)) for name, array in arrays]
    for name, array in named:
        if _parse_dtype(str(array.dtype)) is None or not array.size:
            raise TypeError(f"cannot save array {format_name(name)}: it is {_signature(array)}")
    import orbax.checkpoint as ocp

    try:
        # Orbax would run out of space in several threads, each of which prints its error.
        if shutil.disk_usage(directory.parent).free < sum(array.nbytes for _, array in named):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))
        with _orbax(ocp) as checkpointer:
            # Numbers as file names: the arrays' own names may contain dots, slashes or `..`.
            numbered = {_file_name(number): array for number, (_, array) in enumerate(named)}
            checkpointer.save(directory.absolute(), numbered)
        for number, (_, array) in enumerate(named):
            _undo_compression(directory, number, array)
        checksums = file_checksums(directory)
        _check_layout(directory, checksums, named)
    except (OSError, ValueError, RuntimeError) as error:
        raise OSError(f"cannot write {directory}: {_first_line(error)}") from error
    specs = [{"name": list(name), "dtype": str(array.dtype), "shape": list(array.shape)} for name, array in named]
    return {"arrays": specs, "files": checksums}


def read_arrays(
    directory: Path, index: Any, expected: Sequence[tuple[Name, Any]] | None = None
) -> list[tuple[Name, np.ndarray[Any, Any]]]:
    """Return the arrays that `write_arrays` wrote, in the same order, as NumPy arrays.

    Before any array is allocated, check names, shapes and dtypes against `expected` (None accepts any), files
    against their checksums in `index`, and the sizes of arrays against those of their files.

    Raises:
        ValueError: a check failed; the message names the directory.
    """
    specs = _parse_index(directory, index)
    if expected is not None:
        check_arrays(str(directory), specs, expected)
    verify_file_checksums(directory, index["files"])
    _check_layout(directory, index["files"], specs)
    import orbax.checkpoint as ocp

    keys = list(map(_file_name, range(len(specs))))
    try:
        with _orbax(ocp) as checkpointer:
            restore_args = {key: ocp.RestoreArgs(restore_type=np.ndarray) for key in keys}
            restored = checkpointer.restore(directory.absolute(), restore_args=restore_args)
        return [(name, np.asarray(restored[key])) for key, (name, _) in zip(keys, specs, strict=True)]
    except MemoryError:  # not damage: the arrays are no larger than their files
        raise
    except Exception as error:
        raise ValueError(f"{directory} is damaged: cannot read its arrays ({_first_line(error)})") from error


def named_leaves(tree: Any) -> list[tuple[Name, Any]]:
    """Return the leaves of a pytree, each with its path: dict keys, field names and list indices as strings."""

    def entry_name(entry: Any) -> str:  # jax.tree_util.keystr(..., simple=True) in versions of JAX after 0.5.0
        return str(next(getattr(entry, kind) for kind in ("key", "name", "idx") if hasattr(entry, kind)))

    return [(tuple(map(entry_name, path)), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def check_arrays(origin: str, arrays: Iterable[tuple[Name, Any]], expected: Iterable[tuple[Name, Any]]) -> None:
    """Raise a ValueError that starts with `origin` if names, dtypes or shapes differ. The order is ignored."""
    found = {name: _signature(array) for name, array in arrays}
    wanted = {name: _signature(array) for name, array in expected}
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{origin}: array {format_name(name)} is {found.get(name, 'missing'):.100}, "
                f"expected {wanted.get(name, 'no array of that name')}"
            )


def format_name(name: Name) -> str:
    """Return an array's name as shown in messages, at most 200 characters."""
    return f"{'/'.join(name)!r:.200}"


@contextmanager
def _orbax(ocp: Any) -> Iterator[Any]:
    """Yield a Checkpointer for uncompressed Zarr. Suppress its log, which repeats the exceptions."""
    options = {"use_ocdbt": False}
    if "use_compression" in inspect.signature(ocp.PyTreeCheckpointHandler).parameters:
        options["use_compression"] = False  # old versions always compress; see `_undo_compression`

    def is_not_from_orbax(record: logging.LogRecord) -> bool:
        return "orbax" not in Path(record.pathname).parts

    logger = logging.getLogger("absl")
    logger.addFilter(is_not_from_orbax)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)) as checkpointer:
            yield checkpointer
    finally:
        logger.removeFilter(is_not_from_orbax)


def _parse_index(directory: Path, index: Any) -> list[tuple[Name, jax.ShapeDtypeStruct]]:
    """Return the name and spec of each array. Raise a ValueError when the index is malformed."""
    specs = {}
    match index:
        case {"arrays": list(arrays), "files": dict()}:
            for entry in arrays:
                match entry:
                    case {"name": list(name), "dtype": str(dtype_name), "shape": list(shape)} if (
                        name
                        and all(isinstance(part, str) for part in name)
                        and all(type(size) is int and size > 0 for size in shape)
                        and (dtype := _parse_dtype(dtype_name)) is not None
                    ):
                        specs[tuple(name)] = jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]
            if arrays and len(specs) == len(arrays):
                return list(specs.items())
    raise ValueError(f"{directory} is damaged: its index of arrays is malformed")


def _check_layout(directory: Path, checksums: dict[str, Any], arrays: Sequence[tuple[Name, Any]]) -> None:
    """Raise a ValueError unless the files are exactly those of the arrays, each in one uncompressed chunk.

    Orbax then reads nothing outside the directory, and allocates no more than the files have bytes.
    """
    expected = set()
    for number, (_, array) in enumerate(arrays):
        metadata, chunk = _zarr_files(number, array)
        expected |= {metadata, chunk}
        found = read_json(directory / metadata, follow_links=False) if metadata in checksums else None
        num_bytes = math.prod(array.shape) * array.dtype.itemsize
        if found != _zarr_metadata(array) or checksums.get(chunk, [0])[0] != num_bytes:
            raise ValueError(f"{directory} is damaged: {metadata} and {chunk} are not of {_signature(array)}")
    for name in sorted(checksums.keys() - expected):
        if not _ORBAX_FILES.fullmatch(name):
            raise ValueError(f"{directory} is damaged: {name!r:.200} belongs to none of its arrays")
    match read_json(directory / "_METADATA", follow_links=False) if "_METADATA" in checksums else None:
        case {"tree_metadata": dict(tree), "use_zarr3": False, **others} if not others.get("use_ocdbt"):
            if list(map(_orbax_key, tree.values())) == list(map(_file_name, range(len(arrays)))):
                return
    raise ValueError(f"{directory} is damaged: _METADATA does not describe its arrays")


def _orbax_key(entry: Any) -> Any:
    """Return the dict key of an array from its entry in Orbax's `_METADATA`, or None."""
    match entry:
        case {"key_metadata": [{"key": key, "key_type": 2}], "value_metadata": {"value_type": "np.ndarray"}}:
            return key
    return None


def _undo_compression(directory: Path, number: int, array: np.ndarray[Any, Any]) -> None:
    """Rewrite the files of an array that Orbax has compressed, as version 0.11.24 always does."""
    metadata, chunk = (directory / name for name in _zarr_files(number, array))
    if read_json(metadata) != _zarr_metadata(array):
        write_atomically(chunk, array.tobytes())
        write_atomically(metadata, json.dumps(_zarr_metadata(array)))


def _zarr_metadata(array: Any) -> dict[str, Any]:
    """Return the Zarr 2 metadata of an array that is stored as one uncompressed chunk."""
    is_numpy_dtype = array.dtype.isbuiltin == 1  # others, such as bfloat16, are stored by name
    return {
        "zarr_format": 2,
        "shape": list(array.shape),
        "chunks": list(array.shape),
        "dtype": array.dtype.str if is_numpy_dtype else str(array.dtype),
        "compressor": None,
        "fill_value": None,
        "filters": None,
        "order": "C",
        "dimension_separator": ".",
    }


def _zarr_files(number: int, array: Any) -> tuple[str, str]:
    """Return the names of an array's two files: its metadata and its single chunk."""
    return f"{_file_name(number)}/.zarray", f"{_file_name(number)}/{'.'.join('0' for _ in array.shape) or '0'}"


def _signature(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _parse_dtype(name: str) -> Any:
    """Return the numeric dtype with exactly this name, or None. NumPy itself would evaluate whole expressions."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        return None
    try:
        dtype = jnp.dtype(name)  # unlike NumPy's, it knows bfloat16
        jax.dtypes.canonicalize_dtype(dtype)  # raises a TypeError for dtypes that JAX does not support
    except TypeError:
        return None
    is_numeric = jnp.issubdtype(dtype, jnp.bool_) or jnp.issubdtype(dtype, jnp.number)
    return dtype if str(dtype) == name and is_numeric else None


def _file_name(number: int) -> str:
    return f"{number:06d}"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:1000]  # Orbax's messages can have hundreds of lines
