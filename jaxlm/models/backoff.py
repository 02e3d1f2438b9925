"""Smoothed n-grams as a trie of contexts, and how to look them up inside `jit`.

    P(w | h) = weight(h, w) + backoff(h) P(w | h')      with h' = h without its first token

Each node of the trie is a context, read backwards: the root is the empty context, and a child has one more token
in front. With a context, the trie holds all its ends, so one search among the children of a context finds the next
longer one. The weight of a token that does not follow h is 0; the backoff of a context not in the trie is 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from jaxlm._types import Counts, FloatBV, FloatW, IntB, IntBN, IntW, Ngrams
from jaxlm.models.ngram_counts import (
    Keys,
    NgramCounts,
    context_keys,
    find_runs,
    merge_runs,
    shorten_keys,
    sort_and_count,
    sum_runs,
)
from jaxlm.models.smoothing import AddK, Smoothing, WittenBell, estimate_discounts
from jaxlm.text.batching import pad_rows

_ENTRIES_PER_STEP = 64  # of `interpolate`


class BackoffTrie(NamedTuple):
    """C contexts by length, then by their tokens backwards, with M entries: the tokens that follow them.

    Arrays are padded. The last context is never real: it has no children and no entries, and its backoff is 1.
    """

    children: Any  # int32 [C + 1]; those of context c are the contexts in [children[c], children[c + 1])
    tokens: Any  # int32 [C], the first token of each context; ascending among siblings
    backoffs: Any  # float32 [C]
    entries: Any  # int32 [C + 1]; those of context c are in [entries[c], entries[c + 1])
    next_tokens: Any  # int32 [M], ascending within a context
    weights: Any  # float32 [M]


def build_trie(ngrams: NgramCounts, smoothing: Smoothing) -> BackoffTrie:
    """Return the smoothed n-grams as NumPy arrays. Each shorter order follows from the next longer one."""
    vocab_size, keys, counts = ngrams.vocab_size, ngrams.keys, ngrams.counts
    levels: list[BackoffTrie] = []  # of each length of context, with numbers of children and entries, not bounds
    for order in range(ngrams.order, 0, -1):
        contexts = context_keys(keys, vocab_size)
        firsts = find_runs(contexts)
        contexts, num_entries = contexts[:, firsts], np.diff(firsts, append=len(counts))
        if order == ngrams.order:
            num_children = np.zeros_like(firsts)
        if order < ngrams.order and isinstance(smoothing, AddK):
            weights, backoffs, next_tokens = np.zeros(0), np.ones(len(firsts)), np.zeros(0)
            num_entries = np.zeros_like(firsts)
        else:
            next_tokens = keys[-1] % vocab_size
            weights, backoffs = _smooth(counts, firsts, num_entries, vocab_size, order, smoothing)
        levels.append(
            BackoffTrie(
                children=num_children.astype(np.int32),
                tokens=(contexts[-1] % vocab_size).astype(np.int32),
                backoffs=backoffs.astype(np.float32),
                entries=num_entries.astype(np.int32),
                next_tokens=next_tokens.astype(np.int32),
                weights=weights.astype(np.float32),
            )
        )
        num_children = np.diff(find_runs(context_keys(contexts, vocab_size)), append=len(firsts))
        if order > 1:
            keys, counts = _shorten(keys, counts, order, vocab_size, smoothing)
    columns = (np.concatenate(parts) for parts in zip(*reversed(levels), strict=True))
    children, tokens, backoffs, entries, next_tokens, weights = columns
    return BackoffTrie(
        children=1 + _bounds(children),  # the root, context 0, is nobody's child
        tokens=_pad(tokens, vocab_size),
        backoffs=_pad(backoffs, 1),
        entries=_bounds(entries),
        next_tokens=_pad(next_tokens, vocab_size),
        weights=_pad(weights, 0),
    )


def _smooth(
    counts: Counts,
    firsts: NDArray[Any],
    num_types: NDArray[Any],
    vocab_size: int,
    order: int,
    smoothing: Smoothing,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the weights of n-grams and the backoffs of their contexts, which begin at `firsts`."""
    totals = sum_runs(counts, firsts).astype(np.float64)  # c(h)
    discounted = counts
    # Each method reserves a mass of every context for the shorter context.
    if isinstance(smoothing, AddK):
        mass = np.full(len(firsts), smoothing.k * vocab_size)
        totals += mass
    elif isinstance(smoothing, WittenBell):
        mass = num_types.astype(np.float64)  # t(h)
        totals += mass
    else:
        estimates = estimate_discounts(smoothing, counts, order)
        discounts = np.array([0.0, *estimates])[np.minimum(counts, 3)]
        mass = sum_runs(discounts, firsts)
        discounted = counts - discounts
    return discounted / np.repeat(totals, num_types), mass / totals


