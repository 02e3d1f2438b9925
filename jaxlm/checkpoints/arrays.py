"""arrays."""

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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.checksums import file_checksums, verify_file_checksums
from jaxlm.utils.json_files import read_json

# What Orbax writes beside the arrays. Of other files it might read arrays that nobody checked.
_NOTE = re.compile(r"_[A-Z_]+|commit_success\.txt|array_metadatas/process_0")

Name = tuple[str, ...]


class _Described(NamedTuple):
    """An array as an index has it, not made yet."""

    dtype: Any
    shape: tuple[int, ...]


def write_arrays(folder: Path, arrays: Iterable[tuple[Name, Any]]) -> dict[str, Any]:
    """Writes named arrays to the new `folder`, and returns the index that `read_arrays` needs, plain JSON.

    Raises:
        TypeError: one of them is no array of numbers (a random key: take `jax.random.key_data` of it), or holds
            none.
        OSError: they cannot be written.
    """
    named = [(name, np.asarray(array)) for name, array in arrays]
    for name, array in named:
        if _dtype_named(str(array.dtype)) is None or not array.size:
            raise TypeError(f"array {_spoken(name)} cannot be saved: it is {_signature(array)}")
    import orbax.checkpoint as ocp

    try:
        _check_space(folder.parent, sum(array.nbytes for _, array in named))
        with _orbax(ocp) as checkpointer:
            # Numbers as names: a model's own may hold dots, slashes, or a way out of the folder.
            checkpointer.save(
                folder.absolute(), {_file_name(number): array for number, (_, array) in enumerate(named)}
            )
        for number, (_, array) in enumerate(named):
            _store_plainly(folder, number, array)
        sums = file_checksums(folder)
        _check_layout(folder, sums, named)
    except (OSError, ValueError, RuntimeError) as error:
        raise OSError(f"cannot write {folder}: {first_line(error)}") from error
    described = [
        {"name": list(name), "dtype": str(array.dtype), "shape": list(array.shape)} for name, array in named
    ]
    return {"arrays": described, "files": sums}


def read_arrays(
    folder: Path, index: Any, wanted: Sequence[tuple[Name, str]] | None = None
) -> list[tuple[Name, np.ndarray[Any, Any]]]:
    """The arrays that `write_arrays` wrote, in their order: NumPy arrays, so that no device is asked for.

    Before one is made, its name, shape and dtype are compared with `wanted` (names and `signature`s, in any
    order), every file with its sha256 in `index`, and the bytes that each array needs with those that are there.

    Raises:
        ValueError: something is missing, more than there should be, changed, or not as wanted; the message says
            what, and names the folder.
    """
    described = _checked_index(folder, index)
    if wanted is not None:
        compare_signatures(str(folder), [(name, _signature(each)) for name, each in described], wanted)
    verify_file_checksums(folder, index["files"])
    _check_layout(folder, index["files"], described)
    import orbax.checkpoint as ocp

    names = [_file_name(number) for number in range(len(described))]
    try:
        with _orbax(ocp) as checkpointer:
            arrays = checkpointer.restore(
                folder.absolute(), restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
            )
        read = [np.asarray(arrays[name]) for name in names]
    except MemoryError:  # of this machine: the arrays are no larger than their files
        raise
    # Anything: what is read here may come from a stranger, and Orbax checks little of it.
    except Exception as error:
        raise ValueError(f"{folder} is damaged: its arrays cannot be read ({first_line(error)})") from error
    for (name, each), array in zip(described, read, strict=True):
        if _signature(array) != _signature(each):
            raise ValueError(
                f"{folder} is damaged: array {_spoken(name)} is {_signature(array)}, not {_signature(each)}"
            )
    return [(name, array) for (name, _), array in zip(described, read, strict=True)]


