"""How counts of n-grams become probabilities: what is taken from those that were seen, for those that were not.

Chen & Goodman (1999), "An Empirical Study of Smoothing Techniques for Language Modeling", describe all four. Each
interpolates with the distribution after the context without its first token, and at last with a uniform one:

    p(w | context) = weight(context, w) + backoff(context) * p(w | shorter context)
"""

import logging
import math
from dataclasses import dataclass

import numpy as np

Counts = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class AddK:
    """`(count + k) / (total + k * V)`: section 2.1. Shorter contexts play no part. k = 0 is maximum likelihood."""

    k: float = 1.0

    def __post_init__(self) -> None:
        _check_at_least(self, "k", self.k)


@dataclass(frozen=True)
class WittenBell:
    """`(count + types * p(w | shorter)) / (total + types)`, types of tokens that follow; section 2.4."""


@dataclass(frozen=True)
class KneserNey:
    """Absolute discounting, shorter contexts counting how many tokens came before, not how often: section 2.7.

    `discount` None is estimated for each order as n1 / (n1 + 2 n2), of the n-grams seen once and twice.
    """

    discount: float | None = None

    def __post_init__(self) -> None:
        if self.discount is not None:
            _check_at_least(self, "discount", self.discount)
            if self.discount > 1:
                raise ValueError(f"KneserNey: discount must lie in 0..1, got {self.discount}")


@dataclass(frozen=True)
class ModifiedKneserNey:
    """Kneser-Ney with a discount for n-grams seen once, one for twice, one for more: section 3.1, equation 26.

    Where the text is too small to estimate them, they are 0.5, 1 and 1.5, as KenLM has them (Heafield et al. 2013,
    "Scalable Modified Kneser-Ney Language Model Estimation").
    """


Smoothing = AddK | WittenBell | KneserNey | ModifiedKneserNey

_FALLBACK = {KneserNey: (0.5, 0.5, 0.5), ModifiedKneserNey: (0.5, 1.0, 1.5)}


def uses_continuation_counts(smoothing: Smoothing) -> bool:
    """Whether a shorter n-gram counts the distinct tokens before it, rather than how often it came."""
    return isinstance(smoothing, KneserNey | ModifiedKneserNey)


def discounts(smoothing: KneserNey | ModifiedKneserNey, counts: Counts, order: int) -> tuple[float, float, float]:
    """What is taken from a count of 1, of 2, and of more, among the n-grams of one order."""
    if isinstance(smoothing, KneserNey) and smoothing.discount is not None:
        return (smoothing.discount,) * 3
    # How many n-grams have a count of 1, 2, 3, 4.
    seen = [int(number) for number in np.bincount(counts[counts <= 4], minlength=5)[1:5]]
    needed = seen[:2] if isinstance(smoothing, KneserNey) else seen
    fallback = _FALLBACK[type(smoothing)]
    if not len(counts):  # of a table that is still empty
        return fallback
    if 0 in needed:
        _warn(smoothing, order, f"no n-gram has a count of {needed.index(0) + 1}", fallback)
        return fallback
    share = seen[0] / (seen[0] + 2 * seen[1])
    if isinstance(smoothing, KneserNey):
        return (share,) * 3
    first, second, third = (
        number - (number + 1) * share * seen[number] / seen[number - 1] for number in (1, 2, 3)
    )
    if not (0 <= first <= 1 and 0 <= second <= 2 and 0 <= third <= 3):
        _warn(smoothing, order, f"the estimates are {first:.2f}, {second:.2f}, {third:.2f}", fallback)
        return fallback
    return first, second, third


def _warn(smoothing: Smoothing, order: int, reason: str, fallback: tuple[float, float, float]) -> None:
    logging.getLogger(__name__).warning(
        "%s cannot estimate its discounts for order %d: %s; it takes %s",
        type(smoothing).__name__,
        order,
        reason,
        ", ".join(map(str, fallback)),
    )


def _check_at_least(smoothing: Smoothing, field: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{type(smoothing).__name__}: {field} must be finite and at least 0, got {value}")
