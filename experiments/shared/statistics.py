"""Means with confidence intervals."""

import math
from collections.abc import Sequence

import numpy as np


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the half-width of its 95 % confidence interval by Student's t.

    The half-width is infinite for a single value.

    >>> mean_and_interval([1.0, 2.0, 3.0])
    (2.0, 2.484...)
    """
    from scipy import stats  # type: ignore[import-untyped]  # a dependency of JAX; imported late to keep --help fast

    mean, num_values = float(np.mean(values)), len(values)
    if num_values < 2:
        return mean, math.inf
    return mean, float(stats.t.ppf(0.975, num_values - 1) * np.std(values, ddof=1) / math.sqrt(num_values))