def _shorten(keys: Keys, counts: Counts, order: int, vocab_size: int, smoothing: Smoothing) -> tuple[Keys, Counts]:
    """Return the n-grams without their first token, and their counts."""
    shorter = shorten_keys(keys, order, vocab_size)
    if isinstance(smoothing, WittenBell):
        return merge_runs([(shorter, counts)])
    # Kneser-Ney counts the distinct tokens before a shorter n-gram, not its occurrences.
    return sort_and_count(shorter)


def _pad(array: NDArray[Any], value: int) -> NDArray[Any]:
    """Append at least one `value`, so that texts of similar length share a compiled program."""
    return pad_rows(np.append(array, array.dtype.type(value)), value)


def _bounds(sizes: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.append(np.int32(0), np.cumsum(_pad(sizes, 0), dtype=np.int32))


def ngrams_of(trie: BackoffTrie, context_length: int) -> Ngrams:
    """Return the n-grams of the highest order, int32 [M, N + 1], in the order of their keys. NumPy only."""
    begin, end = 0, 1
    rows = np.zeros((1, 0), np.int32)
    for _ in range(context_length):
        num_children = np.diff(trie.children[begin : end + 1])
        begin, end = int(trie.children[begin]), int(trie.children[end])
        rows = np.concatenate([trie.tokens[begin:end, None], np.repeat(rows, num_children, axis=0)], axis=1)
    first, last = int(trie.entries[begin]), int(trie.entries[end])
    rows = np.repeat(rows, np.diff(trie.entries[begin : end + 1]), axis=0)
    return np.concatenate([rows, trie.next_tokens[first:last, None]], axis=1)


@jax.named_scope("find_contexts")
def find_contexts(trie: BackoffTrie, contexts: IntBN) -> list[IntB]:
    """Return the indices in the trie of the last 1, 2, ..., N tokens of contexts [B, N]; the last if not found."""
    found, parents = [], jnp.zeros(len(contexts), jnp.int32)
    for position in range(contexts.shape[1] - 1, -1, -1):
        begins, ends = _at(trie.children, parents), _at(trie.children, parents + 1)
        parents = _search(trie.tokens, contexts[:, position], begins, ends)
        found.append(parents)
    return found


@jax.named_scope("interpolate")
def interpolate(trie: BackoffTrie, context: IntB, shorter: FloatBV) -> FloatBV:
    """Return the probabilities after contexts, given their indices [B] and those after the shorter contexts."""
    begins, ends = _at(trie.entries, context), _at(trie.entries, context + 1)
    rows = jnp.arange(len(context))[:, None]

    def add_entries(step: Any, probabilities: FloatBV) -> FloatBV:
        index = begins[:, None] + step * _ENTRIES_PER_STEP + jnp.arange(_ENTRIES_PER_STEP)[None, :]
        is_entry = index < ends[:, None]
        tokens = jnp.where(is_entry, _at(trie.next_tokens, index), shorter.shape[1])
        return probabilities.at[rows, tokens].add(_at(trie.weights, index), mode="drop")

    num_steps = -(-(ends - begins).max(initial=0) // _ENTRIES_PER_STEP)
    return lax.fori_loop(0, num_steps, add_entries, _at(trie.backoffs, context)[:, None] * shorter)


@jax.named_scope("interpolate")
def interpolate_targets(trie: BackoffTrie, context: IntW, targets: IntW, shorter: FloatW) -> FloatW:
    """Return the probabilities of `targets` only, given those after the shorter contexts."""
    begins, ends = _at(trie.entries, context), _at(trie.entries, context + 1)
    weights = _at(trie.weights, _search(trie.next_tokens, targets, begins, ends))
    return weights + _at(trie.backoffs, context) * shorter


def _search(tokens: Array, wanted: IntB, begins: IntB, ends: IntB) -> IntB:
    """Return where in [begins, ends), a range of ascending tokens, `wanted` is; or else the last index."""
    num_steps = (32 - lax.clz((ends - begins).max(initial=0))).astype(jnp.int32)

    def step(index: Any, low: IntB) -> IntB:
        middle = low + lax.shift_left(jnp.int32(1), num_steps - 1 - index)
        is_below = (middle <= ends) & (_at(tokens, middle - 1) < wanted)
        return jnp.where(is_below, middle, low)

    low = lax.fori_loop(0, num_steps, step, begins)
    return jnp.where((low < ends) & (_at(tokens, low) == wanted), low, len(tokens) - 1)


def _at(array: Array, index: Array) -> Array:
    return array.at[index].get(mode="clip")
