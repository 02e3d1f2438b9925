"""Counts of n-grams as sorted rows, on the host."""

from typing import Any

import numpy as np

Ngrams = np.ndarray[Any, np.dtype[np.int32]]  # [M, n]
Counts = np.ndarray[Any, np.dtype[np.int64]]  # [M]


def merge_ngrams(ngrams: Ngrams, counts: Counts) -> tuple[Ngrams, Counts]:
    """Return the distinct n-grams in sorted order, and the sum of the counts of each."""
    order = np.lexsort(ngrams.T[::-1])
    ngrams, counts = ngrams[order], counts[order]
    firsts = find_runs(ngrams)
    return ngrams[firsts], sum_runs(counts, firsts)


def find_runs(rows: Ngrams) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return the indices of the rows that differ from the row before."""
    differs = np.ones(len(rows), bool)
    differs[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return np.flatnonzero(differs)


def sum_runs(values: np.ndarray[Any, Any], firsts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the sum of `values` over each run that begins at `firsts`."""
    return np.add.reduceat(values, firsts) if len(firsts) else values  # reduceat rejects empty arrays


def rows_to_numbers(rows: Ngrams, vocab_size: int) -> Counts:
    """Return each row as a number in base V whose digits are the tokens."""
    numbers = np.zeros(len(rows), np.int64)
    for column in rows.T:
        numbers = numbers * vocab_size + column
    return numbers


def numbers_to_rows(numbers: Counts, vocab_size: int, length: int) -> Ngrams:
    """Invert `rows_to_numbers` for rows of `length` tokens."""
    digits = [numbers // vocab_size**place % vocab_size for place in reversed(range(length))]
    return np.stack(digits, axis=1).astype(np.int32)


def pad_rows(array: np.ndarray[Any, Any], value: int) -> np.ndarray[Any, Any]:
    """Append rows of `value`, an eighth more at most, so that many lengths share a compilation."""
    granule = 1 << max(len(array).bit_length() - 4, 0)
    size = max(-(-len(array) // granule) * granule, 1)
    return np.pad(array, [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)], constant_values=value)
