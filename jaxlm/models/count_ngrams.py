"""Count the n-grams of a text of any size, in pieces, on several processes if needed."""

import functools
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaxlm._types import Counts
from jaxlm.models.ngram_counts import Keys, NgramCounts, merge_runs, pack_ngrams, sort_and_count
from jaxlm.text.batching import as_integers, check_ids
from jaxlm.text.token_stream import TokenStream
from jaxlm.utils.atomic_files import add_filename
from jaxlm.utils.checks import check_at_least, check_not_traced
from jaxlm.utils.terminal import track
from jaxlm.utils.workers import map_ahead

if TYPE_CHECKING:
    from rich.console import Console

_PIECE = 2**22  # windows; with keys, their sorted copy and counts, a piece takes up to 140 MB
_ROW_BYTES = 16  # of a key of one word, and its count

Run = tuple[Keys, Counts]  # distinct keys, sorted, and their counts


def count_ngrams(
    ids: Any,
    order: int,
    *,
    vocab_size: int | None = None,
    executor: Executor | None = None,
    workers: int = 2,
    memory: int = 2**30,
    console: "Console | None" = None,
) -> NgramCounts:
    """Count all windows of `order` ids. Host function; not for use inside `jit`.

    The text is read in pieces, so a memory map is never copied as a whole.

    Args:
        ids: integers [T], T >= n: an array, a memory map, a list, or a `TokenStream`.
        order: n, at least 1.
        vocab_size: V; None means that of the `TokenStream`, or the largest id plus 1.
        executor: where pieces are counted: in threads, processes, or on a Dask cluster with
            `distributed.Client(address).get_executor()`; None means in this thread.
        workers: half the number of pieces that the executor gets ahead of time, at least 1.
        memory: bytes for the counts, approximately, besides up to 140 MB for each piece in the executor. Beyond
            it, counts are kept in temporary files, and the arrays of the result are memory maps.
        console: prints progress; None is quiet.

    Raises:
        ValueError: T < n, an id is outside [0, V), or V is outside [1, 2^31).
        OSError: a temporary file cannot be written.
        TypeError: the ids are not integers, or the call is traced.

    >>> counts = count_ngrams([3, 1, 3, 1], order=2)
    >>> counts.ngrams().tolist(), counts.counts.tolist(), counts.vocab_size
    ([[1, 3], [3, 1]], [1, 2], 4)
    """
    check_at_least("order", order, 1)
    check_at_least("workers", workers, 1)
    order = int(order)  # a small integer of NumPy overflows below
    check_not_traced("count_ngrams", "counts that were made outside", ids)
    stream = as_integers(ids, min_length=order)
    stream = stream if isinstance(stream, TokenStream) else TokenStream((np.asarray(stream),), 0)
    num_windows = len(stream) - order + 1
    if vocab_size is None:
        vocab_size = stream.vocab_size or 1 + max(0, *(int(piece.max()) for piece in stream.segments(_PIECE)))
    check_at_least("vocab_size", vocab_size, 1)  # and below 2^31, since ids are counted as int32
    pieces = ((piece, piece.nbytes) for piece in stream.segments(_PIECE, overlap=order - 1))
    total = num_windows * stream.dtype.itemsize
    count = functools.partial(count_piece, order=order, vocab_size=vocab_size)
    # The maps of the result outlive the folder, except on Windows, which does not delete a file that is in use.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        runs = map_ahead(executor, count, track(console, "counting", pieces, total), ahead=2 * workers)
        keys, counts = _merge_all(runs, memory, Path(folder))
    if (counted := int(counts.sum())) != num_windows:
        raise AssertionError(f"the counts sum to {counted}, but the text has {num_windows} windows")
    return NgramCounts(vocab_size, order, keys, counts)


def count_piece(piece: NDArray[Any], order: int, vocab_size: int) -> Run:
    """Return the distinct keys of the windows of a piece [T], and their counts. Runs in the executor."""
    windows = np.lib.stride_tricks.sliding_window_view(check_ids(piece, vocab_size), order)
    return sort_and_count(pack_ngrams(windows, vocab_size))


def _merge_all(runs: Iterable[Run], memory: int, folder: Path) -> Run:
    """Merge runs. Beyond a quarter of the memory, since merging copies them, write them to files."""
    limit = memory // 4 // _ROW_BYTES  # rows
    in_memory: list[Run] = []
    in_files: list[Run] = []
    for run in runs:
        in_memory.append(run)
        if _num_rows(in_memory) > limit:
            in_memory = [merge_runs(in_memory)]
            if _num_rows(in_memory) > limit // 2:
                in_files.append(_write(in_memory, folder / str(len(in_files))))
                in_memory = []
    if not in_files:
        return merge_runs(in_memory)
    return _write(_merge_ranges(in_files + in_memory, limit), folder / "merged")


def _merge_ranges(runs: list[Run], limit: int) -> Iterator[Run]:
    """Yield the merged runs in ranges of the first words of the keys.

    A range has at most `limit` rows before the merge, or all rows of one first word.
    """
    stride = max(limit // (2 * len(runs)), 1)
    samples = np.sort(np.concatenate([keys[0, ::stride] for keys, _ in runs]))  # one for `stride` rows
    bounds = np.unique(samples[len(runs) :: len(runs)])
    cuts = [[0, *np.searchsorted(keys[0], bounds).tolist(), len(counts)] for keys, counts in runs]
    for index in range(len(bounds) + 1):
        parts = [
            (keys[:, cut[index] : cut[index + 1]], counts[cut[index] : cut[index + 1]])
            for (keys, counts), cut in zip(runs, cuts, strict=True)
        ]
        yield merge_runs(parts)


def _write(chunks: Iterable[Run], path: Path) -> Run:
    """Write consecutive chunks of a run to files, and return memory maps of them."""
    num_words = 0
    key_path, count_path = path.with_suffix(".keys"), path.with_suffix(".counts")
    with add_filename(path), key_path.open("wb") as key_file, count_path.open("wb") as count_file:
        for keys, counts in chunks:
            num_words = len(keys)
            key_file.write(np.ascontiguousarray(keys.T).data)
            count_file.write(np.ascontiguousarray(counts).data)
    counts = np.memmap(count_path, np.int64, "r")
    keys = np.memmap(key_path, np.uint64, "r", shape=(len(counts), num_words))
    return keys.T, counts


def _num_rows(runs: list[Run]) -> int:
    return sum(len(counts) for _, counts in runs)
