"""Count the n-grams of a text of any size, in pieces, on several processes if needed."""

import collections
import functools
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from jaxlm._types import Counts
from jaxlm.models.ngram_counts import Keys, NgramCounts, merge_runs, pack_ngrams, sort_and_count
from jaxlm.text.batching import as_integers, check_ids
from jaxlm.utils.checks import check_at_least, check_not_traced

_PIECE = 2**22  # windows; with keys, their sorted copy and counts, a piece takes up to 140 MB
_PIECES_AHEAD = 4  # in flight at an executor
_ROW_BYTES = 16  # of a key of one word, and its count

Run = tuple[Keys, Counts]  # distinct keys, sorted, and their counts


def count_ngrams(
    ids: Any, order: int, *, vocab_size: int | None = None, executor: Executor | None = None, memory: int = 2**30
) -> NgramCounts:
    """Count all windows of `order` ids. Host function; not for use inside `jit`.

    The text is read in pieces, so a memory map is never copied as a whole.

    Args:
        ids: integers [T], T >= n: an array, a list, or anything with `len(ids)` and slices that are NumPy arrays.
        order: n, at least 1.
        vocab_size: V; None means the largest id plus 1.
        executor: where pieces are counted; None means in this thread.
        memory: bytes to use, approximately. Beyond it, counts are kept in temporary files, and the arrays of the
            result are memory maps.

    Raises:
        ValueError: T < n, or an id is outside [0, V).
        TypeError: the ids are not integers, or the call is traced.

    >>> counts = count_ngrams([3, 1, 3, 1], order=2)
    >>> counts.ngrams().tolist(), counts.counts.tolist(), counts.vocab_size
    ([[1, 3], [3, 1]], [1, 2], 4)
    """
    check_at_least("order", order, 1)
    check_not_traced("count_ngrams", "counts that were made outside", ids)
    if isinstance(ids, np.ndarray | jax.Array | list | tuple):
        ids = np.asarray(as_integers(ids, min_length=order))
    num_windows = len(ids) - order + 1
    if num_windows < 1:
        raise ValueError(f"ids must have at least {order} tokens, got {len(ids)}; use a longer text")
    if vocab_size is None:
        vocab_size = 1 + max(int(ids[begin : begin + _PIECE].max()) for begin in range(0, len(ids), _PIECE))
    pieces = (ids[begin : begin + _PIECE + order - 1] for begin in range(0, num_windows, _PIECE))
    count = functools.partial(count_piece, order=order, vocab_size=vocab_size)
    # The maps of the result outlive the folder, except on Windows, which does not delete a file that is in use.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        keys, counts = _merge_all(_map_ahead(count, pieces, executor), memory, Path(folder))
    if (total := int(counts.sum())) != num_windows:
        raise AssertionError(f"the counts sum to {total}, but the text has {num_windows} windows")
    return NgramCounts(vocab_size, order, keys, counts)


def count_piece(piece: NDArray[Any], order: int, vocab_size: int) -> Run:
    """Return the distinct keys of the windows of a piece [T], and their counts. Runs in the executor."""
    windows = np.lib.stride_tricks.sliding_window_view(check_ids(piece, vocab_size), order)
    return sort_and_count(pack_ngrams(windows, vocab_size))


def _map_ahead(function: Any, pieces: Iterable[Any], executor: Executor | None) -> Iterator[Run]:
    """Yield the results of `function` in order, with a bounded number of calls in flight."""
    pending: collections.deque[Any] = collections.deque()
    for piece in pieces:
        if executor is None:
            yield function(piece)
            continue
        pending.append(executor.submit(function, np.asarray(piece)))
        if len(pending) > _PIECES_AHEAD:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


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
    """Yield the merged runs in ranges of the first words of the keys, of at most `limit` rows before the merge."""
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
    with path.with_suffix(".keys").open("wb") as key_file, path.with_suffix(".counts").open("wb") as count_file:
        for keys, counts in chunks:
            num_words = len(keys)
            key_file.write(np.ascontiguousarray(keys.T).data)
            count_file.write(np.ascontiguousarray(counts).data)
    counts = np.memmap(path.with_suffix(".counts"), np.int64, "r")
    keys = np.memmap(path.with_suffix(".keys"), np.uint64, "r", shape=(len(counts), num_words))
    return keys.T, counts


def _num_rows(runs: list[Run]) -> int:
    return sum(len(counts) for _, counts in runs)