def named_leaves(tree: Any) -> list[tuple[Name, Any]]:
    """The leaves of a pytree, each with the way to it: keys of dicts, names of fields, places in lists."""

    def word(entry: Any) -> str:
        return str(next(getattr(entry, kind) for kind in ("key", "name", "idx") if hasattr(entry, kind)))

    return [(tuple(map(word, path)), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def signatures(tree: Any) -> list[tuple[Name, str]]:
    """`named_leaves` as `read_arrays` wants them: dtype and shape for each array."""
    return [(name, _signature(leaf)) for name, leaf in named_leaves(tree)]


def compare_signatures(origin: str, found: Sequence[tuple[Name, str]], wanted: Sequence[tuple[Name, str]]) -> None:
    """Raises a ValueError, which names the array, unless both are of the same names, dtypes and shapes."""
    there, expected = dict(found), dict(wanted)
    for name in sorted(there.keys() | expected.keys()):
        if there.get(name) != expected.get(name):
            raise ValueError(
                f"{origin}: array {_spoken(name)} is {there.get(name, 'missing'):.100}, "
                f"wanted is {expected.get(name, 'none of that name')}"
            )


@contextmanager
def _orbax(ocp: Any) -> Iterator[Any]:
    """Orbax as this file uses it, without its log: that there was nothing to merge, and what it raises anyway."""
    options = {"use_ocdbt": False, "use_compression": False}
    if "use_compression" not in inspect.signature(ocp.PyTreeCheckpointHandler).parameters:
        del options["use_compression"]  # `_store_plainly` undoes it
    handler = ocp.PyTreeCheckpointHandler(**options)
    logger = logging.getLogger("absl")
    logger.addFilter(_is_not_of_orbax)
    try:
        with ocp.Checkpointer(handler) as checkpointer:
            yield checkpointer
    finally:
        logger.removeFilter(_is_not_of_orbax)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts


def _check_space(folder: Path, num_bytes: int) -> None:
    """Raises an OSError where there is no room: Orbax would find out in several threads, and say so in each."""
    if shutil.disk_usage(folder).free < num_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _checked_index(folder: Path, index: Any) -> list[tuple[Name, _Described]]:
    """Names, shapes and dtypes of the arrays, once the index is known to be of the right form."""
    damage = ValueError(f"{folder} is damaged: its index of arrays is malformed")
    match index:
        case {"arrays": list(arrays), "files": dict()} if arrays:
            pass
        case _:
            raise damage
    described = []
    for each in arrays:
        match each:
            case {"name": list(name), "dtype": str(word), "shape": list(shape)} if (
                name
                and all(isinstance(part, str) for part in name)
                and all(type(size) is int and size > 0 for size in shape)
                and (dtype := _dtype_named(word)) is not None
            ):
                described.append((tuple(name), _Described(dtype, tuple(shape))))
            case _:
                raise damage
    if len(dict(described)) < len(described):
        raise damage
    return described


def _check_layout(folder: Path, sums: dict[str, Any], arrays: Sequence[tuple[Name, Any]]) -> None:
    """Raises a ValueError unless the files are just those of the arrays, each one plain chunk of its size.

    What Orbax is told to read is then no larger than the files, and lies in the folder.
    """
    expected = set()
    for number, (_, array) in enumerate(arrays):
        described, chunk = _zarr_files(number, array)
        expected |= {described, chunk}
        if described not in sums or read_json(folder / described, follow_links=False) != _zarr_of(array):
            raise ValueError(f"{folder} is damaged: {described} is not of one plain chunk, {_signature(array)}")
        num_bytes = math.prod(array.shape) * array.dtype.itemsize
        if sums.get(chunk, [0])[0] != num_bytes:
            raise ValueError(
                f"{folder} is damaged: {chunk} has not the {num_bytes:,} bytes of {_signature(array)}"
            )
    for name in sorted(sums.keys() - expected):
        if not _NOTE.fullmatch(name):
            raise ValueError(f"{folder} is damaged: it holds {name!r:.200}, which is of no array")
    match read_json(folder / "_METADATA", follow_links=False) if "_METADATA" in sums else None:
        case {"tree_metadata": dict(tree), "use_zarr3": False, **others} if not others.get("use_ocdbt"):
            names = [_file_name(number) for number in range(len(arrays))]
            if [_key_of(entry) for entry in tree.values()] == names:
                return
    raise ValueError(f"{folder} is damaged: _METADATA is not of these arrays")


def _key_of(entry: Any) -> Any:
    """The key of an array in a dict, as Orbax describes it; None for anything else."""
    match entry:
        case {"key_metadata": [{"key": key, "key_type": 2}], "value_metadata": {"value_type": "np.ndarray"}}:
            return key
    return None


def _store_plainly(folder: Path, number: int, array: np.ndarray[Any, Any]) -> None:
    """Writes the array's files anew where Orbax compressed it, as its version 0.11.24 does unasked."""
    described, chunk = (folder / name for name in _zarr_files(number, array))
    if read_json(described) != _zarr_of(array):
        write_atomically(chunk, array.tobytes())
        write_atomically(described, json.dumps(_zarr_of(array)))


def _zarr_of(array: Any) -> dict[str, Any]:
    """What Zarr 2 says of the array, as one plain chunk."""
    is_of_numpy = array.dtype.isbuiltin == 1  # others, as bfloat16, go by their name
    return {
        "zarr_format": 2,
        "shape": list(array.shape),
        "chunks": list(array.shape),
        "dtype": array.dtype.str if is_of_numpy else str(array.dtype),
        "compressor": None,
        "fill_value": None,
        "filters": None,
        "order": "C",
        "dimension_separator": ".",
    }


def _zarr_files(number: int, array: Any) -> tuple[str, str]:
    """The names of an array's two files: its description, and its one chunk."""
    folder = _file_name(number)
    return f"{folder}/.zarray", f"{folder}/{'.'.join('0' for _ in array.shape) or '0'}"


def _signature(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _dtype_named(word: str) -> Any:
    """The dtype of numbers with just this name; None where there is none. NumPy would take whole expressions."""
    if not re.fullmatch("[a-z][a-z0-9_]*", word):
        return None
    try:
        dtype = jnp.dtype(word)  # jnp's: NumPy's own knows no bfloat16
        jax.dtypes.canonicalize_dtype(dtype)  # raises where JAX has none of it
    except TypeError:
        return None
    is_plain = str(dtype) == word and any(jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.number))
    return dtype if is_plain else None


def _file_name(number: int) -> str:
    return f"{number:06d}"


def _spoken(name: Name) -> str:
    return f"{'/'.join(name)!r:.200}"


def first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:1000]
