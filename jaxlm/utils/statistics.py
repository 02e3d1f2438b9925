"""Confidence intervals."""

import math
from collections.abc import Sequence

import numpy as np


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the half-width of its 95 % confidence interval by Student's t.

    The half-width is infinite for a single value or a value that is not finite.

    >>> mean_and_interval([1.0, 2.0, 3.0])
    (2.0, 2.484...)
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # a dependency of JAX; late for a fast --help

    with np.errstate(over="ignore"):  # a perplexity may be 1e300
        mean, num_values = float(np.mean(values)), len(values)
        if num_values < 2 or not math.isfinite(mean):
            return mean, math.inf
        return mean, float(stdtrit(num_values - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(num_values))
