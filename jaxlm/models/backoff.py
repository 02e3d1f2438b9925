"""Smoothed n-grams as a trie of contexts, and how to look them up inside `jit`.

    P(w | h) = weight(h, w) + backoff(h) P(w | h')      with h' = h without its first token

Each node of the trie is a context, read backwards: the root is the empty context, and a child has one more token
in front. With a context, the trie holds all its ends, so one search among the children of a context finds the next
longer one. The weight of a token that does not follow h is 0; the backoff of a context not in the trie is 1.
"""

import bisect
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from jaxlm._types import Counts, FloatBV, FloatW, IntB, IntBN, IntW, Ngrams
from jaxlm.models.count_ngrams import Run
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
from jaxlm.utils.workers import map_ahead

_ENTRIES_PER_STEP = 64  # of `interpolate`
_PIECE = 2**18  # n-grams; building the trie takes 20 MB in each thread
_NUM_THREADS = 4


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


class Level(NamedTuple):
    """Columns of the trie for some contexts of one length, with numbers of children and entries, not bounds."""

    num_children: NDArray[np.int32]  # of these contexts without their first token
    tokens: NDArray[np.int32]
    backoffs: NDArray[np.float32]
    num_entries: NDArray[np.int32]
    next_tokens: NDArray[np.int32]
    weights: NDArray[np.float32]


def build_trie(ngrams: NgramCounts, smoothing: Smoothing) -> tuple[BackoffTrie, Array]:
    """Return the trie of smoothed n-grams, and the probabilities after the empty context, float32 [V].

    Each shorter order follows from the next longer one, in pieces that fit the processor's cache.
    """
    vocab_size, keys, counts = ngrams.vocab_size, ngrams.keys, ngrams.counts
    levels: list[Level] = []  # from long to short contexts
    for order in range(ngrams.order, 0, -1):
        discounts = (
            () if isinstance(smoothing, AddK | WittenBell) else estimate_discounts(smoothing, counts, order)
        )
        is_used = order == ngrams.order or not isinstance(smoothing, AddK)  # add-k has no shorter contexts
        build = functools.partial(_build_level, order, vocab_size, smoothing if is_used else None, discounts)
        with ThreadPoolExecutor(_NUM_THREADS) as executor:  # NumPy releases the GIL
            pieces = map_ahead(executor, build, _split(keys, counts, vocab_size))
            *level, keys, counts = _concatenate(pieces, len(counts))
        levels.append(Level(*level))
    # Tokens without an entry at the root share its backoff equally.
    root = levels[-1]
    unigrams = np.full(vocab_size, 0 if smoothing == AddK(0) else 1 / vocab_size, np.float32)
    unigrams *= root.backoffs.prod()  # 1 without n-grams
    unigrams[root.next_tokens] += root.weights
    return pack_levels(levels, vocab_size, no_backoff=1), jax.device_put(unigrams)


def pack_levels(levels: list[Level], vocab_size: int, *, no_backoff: int) -> BackoffTrie:
    """Return the trie of levels, from long to short contexts. Empties the list, to free each column early."""
    num_leaves = len(levels[0].tokens)
    num_children, tokens, backoffs, num_entries, next_tokens, weights = (
        list(parts) for parts in zip(*reversed(levels), strict=True)
    )
    levels.clear()
    return BackoffTrie(
        children=_bounds([*num_children, np.zeros(num_leaves, np.int32)]),  # the root is nobody's child
        tokens=_join(tokens, vocab_size),
        backoffs=_join(backoffs, no_backoff),
        entries=_bounds([np.zeros(1, np.int32), *num_entries]),
        next_tokens=_join(next_tokens, vocab_size),
        weights=_join(weights, 0),
    )


def _split(keys: Keys, counts: Counts, vocab_size: int) -> list[Run]:
    """Cut n-grams into pieces of about `_PIECE`. N-grams that end in the same context of n - 2 stay together."""

    def shorter_context(index: int) -> list[int]:
        context = context_keys(keys[:, index : index + 1], vocab_size)
        return context_keys(context, vocab_size)[:, 0].tolist()

    num_ngrams = len(counts)
    bounds = [0]
    for middle in range(_PIECE, num_ngrams, _PIECE):
        first = bisect.bisect_left(range(num_ngrams), shorter_context(middle), key=shorter_context)
        if first > bounds[-1]:
            bounds.append(first)
    ranges = [slice(*each) for each in itertools.pairwise([*bounds, num_ngrams])]
    return [(keys[:, each], counts[each]) for each in ranges]


def _build_level(
    order: int,
    vocab_size: int,
    smoothing: Smoothing | None,
    discounts: Sequence[float],
    run: Run,
) -> tuple[NDArray[Any], ...]:
    """Return the columns of a `Level`, and the keys and counts of the next shorter n-grams.

    Args:
        smoothing: None omits the entries.
    """
    keys, counts = run
    contexts = context_keys(keys, vocab_size)
    firsts = find_runs(contexts)
    contexts, num_types = contexts[:, firsts], np.diff(firsts, append=len(counts))
    shorter_firsts = find_runs(context_keys(contexts, vocab_size))
    num_entries, next_tokens = num_types, keys[-1] % vocab_size
    if smoothing is None:
        num_entries, next_tokens = np.zeros_like(num_types), next_tokens[:0]
        weights, backoffs = np.zeros(0), np.ones(len(firsts))
    else:
        weights, backoffs = _smooth(counts, firsts, num_types, vocab_size, smoothing, discounts)
    level = Level(
        num_children=np.diff(shorter_firsts, append=len(firsts)).astype(np.int32),
        tokens=(contexts[-1] % vocab_size).astype(np.int32),
        backoffs=backoffs.astype(np.float32),
        num_entries=num_entries.astype(np.int32),
        next_tokens=next_tokens.astype(np.int32),
        weights=weights.astype(np.float32),
    )
    if order == 1:
        return *level, keys, counts
    shorter = shorten_keys(keys, order, vocab_size)
    # Kneser-Ney counts the distinct tokens before a shorter n-gram, not its occurrences.
    by_count = isinstance(smoothing, WittenBell)
    return *level, *(merge_runs([(shorter, counts)]) if by_count else sort_and_count(shorter))


