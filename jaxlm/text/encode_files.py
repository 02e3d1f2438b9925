"""Encode text files of any size into a directory of token ids."""

import contextlib
import functools
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxlm.text.open_tokens import open_tokens
from jaxlm.text.pieces import PIECE_LENGTH, cut_text, group_by_size
from jaxlm.text.text_files import Block, find_text_files, read_documents
from jaxlm.text.token_stream import TokenStream
from jaxlm.text.token_writer import TokenWriter, is_begun, is_finished
from jaxlm.text.tokenizer_files import (
    TOKENIZER_FILE,
    load_tokenizer,
    make_tokenizer,
    tokenizer_from_json,
    tokenizer_to_json,
)
from jaxlm.text.tokenizers import Tokenizer
from jaxlm.utils.atomic_files import expand, is_temporary
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.directory_lock import LOCK_NAMES, lock_directory
from jaxlm.utils.terminal import track
from jaxlm.utils.workers import DaemonExecutor, check_workers, map_ahead

if TYPE_CHECKING:
    from rich.console import Console

_SHARD_SIZE = 2**25  # ids; 64 MB as uint16, which take about 10 s to make


class _Piece(NamedTuple):
    """A part of a source that is encoded by itself, and the bytes of the file read for it."""

    text: str
    source: Path
    num_bytes: int
    ends_document: bool = False
    ends_source: bool = False


def encode_files(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    tokenizer: Literal["char", "byte", "bpe"] | os.PathLike[str] | Tokenizer,
    out: str | os.PathLike[str],
    *,
    field: str = "text",
    vocab_size: int | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    shard_size: int = _SHARD_SIZE,
    console: "Console | None" = None,
) -> TokenStream:
    """Encode text files into the directory `out`, in bounded memory. Host function; not for use inside `jit`.

    Each document is encoded by itself, and the ids are concatenated. If the call is interrupted or killed, repeat
    it to continue: the resulting files are the same.

    Args:
        paths: a path or several, of UTF-8 text files, folders, and globs such as `data/**/*.txt`. Files can be
            compressed with gzip or zstd. A `.jsonl` file has a document per line, and a `.parquet` file, which
            needs the extra `parquet`, one per row. Any other file is a document.
        tokenizer: a tokenizer of jaxlm, the path of a saved one, or the kind to train on these files.
        out: a new directory, or that of the same call. It gets `.npy` shards of ids, uint16 where the vocabulary
            fits and else uint32, `document_ends.npy`, `sources.jsonl`, `jaxlm_tokenizer.json` and, last,
            `index.json` with their checksums.
        field: name of the text in `.jsonl` and `.parquet` files.
        vocab_size: size of the BPE tokenizer to train; None means 4096.
        workers: number of threads, or calls of the executor in flight, at most 1,024; None means one per core.
        executor: where to encode instead of threads, such as a `ProcessPoolExecutor`, or
            `distributed.Client(address).get_executor()` for a Dask cluster.
        shard_size: minimum number of ids per shard, except the last.
        console: where to show the progress.

    Raises:
        FileNotFoundError: a path names no file.
        BlockingIOError: another process is writing to `out`.
        ValueError: a file is not text, `out` belongs to another call, or a character is not in the vocabulary.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.txt").write_text("hello")
    >>> stream = encode_files([folder / "a.txt"], "byte", folder / "tokens")
    >>> np.asarray(stream).tolist(), stream.dtype
    ([104, 101, 108, 108, 111], dtype('uint16'))
    """
    workers = os.cpu_count() or 1 if workers is None else workers
    check_at_least("shard_size", shard_size, 1)
    check_workers(workers)
    if vocab_size is not None and tokenizer != "bpe":
        raise ValueError(f"vocab_size {vocab_size} is for training a BPE tokenizer; remove it")
    out = expand(out)
    paths = [paths] if isinstance(paths, str | os.PathLike) else paths
    sources = [path for path in find_text_files(paths) if not path.resolve().is_relative_to(out.resolve())]
    if not sources:
        raise ValueError(f"paths must name a file outside of {out}; pass at least one")
    if isinstance(tokenizer, os.PathLike):
        tokenizer = load_tokenizer(tokenizer)
    versions = {path: _version_of(path) for path in sources}
    job = {
        "sources": [*versions.values()],
        "tokenizer": tokenizer if isinstance(tokenizer, str) else tokenizer_to_json(tokenizer),
        "options": [field, vocab_size, shard_size],
    }
    out.mkdir(parents=True, exist_ok=True)
    with lock_directory(out):
        for path in [*out.iterdir()]:
            if is_temporary(path.name):  # left by a killed process
                path.unlink()
        if is_finished(out, job):
            return open_tokens(out, verify=False)
        if is_begun(out):
            trained = load_tokenizer(out)
        else:
            if others := sorted({path.name for path in out.iterdir()} - {*LOCK_NAMES, TOKENIZER_FILE}):
                raise ValueError(f"{out} is not empty: it has {others[0]}; choose another --out")
            blocks = itertools.chain.from_iterable(d for path in sources for d in read_documents(path, field))
            tracked = track(console, "training", blocks, sum(size for _, size, _ in versions.values()))
            trained = make_tokenizer(tokenizer, tracked, 4096 if vocab_size is None else vocab_size)
            trained.save(out / TOKENIZER_FILE)
        writer = TokenWriter(out, job, np.uint16 if trained.vocab_size <= 2**16 else np.uint32, shard_size)
        num_sources, num_pieces = writer.position
        rest = sources[num_sources:]
        pieces = ((piece, piece.num_bytes) for path in rest for piece in _read_pieces(path, field))
        tracked_pieces = track(console, "encoding", pieces, sum(versions[path][1] for path in rest))
        remaining = itertools.islice(tracked_pieces, num_pieces, None)
        # 1 for each piece, because a source can have millions of empty documents.
        groups = group_by_size(remaining, PIECE_LENGTH, lambda piece: 1 + len(piece.text))
        encode = functools.partial(_encode, tokenizer_to_json(trained))
        with DaemonExecutor(workers) if executor is None else contextlib.nullcontext(executor) as opened:
            encoded = map_ahead(opened, encode, groups, ahead=2 * workers)
            for piece, ids in itertools.chain.from_iterable(encoded):
                writer.append(ids, ends_document=piece.ends_document)
                if piece.ends_source:
                    writer.end_source(piece.source)
        for path, version in versions.items():
            if _version_of(path) != version:
                raise ValueError(f"{path} changed while it was encoded; encode it again, into another directory")
        if not writer.num_tokens:
            raise ValueError(f"{sources[0]} has no text, nor have the other sources; nothing can be encoded")
        writer.finish(trained.vocab_size)
        return open_tokens(out, verify=False)


