"""The n-gram model: counts of orders 1 to 6, smoothed by a method from `smoothing.py`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, cast, final

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxlm._types import Counts, FloatBV, FloatW, IntBN, IntW, KeyLike, Ngrams, TargetLogProbs, Variables
from jaxlm.models import backoff
from jaxlm.models.interface import check_contexts, check_sizes, num_contexts
from jaxlm.models.smoothing import AddK, ModifiedKneserNey, Smoothing
from jaxlm.text.batching import check_ids, check_stream, pad_rows
from jaxlm.utils.checks import check_at_least, check_not_traced

_MAX_COUNT = np.iinfo(np.int32).max
_FEW_NGRAMS = 2**22  # up to V^n = 2^22, `apply` scores a text up to 7 times faster than a search for each target


@final
@dataclass(frozen=True)
class CountsNgramLM:
    """Count n-grams of order n = N + 1, and smooth the counts.

    Counts of lower orders are derived from those of order n. So fitting a text in pieces gives the same result as
    fitting it at once. With modified Kneser-Ney smoothing, the model equals KenLM's for a text without sentence
    boundaries.

    Args:
        context_length: N, in [0, 5].
        smoothing: a method, or a float k, which means `AddK(k)`.

    Variables: `{"counts": {"ngrams": int32 [M, n], "counts": int32 [M]}, "smoothed": {"base": float32, "levels":
    tuple of BackoffLevel}}`. `ngrams` holds the observed n-grams, sorted.

    >>> import jaxlm
    >>> model = CountsNgramLM(vocab_size=4, context_length=2, smoothing=1.0)
    >>> variables = model.fit(jaxlm.init(model, jax.random.key(0)), [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 0, 1, 2])
    >>> print(np.exp(model.apply(variables, np.array([[0, 1]]))).round(3))  # (4 + 1) / (4 + 4) for token 2
    [[0.125 0.125 0.625 0.125]]
    """

    vocab_size: int
    context_length: int
    smoothing: Smoothing | float = field(default_factory=ModifiedKneserNey)

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size")
        check_at_least("CountsNgramLM: context_length", self.context_length, 0)
        if self.context_length > 5:
            raise ValueError(f"CountsNgramLM: context_length must be at most 5, got {self.context_length}")
        if isinstance(self.smoothing, Real):
            object.__setattr__(self, "smoothing", AddK(float(self.smoothing)))
        if not isinstance(self.smoothing, Smoothing):
            methods = "a float, AddK(k), WittenBell(), KneserNey() or ModifiedKneserNey()"
            raise TypeError(f"CountsNgramLM: smoothing must be {methods}, got {self.smoothing!r}")

    def map_hyperparams(self, function: Callable[[Any], Any]) -> "CountsNgramLM":
        """See `HasHyperparams`. The levels contain the smoothing: methods with as many levels share programs."""
        return replace(self, smoothing=ModifiedKneserNey())

    def init(self, key: KeyLike, contexts: IntBN) -> Variables:
        """Return the variables of an empty table."""
        return self._make_variables(np.zeros((0, self.context_length + 1), np.int32), np.zeros(0, np.int64))

    def fit(self, variables: Variables, ids: ArrayLike) -> Variables:
        """Return `variables` with the n-grams of `ids` added. Host function; not for use inside `jit`.

        T ids make T - N n-grams. To fit a stream in pieces, in any order, begin each piece with the last N ids of
        the one before.

        Args:
            variables: from `init` or an earlier `fit`; they stay valid.
            ids: integers [T], T > N. No count may exceed 2^31 - 1.

        Raises:
            ValueError: T <= N, an id is outside [0, V), a count exceeds 2^31 - 1, or the variables belong to
                a different model.
            TypeError: the ids are not integers, or the call is traced.
        """
        check_not_traced("fit", "variables that were fitted outside", variables, ids)
        order = self.context_length + 1
        stream = np.asarray(check_stream(ids, self.vocab_size, min_length=order), np.int32)
        windows = np.lib.stride_tricks.sliding_window_view(stream, order)
        ngrams, counts = self.ngrams_of(variables)
        counts = np.concatenate([counts, np.ones(len(windows), np.int64)])
        return self._make_variables(*backoff.merge_ngrams(np.concatenate([ngrams, windows]), counts))

    def ngrams_of(self, variables: Variables) -> tuple[Ngrams, Counts]:
        """Return the distinct n-grams, int32 [M, n], sorted, and their counts, int64 [M]. Host function."""
        order, counts = self.context_length + 1, jax.device_get(variables["counts"])
        ngrams, is_real = counts["ngrams"], counts["counts"] > 0  # the other rows are padding
        if ngrams.shape[1] != order:
            shape = list(ngrams.shape)
            raise ValueError(
                f"n-grams must have shape [M, {order}], got {shape}; they belong to a different model"
            )
        return ngrams[is_real], counts["counts"][is_real].astype(np.int64)

    def variables_of(self, ngrams: ArrayLike, counts: ArrayLike) -> Variables:
        """Return variables with integer n-grams [M, n], in any order, and counts [M] >= 1. Host function."""
        ngrams, counts, order = np.asarray(ngrams), np.asarray(counts), self.context_length + 1
        if not all(np.issubdtype(array.dtype, np.integer) for array in (ngrams, counts)):
            raise TypeError(f"n-grams and counts must be integers, got {ngrams.dtype} and {counts.dtype}")
        if ngrams.shape != (len(ngrams), order) or counts.shape != ngrams.shape[:1]:
            shapes = f"{list(ngrams.shape)} and {list(counts.shape)}"
            raise ValueError(f"n-grams must have shape [M, {order}] and counts [M], got {shapes}")
        check_ids(ngrams.reshape(-1), self.vocab_size)
        if len(counts) and counts.min() < 1:
            raise ValueError(f"an n-gram's count must be at least 1, got {counts.min()}")
        return self._make_variables(*backoff.merge_ngrams(ngrams.astype(np.int32), counts.astype(np.int64)))

    def _make_variables(self, ngrams: Ngrams, counts: Counts) -> Variables:
        if counts.max(initial=0) > _MAX_COUNT:
            largest = counts.max()
            raise ValueError(f"an n-gram's count is {largest}, above the int32 limit {_MAX_COUNT}; fit fewer ids")
        levels = backoff.build_levels(ngrams, counts, self.vocab_size, cast(Smoothing, self.smoothing))
        base = 0.0 if self.smoothing == AddK(0) else 1 / self.vocab_size
        stored = {"ngrams": pad_rows(ngrams, self.vocab_size), "counts": pad_rows(counts.astype(np.int32), 0)}
        padded = tuple(backoff.pad_level(level, self.vocab_size) for level in levels)
        return jax.device_put({"counts": stored, "smoothed": {"base": np.float32(base), "levels": padded}})

    def apply(self, variables: Variables, contexts: ArrayLike) -> FloatBV:
        """Return log-probabilities for contexts [B, N]."""
        contexts, smoothed = check_contexts(contexts, self.context_length), variables["smoothed"]
        probabilities = jnp.full((len(contexts), self.vocab_size), smoothed["base"])
        for level in smoothed["levels"]:
            entries = backoff.find_entries(level, contexts)
            probabilities = backoff.interpolate(level, entries, probabilities)
        return jnp.log(probabilities)

    def target_log_probs(self, variables: Variables, contexts: ArrayLike) -> TargetLogProbs:
        """See `SupportsTargetLogProbs`. If there are many n-grams, only the targets are looked up."""
        contexts, smoothed = check_contexts(contexts, self.context_length), variables["smoothed"]
        if num_contexts(self) * int(self.vocab_size) <= _FEW_NGRAMS:
            log_probs_of_all = self.apply(variables, contexts)
            return lambda rows, targets: log_probs_of_all[rows, targets]
        levels = [(level, backoff.find_entries(level, contexts)) for level in smoothed["levels"]]

        def log_probs(rows: IntW, targets: IntW) -> FloatW:
            probabilities = jnp.full(targets.shape, smoothed["base"])
            for level, entries in levels:
                own_entries = backoff.Entries(*(each[rows] for each in entries))
                probabilities = backoff.interpolate_targets(level, own_entries, targets, probabilities)
            return jnp.log(probabilities)

        return log_probs
