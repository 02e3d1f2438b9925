"""Merge and sum n-gram counts, stored as sorted rows. NumPy, on the host."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxlm._types import Counts, Ngrams


def merge_ngrams(ngrams: Ngrams, counts: Counts) -> tuple[Ngrams, Counts]:
    """Return the distinct n-grams, sorted, and the sum of the counts of each."""
    order = np.lexsort(ngrams.T[::-1])
    ngrams, counts = ngrams[order], counts[order]
    firsts = find_runs(ngrams)
    return ngrams[firsts], sum_runs(counts, firsts)


def find_runs(rows: Ngrams) -> NDArray[np.intp]:
    """Return the index of the first row of each run of equal rows."""
    differs = np.ones(len(rows), bool)
    differs[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return np.flatnonzero(differs)


def sum_runs(values: NDArray[Any], firsts: NDArray[np.intp]) -> NDArray[Any]:
    """Return the sum of `values` over each run, given where the runs begin."""
    return np.add.reduceat(values, firsts) if len(firsts) else values  # reduceat rejects empty arrays
