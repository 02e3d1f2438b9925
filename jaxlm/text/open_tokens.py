"""Open encoded texts as memory maps: directories of `jaxlm encode`, and nanoGPT's `.bin` files."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm.text.batching import check_stream
from jaxlm.text.token_stream import TokenStream
from jaxlm.text.token_writer import read_fields
from jaxlm.text.tokenizer_files import load_tokenizer
from jaxlm.utils.atomic_files import expand
from jaxlm.utils.json_files import file_sha256


def open_tokens(
    path: str | os.PathLike[str], *, vocab_size: int | None = None, verify: bool = True
) -> TokenStream:
    """Open an encoded text. Its ids stay on disk and are read when they are used.

    Args:
        path: a directory written by `jaxlm encode`, or a `.bin` file of little-endian uint16 ids, as written by
            nanoGPT.
        vocab_size: V; all ids are checked against it. None means that of the directory's tokenizer, or 65,536
            for a `.bin` file.
        verify: compare the checksums of the directory's files, which reads all of them, at about 1 GB/s from the
            page cache. Sizes and dtypes are always checked.

    Raises:
        FileNotFoundError: a file is missing, or the directory has no index because encoding was interrupted.
        ValueError: a file was changed, or is not of this format, or an id is outside [0, V).

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "train.bin"
    >>> np.array([5, 3, 8], "<u2").tofile(path)
    >>> open_tokens(path)[:2][1]
    3
    """
    path = expand(path)
    path.stat()  # which raises the error of a missing file
    stream = _open_directory(path, verify) if path.is_dir() else _open_bin(path)
    return stream if vocab_size is None else check_stream(stream, vocab_size, min_length=0, name=str(path))


def _open_directory(path: Path, verify: bool) -> TokenStream:
    index_path = path / "index.json"
    if not index_path.exists():
        remedy = "run `jaxlm encode` again, which continues an interrupted encoding"
        raise FileNotFoundError(f"{path} is not a complete token directory: it has no index.json; {remedy}")
    index = read_fields(index_path)
    if verify:
        for entry in [*index["shards"], index["sources"], index["document_ends"], index["tokenizer"]]:
            if file_sha256(path / entry["file"]) != entry["sha256"]:
                problem = f"{path / entry['file']} is damaged: checksum mismatch"
                raise ValueError(f"{problem}; delete the directory and encode again")
    shards = [_open_shard(path / entry["file"], index["dtype"], entry["num_tokens"]) for entry in index["shards"]]
    return TokenStream((*shards,), index["vocab_size"], load_tokenizer(path / index["tokenizer"]["file"]))


def open_npy(path: Path) -> NDArray[Any]:
    """Return a memory map of a `.npy` file. Raises a ValueError that names `path` if it is damaged."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:  # not a .npy file, or shorter than its header says
        raise ValueError(f"{path} is damaged: {error}") from None


def _open_shard(path: Path, dtype: str, num_tokens: int) -> NDArray[Any]:
    expected = f"{dtype}[{num_tokens}]"
    shard = open_npy(path)
    if (found := f"{shard.dtype}{list(shard.shape)}") != expected:
        raise ValueError(f"{path} is {found}, expected {expected}; run `jaxlm encode` into a new directory")
    return np.asarray(shard)  # a plain view, because indexing an `np.memmap` is slower


def _open_bin(path: Path) -> TokenStream:
    if path.suffix != ".bin":
        raise ValueError(f"{path} is neither a token directory nor a .bin file; run `jaxlm encode` to make one")
    if not (size := path.stat().st_size) or size % 2:
        raise ValueError(f"{path} has {size} bytes, but uint16 ids take a multiple of 2, at least 2")
    return TokenStream((np.asarray(np.memmap(path, "<u2", "r")),), 2**16)