def _smooth(
    counts: Counts,
    firsts: NDArray[Any],
    num_types: NDArray[Any],
    vocab_size: int,
    smoothing: Smoothing,
    discounts: Sequence[float],
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
        subtracted = np.array([0.0, *discounts])[np.minimum(counts, 3)]
        mass = sum_runs(subtracted, firsts)
        discounted = counts - subtracted
    return discounted / np.repeat(totals, num_types), mass / totals


def _concatenate(pieces: Iterable[tuple[NDArray[Any], ...]], max_size: int) -> list[NDArray[Any]]:
    """Concatenate each column of the pieces, along the last axis, while they are computed.

    A list of pieces for `np.concatenate` would take twice the memory.
    """
    columns: list[NDArray[Any]] = []
    sizes: list[int] = []
    for piece in pieces:
        columns = columns or [np.empty((*part.shape[:-1], max_size), part.dtype) for part in piece]
        sizes = sizes or [0] * len(columns)
        for index, part in enumerate(piece):
            begin, sizes[index] = sizes[index], sizes[index] + part.shape[-1]
            columns[index][..., begin : sizes[index]] = part
    return [column[..., :size] for column, size in zip(columns, sizes, strict=True)]


def _join(parts: list[NDArray[Any]], value: int) -> Array:
    """Append at least one `value`, so that texts of similar length share a compiled program. Empties `parts`."""
    column = np.concatenate([*parts, np.array([value], parts[0].dtype)])
    parts.clear()
    return jax.device_put(pad_rows(column, value))


def _bounds(sizes: list[NDArray[np.int32]]) -> Array:
    """Return the cumulative sums of sizes and padding."""
    bounds = np.cumsum(pad_rows(np.concatenate(sizes), 0), dtype=np.int32)
    return jax.device_put(np.append(bounds, bounds[-1]))


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
    found, parents = [], jnp.zeros(contexts.shape[0], jnp.int32)
    for position in range(contexts.shape[1] - 1, -1, -1):
        begins, ends = take(trie.children, parents), take(trie.children, parents + 1)
        parents = _search(trie.tokens, contexts[:, position], begins, ends)
        found.append(parents)
    return found


@jax.named_scope("interpolate")
def interpolate(trie: BackoffTrie, context: IntB, shorter: FloatBV) -> FloatBV:
    """Return the probabilities after contexts, given their indices [B] and those after the shorter contexts."""
    shares = take(trie.backoffs, context)[:, None] * shorter
    return update_entries(trie, context, shares, lambda places, weights: places.add(weights, mode="drop"))


def update_entries(trie: BackoffTrie, context: IntB, values: FloatBV, update: Callable[..., FloatBV]) -> FloatBV:
    """Return `values` [B, V] updated at the tokens that follow contexts, given their indices [B].

    `update` gets `values.at[rows, tokens]` and the weights of these entries. Tokens of V or more are padding.
    """
    begins, ends = take(trie.entries, context), take(trie.entries, context + 1)
    rows = jnp.arange(context.shape[0])[:, None]

    def update_block(step: Any, values: FloatBV) -> FloatBV:
        index = begins[:, None] + step * _ENTRIES_PER_STEP + jnp.arange(_ENTRIES_PER_STEP)[None, :]
        is_entry = index < ends[:, None]
        tokens = jnp.where(is_entry, take(trie.next_tokens, index), values.shape[1])
        return update(values.at[rows, tokens], take(trie.weights, index))

    num_steps = -(-(ends - begins).max(initial=0) // _ENTRIES_PER_STEP)
    return lax.fori_loop(0, num_steps, update_block, values)


@jax.named_scope("interpolate")
def interpolate_targets(trie: BackoffTrie, context: IntW, targets: IntW, shorter: FloatW) -> FloatW:
    """Return the probabilities of `targets` only, given those after the shorter contexts."""
    weights = take(trie.weights, find_entries(trie, context, targets))
    return weights + take(trie.backoffs, context) * shorter


def find_entries(trie: BackoffTrie, context: IntW, targets: IntW) -> IntW:
    """Return the indices in the trie of the entries of `targets` after contexts; the last if not found."""
    begins, ends = take(trie.entries, context), take(trie.entries, context + 1)
    return _search(trie.next_tokens, targets, begins, ends)


def _search(tokens: Array, wanted: IntB, begins: IntB, ends: IntB) -> IntB:
    """Return where in [begins, ends), a range of ascending tokens, `wanted` is; or else the last index."""
    # The number of bits of the longest range. `lax.clz` would say it, but jax-metal refuses it (jax-ml/jax#21389).
    num_steps = ((ends - begins).max(initial=0) >= 1 << jnp.arange(31)).sum(dtype=jnp.int32)

    def step(index: Any, low: IntB) -> IntB:
        middle = low + lax.shift_left(jnp.int32(1), num_steps - 1 - index)
        is_below = (middle <= ends) & (take(tokens, middle - 1) < wanted)
        return jnp.where(is_below, middle, low)

    low = lax.fori_loop(0, num_steps, step, begins)
    return jnp.where((low < ends) & (take(tokens, low) == wanted), low, len(tokens) - 1)


def take(array: Array, index: Array) -> Array:
    """Return elements at indices that are in range."""
    return array.at[index].get(mode="clip")
