"""Smoothing methods, which turn n-gram counts into probabilities.

All methods but add-k interpolate with the distribution after the shorter context h', which is h without its first
token. The empty context interpolates with the uniform distribution 1 / V. In the formulas

    c(h, w)  is the count of token w after context h, and c(h) the sum of c(h, w) over w,
    t(h)     is the number of distinct tokens seen after h,
    n_r      is the number of n-grams of one order with count r,
    V        is the vocabulary size.

Source: Chen & Goodman (1998), "An Empirical Study of Smoothing Techniques for Language Modeling", report TR-10-98
(published in 1999 in Computer Speech & Language). Section and equation numbers are the report's.
"""

import functools
import logging
from dataclasses import dataclass

import numpy as np

from jaxlm._types import Counts
from jaxlm.utils.checks import check_number

# In float32, a smaller k would round to 0, and a sum of V larger values could overflow.
MIN_K, _MAX_K = 1e-30, 1e30


def check_k(name: str, k: float) -> float:
    """Return `k`, the number added to each count, as a float. Raise an error unless it is in its range."""
    if not (check_number(name, k) == 0 or MIN_K <= k <= _MAX_K):
        raise ValueError(f"{name} must be 0 or in [1e-30, 1e30], got {k}")
    return float(k)


@dataclass(frozen=True)
class AddK:
    """`P(w | h) = (c(h, w) + k) / (c(h) + k V)`, without shorter contexts.

    k is 0, which is maximum likelihood, or in [1e-30, 1e30].

    Source: Lidstone (1920); section 2.1.

    >>> import jax, jaxlm
    >>> model = jaxlm.CountsNgramLM(vocab_size=4, context_length=0, smoothing=AddK(1.0))
    >>> variables = model.fit(jaxlm.init(model, jax.random.key(0)), [0, 0, 0, 1])
    >>> print(np.exp(model.apply(variables, np.zeros((1, 0), np.int32))).round(4))  # (3 + 1) / (4 + 4)
    [[0.5   0.25  0.125 0.125]]
    """

    k: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", check_k("AddK: k", self.k))


@dataclass(frozen=True)
class WittenBell:
    """`P(w | h) = (c(h, w) + t(h) P(w | h')) / (c(h) + t(h))`.

    Source: Witten & Bell (1991), method C; section 2.5.

    >>> import jax, jaxlm
    >>> model = jaxlm.CountsNgramLM(vocab_size=4, context_length=0, smoothing=WittenBell())
    >>> variables = model.fit(jaxlm.init(model, jax.random.key(0)), [0, 0, 0, 1])
    >>> print(np.exp(model.apply(variables, np.zeros((1, 0), np.int32))).round(4))  # (3 + 2 / 4) / (4 + 2)
    [[0.5833 0.25   0.0833 0.0833]]
    """


@dataclass(frozen=True)
class KneserNey:
    """`P(w | h) = (max(c(h, w) - D, 0) + D t(h) P(w | h')) / c(h)`, with continuation counts in shorter contexts.

    The continuation count of an n-gram is the number of distinct tokens that precede it. D is `discount`, in
    [0, 1]; None estimates it for each order as n_1 / (n_1 + 2 n_2), or as 0.5, with a warning, if n_1 or n_2 is 0.

    Source: Kneser & Ney (1995); section 2.7. Estimate: Ney, Essen & Kneser (1994); section 2.6.

    >>> import jax, jaxlm
    >>> model = jaxlm.CountsNgramLM(vocab_size=4, context_length=0, smoothing=KneserNey(discount=0.5))
    >>> variables = model.fit(jaxlm.init(model, jax.random.key(0)), [0, 0, 0, 1])
    >>> print(np.exp(model.apply(variables, np.zeros((1, 0), np.int32))).round(4))  # (3 - 0.5 + 0.5 * 2 / 4) / 4
    [[0.6875 0.1875 0.0625 0.0625]]
    """

    discount: float | None = None

    def __post_init__(self) -> None:
        if self.discount is not None and not 0 <= check_number("KneserNey: discount", self.discount) <= 1:
            raise ValueError(f"KneserNey: discount must be in [0, 1], got {self.discount}")


@dataclass(frozen=True)
class ModifiedKneserNey:
    """Kneser-Ney with the discounts D_1, D_2 and D_3 for counts of 1, of 2, and of 3 or more.

    For each order `D_r = r - (r + 1) Y n_(r+1) / n_r` with `Y = n_1 / (n_1 + 2 n_2)`. If an n_r is 0 or a D_r is
    outside [0, r], a warning is logged and the discounts are 0.5, 1 and 1.5, as in KenLM (Heafield et al. 2013).

    Source: section 3, equation 26.

    >>> import jax, jaxlm
    >>> model = jaxlm.CountsNgramLM(vocab_size=8, context_length=0, smoothing=ModifiedKneserNey())
    >>> ids = [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 7]  # n_1 = 4, n_2 = 2, n_3 = n_4 = 1
    >>> variables = model.fit(jaxlm.init(model, jax.random.key(0)), ids)
    >>> print(np.exp(model.apply(variables, np.zeros((1, 0), np.int32))).round(4))
    [[0.0875 0.0875 0.0875 0.0875 0.1042 0.1042 0.1875 0.2542]]
    """


Smoothing = AddK | WittenBell | KneserNey | ModifiedKneserNey


def estimate_discounts(smoothing: KneserNey | ModifiedKneserNey, counts: Counts, order: int) -> tuple[float, ...]:
    """Return the discounts for counts of 1, 2, and 3 or more, given the counts of all n-grams of one order."""
    if isinstance(smoothing, KneserNey) and smoothing.discount is not None:
        return (smoothing.discount,) * 3
    is_modified = isinstance(smoothing, ModifiedKneserNey)
    fallback = (0.5, 1.0, 1.5) if is_modified else (0.5, 0.5, 0.5)
    if not len(counts):
        return fallback
    n = np.bincount(counts[counts <= 4], minlength=5).tolist()
    if all(n[1:] if is_modified else n[1:3]):
        y = n[1] / (n[1] + 2 * n[2])
        discounts = tuple(r - (r + 1) * y * n[r + 1] / n[r] for r in (1, 2, 3)) if is_modified else (y,) * 3
        if all(0 <= discount <= r for r, discount in enumerate(discounts, 1)):
            return discounts
    problem = f"{type(smoothing).__name__} cannot estimate discounts for order {order}"
    _log_once(f"{problem}: the text is too small or too regular; using {', '.join(map(str, fallback))}")
    return fallback


@functools.lru_cache(maxsize=128)  # each order once, because a fit in pieces estimates after each piece
def _log_once(problem: str) -> None:
    logging.getLogger(__name__).warning("%s", problem)
