"""The n-grams of a text and how often each occurs, as sorted integer keys."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxlm._types import Counts, Ngrams
from jaxlm.text.batching import check_ids
from jaxlm.utils.atomic_files import add_filename, expand, make_parents, write_atomically
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.json_files import add_checksum, check_document, file_sha256, read_json

Keys = NDArray[np.uint64]  # [W, M]
_VERSION = 1


@final
@dataclass(frozen=True, eq=False)
class NgramCounts:
    """The distinct n-grams of a text, and their counts. `a + b` has the counts of both texts.

    The key of w_1 ... w_n is a number in base V with the digits w_{n-1}, ..., w_1, w_n: the context backwards,
    then the token. So n-grams with the same context are adjacent, and so are contexts with the same end. Heafield
    et al. (2013), "Scalable Modified Kneser-Ney Language Model Estimation", call it context order.

    Args:
        vocab_size: V.
        order: n.
        keys: uint64 [W, M], sorted; W is 1 unless V^n exceeds 2^64. The last word holds the last digits.
        counts: int64 [M], at least 1.

    >>> import jaxlm
    >>> counts = jaxlm.count_ngrams([0, 1, 2, 0, 1], order=2, vocab_size=3)
    >>> counts.ngrams().tolist(), counts.counts.tolist()
    ([[0, 1], [1, 2], [2, 0]], [2, 1, 1])
    """

    vocab_size: int
    order: int
    keys: Keys
    counts: Counts

    def __post_init__(self) -> None:
        """Make V and n Python integers: powers of NumPy's overflow."""
        for name in ("vocab_size", "order"):
            object.__setattr__(self, name, int(getattr(self, name)))

    def ngrams(self) -> Ngrams:
        """Return the n-grams, int32 [M, n]."""
        size = _digits_per_word(self.vocab_size)
        ngrams = np.empty((len(self.counts), self.order), np.int32)
        for digit, position in enumerate(reversed(_positions(self.order))):
            ngrams[:, position] = (
                self.keys[-1 - digit // size] // self.vocab_size ** (digit % size) % self.vocab_size
            )
        return ngrams

    def __add__(self, other: "NgramCounts") -> "NgramCounts":
        if (self.vocab_size, self.order) != (other.vocab_size, other.order):
            sizes = " and ".join(f"vocab_size={each.vocab_size}, order={each.order}" for each in (self, other))
            raise ValueError(f"n-gram counts must have the same vocabulary and order, got {sizes}")
        merged = merge_runs([(self.keys, self.counts), (other.keys, other.counts)])
        return NgramCounts(self.vocab_size, self.order, *merged)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `keys.npy`, `counts.npy` and, last, `counts.json` with checksums to the new directory `path`.

        Raises:
            FileExistsError: the directory exists.
        """
        path = expand(path)
        with make_parents(path):
            path.mkdir()
            try:
                self._write(path)
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise

    def _write(self, path: Path) -> None:
        for name, array in (("keys.npy", self.keys), ("counts.npy", self.counts)):
            array = np.ascontiguousarray(array)
            with add_filename(path / name), (path / name).open("wb") as file:
                # `np.save` hides the reason of a failed write.
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
                file.write(array.data)
        document = {
            "version": _VERSION,
            "vocab_size": self.vocab_size,
            "order": self.order,
            "num_ngrams": len(self.counts),
            "files": {name: file_sha256(path / name) for name in ("keys.npy", "counts.npy")},
        }
        write_atomically(path / "counts.json", add_checksum(document))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "NgramCounts":
        """Return the counts that `save` wrote to a directory. The arrays are memory-mapped.

        Raises:
            ValueError: a file is damaged, or another version wrote it.
        """
        path = expand(path)
        origin = path / "counts.json"
        document = check_document(read_json(origin), _VERSION, origin=origin, what="directory of n-gram counts")
        for name, checksum in document["files"].items():
            if file_sha256(path / name) != checksum:
                raise ValueError(f"{path / name} is damaged: checksum mismatch")
        arrays = (np.load(path / name, mmap_mode="r") for name in ("keys.npy", "counts.npy"))
        return cls(document["vocab_size"], document["order"], *arrays)


def counts_of_ngrams(ngrams: ArrayLike, counts: ArrayLike, vocab_size: int) -> NgramCounts:
    """Return the counts of integer n-grams [M, n], in any order, that occur `counts` [M] times each."""
    ngrams, counts = np.asarray(ngrams), np.asarray(counts)
    if not all(np.issubdtype(array.dtype, np.integer) for array in (ngrams, counts)):
        raise TypeError(f"n-grams and counts must be integers, got {ngrams.dtype} and {counts.dtype}")
    if ngrams.ndim != 2 or counts.shape != ngrams.shape[:1]:
        shapes = f"{list(ngrams.shape)} and {list(counts.shape)}"
        raise ValueError(f"n-grams must have shape [M, n] and counts [M], got {shapes}")
    check_at_least("order", ngrams.shape[1], 1)
    check_ids(ngrams.reshape(-1), vocab_size)
    if len(counts) and counts.min() < 1:
        raise ValueError(f"an n-gram's count must be at least 1, got {counts.min()}")
    keys = pack_ngrams(ngrams, vocab_size)
    return NgramCounts(vocab_size, ngrams.shape[1], *merge_runs([(keys, counts.astype(np.int64))]))


def pack_ngrams(ngrams: NDArray[Any], vocab_size: int) -> Keys:
    """Return the keys [W, M] of n-grams [M, n]."""
    vocab_size, order = int(vocab_size), ngrams.shape[1]
    size = _digits_per_word(vocab_size)
    keys = np.zeros((_num_words(order, vocab_size), len(ngrams)), np.uint64)
    for index, position in enumerate(_positions(order)):
        word = keys[-1 - (order - 1 - index) // size]
        word *= vocab_size
        word += ngrams[:, position].astype(np.uint64)
    return keys


def sort_and_count(keys: Keys) -> tuple[Keys, Counts]:
    """Return the distinct keys, sorted, and how often each occurs. May sort `keys` in place."""
    if len(keys) == 1:
        keys.sort()  # 5 times faster than with a permutation
    else:
        keys = keys[:, np.lexsort(keys[::-1])]
    firsts = find_runs(keys)
    return keys[:, firsts], np.diff(firsts, append=keys.shape[1])


def merge_runs(runs: Sequence[tuple[Keys, Counts]]) -> tuple[Keys, Counts]:
    """Return the distinct keys of all runs, sorted, and the sum of the counts of each."""
    keys, counts = (np.concatenate(arrays, axis=-1) for arrays in zip(*runs, strict=True))
    # NumPy's stable sort merges sorted runs: 11 ns a key for two of them, against 100 to 180 ns for any order.
    order = np.argsort(keys[0], kind="stable") if len(keys) == 1 else np.lexsort(keys[::-1])
    keys, counts = keys[:, order], counts[order]
    firsts = find_runs(keys)
    return keys[:, firsts], sum_runs(counts, firsts)


def context_keys(keys: Keys, vocab_size: int) -> Keys:
    """Return the keys without their last digit: of n-grams their contexts, of contexts the next shorter ones."""
    shifted = keys // vocab_size
    shifted[1:] += keys[:-1] % vocab_size * vocab_size ** (_digits_per_word(vocab_size) - 1)
    return shifted


def shorten_keys(keys: Keys, order: int, vocab_size: int) -> Keys:
    """Return the keys of n-grams of order n > 1 without their first token. They are not sorted."""
    shorter = context_keys(keys, vocab_size)
    shorter[-1] -= shorter[-1] % vocab_size
    shorter[-1] += keys[-1] % vocab_size
    return shorter[-_num_words(order - 1, vocab_size) :]


def find_runs(keys: Keys) -> NDArray[np.intp]:
    """Return the index of the first of each run of equal keys."""
    differs = np.ones(keys.shape[1], bool)
    differs[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    return np.flatnonzero(differs)


def sum_runs(values: NDArray[Any], firsts: NDArray[np.intp]) -> NDArray[Any]:
    """Return the sum of `values` over each run, given where the runs begin."""
    return np.add.reduceat(values, firsts) if len(firsts) else values  # reduceat rejects empty arrays


def _digits_per_word(vocab_size: int) -> int:
    digits = 2
    while max(vocab_size, 2) ** (digits + 1) <= 2**64:
        digits += 1
    return digits


def _num_words(order: int, vocab_size: int) -> int:
    return -(-order // _digits_per_word(vocab_size))


def _positions(order: int) -> list[int]:
    """Return the positions of an n-gram's tokens in the order of the digits of its key."""
    return [*range(order - 2, -1, -1), order - 1]