def _version_of(path: Path) -> list[Any]:
    """Return what changes when a file is written to: its size and time, with its path."""
    stat = path.stat()
    return [str(path), stat.st_size, stat.st_mtime_ns]


def _read_pieces(source: Path, field: str) -> Iterator[_Piece]:
    """Yield the pieces of the documents of a source, and last an empty one that ends the source."""
    for document in read_documents(source, field):
        num_bytes = 0

        def texts(document: Iterator[Block] = document) -> Iterator[str]:
            nonlocal num_bytes
            for text, size in document:
                num_bytes += size
                yield text

        for text in cut_text(texts()):
            yield _Piece(text, source, num_bytes)
            num_bytes = 0
        yield _Piece("", source, num_bytes, ends_document=True)
    yield _Piece("", source, 0, ends_source=True)


def _encode(tokenizer_json: str, pieces: list[_Piece]) -> list[tuple[_Piece, NDArray[Any]]]:
    """Encode pieces, perhaps in another process or on another machine, with what `tokenizer_to_json` returned."""
    tokenizer = _read_tokenizer(tokenizer_json)
    encoded = []
    for piece in pieces:
        try:
            encoded.append((piece, tokenizer.encode(piece.text)))
        except ValueError as error:
            raise ValueError(f"{piece.source}: {error}, in the part that begins {piece.text[:20]!r}") from None
    return encoded


@functools.lru_cache(maxsize=1)  # a worker makes the encoding of its tokenizer once, not for each call
def _read_tokenizer(tokenizer_json: str) -> Tokenizer:
    return tokenizer_from_json(json.loads(tokenizer_json), origin="the tokenizer of this call")
