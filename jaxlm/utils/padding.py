"""Pad arrays, so that arrays of many lengths share a compiled program."""

from typing import Any

import numpy as np


def pad_rows(array: np.ndarray[Any, Any], value: int) -> np.ndarray[Any, Any]:
    """Append rows of `value`, at most an eighth of the length, and at least one row to an empty array."""
    granule = 1 << max(len(array).bit_length() - 4, 0)
    size = max(-(-len(array) // granule) * granule, 1)
    return np.pad(array, [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)], constant_values=value)
