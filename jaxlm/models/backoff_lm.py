"""The backoff model: a list of n-grams with probabilities, as in an ARPA file."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxlm._types import FloatBV, FloatW, IntW, Ngrams, TargetLogProbs, Variables
from jaxlm.models import backoff
from jaxlm.models.backoff import BackoffTrie, Level
from jaxlm.models.interface import check_contexts, check_sizes
from jaxlm.utils.checks import check_arrays, check_at_least, describe_arrays

LOG10_OF_ZERO = -99.0  # in ARPA files; such a probability, or a lower one, is 0
_MAX_CONTEXT_LENGTH = 9


class ListedNgrams(NamedTuple):
    """M different n-grams of one order, with the base-10 logarithms of their probabilities and backoffs."""

    ngrams: Ngrams
    log_probs: NDArray[np.float32]  # [M], at least -99, which means probability 0
    backoffs: NDArray[np.float32]  # [M]


@final
@dataclass(frozen=True)
class BackoffLM:
    """Look up n-grams: `P(w | h) = p(h, w)` if the n-gram is listed, else `backoff(h) P(w | h')`.

    h' is h without its first token. The backoff of a context that is not listed is 1. `read_arpa` returns such a
    model.

    Args:
        context_length: N, in [0, 9].

    Variables: `{"unigrams": float32 [V], "trie": {...}}`, where the trie has the fields of `BackoffTrie`.
    Unigrams, weights (of listed n-grams) and backoffs are base-10 logarithms.

    Source: Katz (1987), "Estimation of Probabilities from Sparse Data for the Language Model Component of a Speech
    Recognizer".

    >>> unigrams = ListedNgrams(np.array([[0], [1]]), np.log10([0.75, 0.25]), np.log10([0.4, 1.0]))
    >>> bigrams = ListedNgrams(np.array([[0, 0]]), np.log10([0.9]), np.zeros(1))
    >>> model, variables = BackoffLM.from_ngrams(2, [unigrams, bigrams])
    >>> print(np.exp(model.apply(variables, np.array([[0], [1]]))).round(2))  # 0.4 * 0.25 = 0.1
    [[0.9  0.1 ]
     [0.75 0.25]]
    """

    vocab_size: int
    context_length: int

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size")
        check_at_least("BackoffLM: context_length", self.context_length, 0)
        if self.context_length > _MAX_CONTEXT_LENGTH:
            limit = f"at most {_MAX_CONTEXT_LENGTH}, got {self.context_length}"
            raise ValueError(f"BackoffLM: context_length must be {limit}")

    @classmethod
    def from_ngrams(cls, vocab_size: int, orders: Sequence[ListedNgrams]) -> tuple["BackoffLM", Variables]:
        """Return a model and its variables, given the n-grams of orders 1, 2, ..., N + 1. Host function.

        A token that is not a listed unigram has probability 0.
        """
        model = cls(vocab_size, len(orders) - 1)
        unigrams = np.full(vocab_size, LOG10_OF_ZERO, np.float32)
        unigrams[orders[0].ngrams[:, 0]] = orders[0].log_probs
        trie = backoff.pack_levels(_build_levels(vocab_size, orders), vocab_size, no_backoff=0)
        return model, model.variables_of(unigrams, trie._asdict())

    def variables_of(self, unigrams: Any, trie: Mapping[str, Any]) -> Variables:
        """Return the variables on the device. Raise a ValueError or a TypeError if these arrays are not a trie."""
        arrays = {"unigrams": np.asarray(unigrams), **{name: np.asarray(array) for name, array in trie.items()}}
        num_contexts, num_entries = (arrays.get(name, unigrams).size for name in ("tokens", "next_tokens"))
        expected = {
            "unigrams": f"float32[{self.vocab_size}]",
            "children": f"int32[{num_contexts + 1}]",
            "tokens": f"int32[{num_contexts}]",
            "backoffs": f"float32[{num_contexts}]",
            "entries": f"int32[{num_contexts + 1}]",
            "next_tokens": f"int32[{num_entries}]",
            "weights": f"float32[{num_entries}]",
        }
        check_arrays("BackoffLM", describe_arrays(arrays), expected)
        for name, size in (("children", num_contexts), ("entries", num_entries)):
            bounds = arrays[name]
            if not size or (np.diff(bounds, prepend=0) < 0).any() or bounds[-2] != bounds[-1] or bounds[-1] > size:
                raise ValueError(f"BackoffLM: array {name!r} does not hold ranges")
        if arrays["backoffs"][-1] != 0:
            raise ValueError("BackoffLM: the last of 'backoffs', which stands for contexts not listed, is not 0")
        return jax.device_put({"unigrams": arrays.pop("unigrams"), "trie": arrays})

    def apply(self, variables: Variables, contexts: ArrayLike) -> FloatBV:
        """Return log-probabilities for contexts [B, N]."""
        contexts, trie = check_contexts(contexts, self.context_length), BackoffTrie(**variables["trie"])
        values = jnp.broadcast_to(variables["unigrams"], (contexts.shape[0], self.vocab_size))
        for context in backoff.find_contexts(trie, contexts):
            values = backoff.take(trie.backoffs, context)[:, None] + values
            values = backoff.update_entries(
                trie, context, values, lambda places, new: places.set(new, mode="drop")
            )
        return _to_nats(values)

    def target_log_probs(self, variables: Variables, contexts: ArrayLike) -> TargetLogProbs:
        """See `SupportsTargetLogProbs`. Only the targets are looked up."""
        contexts, trie = check_contexts(contexts, self.context_length), BackoffTrie(**variables["trie"])
        found = backoff.find_contexts(trie, contexts)
        last = trie.next_tokens.shape[0] - 1

        def log_probs(rows: IntW, targets: IntW) -> FloatW:
            values = variables["unigrams"].at[targets].get(mode="clip")
            for context in found:
                index = backoff.find_entries(trie, context[rows], targets)
                backed_off = backoff.take(trie.backoffs, context[rows]) + values
                values = jnp.where(index < last, backoff.take(trie.weights, index), backed_off)
            return _to_nats(values)

        return log_probs


def _to_nats(log10s: jax.Array) -> jax.Array:
    return jnp.where(log10s <= LOG10_OF_ZERO, -jnp.inf, log10s * math.log(10))


def _build_levels(vocab_size: int, orders: Sequence[ListedNgrams]) -> list[Level]:
    """Return the levels of a trie with a context for each longer n-gram, for each backoff, and for their ends."""
    needed = [np.zeros((0, 0), np.int32)]  # for each length, the contexts of n-grams, then those with a backoff
    for shorter, longer in itertools.pairwise(orders):
        needed.append(np.concatenate([longer.ngrams[:, :-1], shorter.ngrams[shorter.backoffs != 0]]))
    indices = [np.zeros(len(contexts), np.int64) for contexts in needed]  # in their level, of as much as is found
    one, none = np.ones(1, np.int32), np.zeros(0, np.int32)
    levels = [Level(one, one * 0, np.zeros(1, np.float32), one * 0, none, none.astype(np.float32))]  # the root
    num_parents = 1
    for length in range(1, len(orders)):
        keys = [
            index * vocab_size + contexts[:, size - length]
            for size, (index, contexts) in enumerate(zip(indices, needed, strict=True))
            if size >= length
        ]
        found, inverse = np.unique(np.concatenate(keys), return_inverse=True)
        indices[length:] = np.split(inverse.reshape(-1), np.cumsum([len(each) for each in keys])[:-1])
        longer, shorter = orders[length], orders[length - 1]
        places, backoff_places = np.split(indices[length], [len(longer.ngrams)])
        order = np.lexsort((longer.ngrams[:, -1], places))
        backoffs = np.zeros(len(found), np.float32)
        backoffs[backoff_places] = shorter.backoffs[shorter.backoffs != 0]
        level = Level(
            num_children=np.bincount(found // vocab_size, minlength=num_parents).astype(np.int32),
            tokens=(found % vocab_size).astype(np.int32),
            backoffs=backoffs,
            num_entries=np.bincount(places, minlength=len(found)).astype(np.int32),
            next_tokens=longer.ngrams[order, -1].astype(np.int32),
            weights=longer.log_probs[order].astype(np.float32),
        )
        levels.append(level)
        num_parents = len(found)
    return levels[::-1]
