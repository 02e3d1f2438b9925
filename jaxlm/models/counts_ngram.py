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
from jaxlm.models.count_ngrams import count_ngrams
from jaxlm.models.interface import check_contexts, check_sizes
from jaxlm.models.ngram_counts import NgramCounts, counts_of_ngrams, pack_ngrams
from jaxlm.models.smoothing import AddK, ModifiedKneserNey, Smoothing
from jaxlm.text.batching import pad_rows
from jaxlm.utils.checks import check_at_least, check_not_traced

_MAX_COUNT = np.iinfo(np.int32).max


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

    Variables: `{"counts": int32 [M], "unigrams": float32 [V], "trie": BackoffTrie}`. `counts` belong to the
    n-grams of order n in the trie; `unigrams` are the probabilities after the empty context. Arrays are padded.

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
        return self.variables_of(np.zeros((0, self.context_length + 1), np.int32), np.zeros(0, np.int32))

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
        counts = count_ngrams(ids, order, vocab_size=self.vocab_size)
        fitted = self.counts_of(variables)
        return self._make_variables(fitted + counts if len(fitted.counts) else counts)

    @classmethod
    def from_counts(
        cls, counts: NgramCounts, smoothing: Smoothing | float | None = None
    ) -> tuple["CountsNgramLM", Variables]:
        """Return a model and its variables, given counts from `count_ngrams`.

        Host function; not for use inside `jit`.

        Args:
            smoothing: a method, or a float k, which means `AddK(k)`; None means `ModifiedKneserNey()`.

        >>> import jaxlm
        >>> counts = jaxlm.count_ngrams([0, 1, 2, 0, 1], order=2)
        >>> model, variables = CountsNgramLM.from_counts(counts, smoothing=1.0)
        >>> print(np.exp(model.apply(variables, np.array([[0]]))).round(3))  # (2 + 1) / (2 + 3) for token 1
        [[0.2 0.6 0.2]]
        """
        model = cls(counts.vocab_size, counts.order - 1, ModifiedKneserNey() if smoothing is None else smoothing)
        return model, model._make_variables(counts)

    def counts_of(self, variables: Variables) -> NgramCounts:
        """Return the counts of the n-grams that the variables hold. Host function."""
        variables = jax.device_get(variables)
        ngrams, counts = backoff.ngrams_of(variables["trie"], self.context_length), variables["counts"]
        counts = counts[counts > 0].astype(np.int64)  # the others are padding
        if len(ngrams) != len(counts) or len(variables["unigrams"]) != self.vocab_size:
            raise ValueError(f"the variables of a CountsNgramLM belong to a different model than {self}")
        return NgramCounts(self.vocab_size, self.context_length + 1, pack_ngrams(ngrams, self.vocab_size), counts)

    def ngrams_of(self, variables: Variables) -> tuple[Ngrams, Counts]:
        """Return the distinct n-grams, int32 [M, n], and their counts, int64 [M], ordered as in `NgramCounts`."""
        counts = self.counts_of(variables)
        return counts.ngrams(), counts.counts

    def variables_of(self, ngrams: ArrayLike, counts: ArrayLike) -> Variables:
        """Return variables with integer n-grams [M, n], in any order, and counts [M] >= 1. Host function."""
        if np.shape(ngrams)[1:] != (self.context_length + 1,):
            got = f"{list(np.shape(ngrams))} and {list(np.shape(counts))}"
            raise ValueError(f"n-grams must have shape [M, {self.context_length + 1}] and counts [M], got {got}")
        return self._make_variables(counts_of_ngrams(ngrams, counts, self.vocab_size))

    def _make_variables(self, counts: NgramCounts) -> Variables:
        if counts.counts.max(initial=0) > _MAX_COUNT:
            largest = counts.counts.max()
            raise ValueError(f"an n-gram's count is {largest}, above the int32 limit {_MAX_COUNT}; fit fewer ids")
        trie, unigrams = backoff.build_trie(counts, cast(Smoothing, self.smoothing))
        padded = jax.device_put(pad_rows(counts.counts.astype(np.int32), 0))
        return {"counts": padded, "unigrams": unigrams, "trie": trie}

    def apply(self, variables: Variables, contexts: ArrayLike) -> FloatBV:
        """Return log-probabilities for contexts [B, N]."""
        contexts, trie = check_contexts(contexts, self.context_length), variables["trie"]
        probabilities = jnp.broadcast_to(variables["unigrams"], (contexts.shape[0], self.vocab_size))
        for context in backoff.find_contexts(trie, contexts):
            probabilities = backoff.interpolate(trie, context, probabilities)
        return jnp.log(probabilities)

    def target_log_probs(self, variables: Variables, contexts: ArrayLike) -> TargetLogProbs:
        """See `SupportsTargetLogProbs`. Only the targets are looked up."""
        contexts, trie = check_contexts(contexts, self.context_length), variables["trie"]
        found = backoff.find_contexts(trie, contexts)

        def log_probs(rows: IntW, targets: IntW) -> FloatW:
            probabilities = variables["unigrams"].at[targets].get(mode="clip")
            for context in found:
                probabilities = backoff.interpolate_targets(trie, context[rows], targets, probabilities)
            return jnp.log(probabilities)

        return log_probs
