"""Build smoothed n-grams as backoff levels, one for each context length, and look them up.

    P(w | h) = weight(h, w) + backoff(h) P(w | h')      with h' = h without its first token

A level holds the contexts of one length that occur in the text, with an entry for each token seen after them. The
weight of a token without an entry is 0; the backoff of a context that is not in the level is 1.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from jaxlm._types import Counts, FloatB, FloatBV, FloatW, IntB, IntBN, IntW, Ngrams
from jaxlm.models.smoothing import AddK, Smoothing, WittenBell, estimate_discounts
from jaxlm.text.batching import pad_rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class BackoffLevel:
    """The contexts of one length. Context c has the entries in [starts[c], starts[c + 1])."""

    length: int = field(metadata={"static": True})
    max_entries: int = field(metadata={"static": True})  # at least the number of entries of any context
    contexts: Any  # int32 [C, length], sorted
    starts: Any  # int32 [C + 1]
    backoffs: Any  # [C]
    tokens: Any  # int32 [M], sorted within a context
    weights: Any  # [M]


class Entries(NamedTuple):
    """For each context [B], the range of its entries in a level, and its backoff."""

    begins: IntB
    ends: IntB
    backoffs: FloatB


def merge_ngrams(ngrams: Ngrams, counts: Counts) -> tuple[Ngrams, Counts]:
    """Return the distinct n-grams [M, n], sorted, and the sum of the counts of each."""
    order = np.lexsort(ngrams.T[::-1])
    ngrams, counts = ngrams[order], counts[order]
    firsts = _find_runs(ngrams)
    return ngrams[firsts], _sum_runs(counts, firsts)


def build_levels(ngrams: Ngrams, counts: Counts, vocab_size: int, smoothing: Smoothing) -> list[BackoffLevel]:
    """Return the levels of sorted n-grams [M, n] with counts [M], the shortest context first, in float64."""
    levels = [_build_level(ngrams, counts, vocab_size, smoothing)]
    while ngrams.shape[1] > 1 and not isinstance(smoothing, AddK):
        # Kneser-Ney counts the distinct tokens before a shorter n-gram, not its occurrences.
        counts = counts if isinstance(smoothing, WittenBell) else np.ones_like(counts)
        ngrams, counts = merge_ngrams(ngrams[:, 1:], counts)
        levels.append(_build_level(ngrams, counts, vocab_size, smoothing))
    return levels[::-1]


def _build_level(ngrams: Ngrams, counts: Counts, vocab_size: int, smoothing: Smoothing) -> BackoffLevel:
    firsts = _find_runs(ngrams[:, :-1])
    starts = np.append(firsts, len(ngrams))
    num_types = np.diff(starts)  # t(h)
    totals = _sum_runs(counts, firsts).astype(np.float64)  # c(h)
    discounts = np.zeros(len(counts))
    # Each method reserves a mass of every context for the shorter context.
    if isinstance(smoothing, AddK):
        mass = np.full(len(firsts), smoothing.k * vocab_size)
        totals += mass
    elif isinstance(smoothing, WittenBell):
        mass = num_types.astype(np.float64)
        totals += mass
    else:
        estimates = estimate_discounts(smoothing, counts, ngrams.shape[1])
        discounts = np.array([0.0, *estimates])[np.minimum(counts, 3)]
        mass = _sum_runs(discounts, firsts)
    return BackoffLevel(
        length=ngrams.shape[1] - 1,
        max_entries=int(num_types.max(initial=1)),
        contexts=ngrams[firsts, :-1],
        starts=starts,
        backoffs=mass / totals,
        tokens=ngrams[:, -1],
        weights=(counts - discounts) / np.repeat(totals, num_types),
    )


def _find_runs(rows: Ngrams) -> NDArray[np.intp]:
    """Return the index of the first row of each run of equal rows."""
    differs = np.ones(len(rows), bool)
    differs[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return np.flatnonzero(differs)


def _sum_runs(values: NDArray[Any], firsts: NDArray[np.intp]) -> NDArray[Any]:
    """Return the sum of `values` over each run, given where the runs begin."""
    return np.add.reduceat(values, firsts) if len(firsts) else values  # reduceat rejects empty arrays


def pad_level(level: BackoffLevel, vocab_size: int) -> BackoffLevel:
    """Convert a level to float32 and pad it, so that texts of similar length share a compiled program."""
    contexts = pad_rows(level.contexts, vocab_size)
    return BackoffLevel(
        length=level.length,
        max_entries=min(1 << (level.max_entries - 1).bit_length(), vocab_size),
        contexts=contexts,
        starts=np.pad(level.starts.astype(np.int32), (0, len(contexts) - len(level.contexts)), mode="edge"),
        backoffs=pad_rows(level.backoffs.astype(np.float32), 1),
        tokens=pad_rows(level.tokens, vocab_size),
        weights=pad_rows(level.weights.astype(np.float32), 0),
    )


@jax.named_scope("find_entries")
def find_entries(level: BackoffLevel, contexts: IntBN) -> Entries:
    """Look up the last `level.length` tokens of each of `contexts`."""
    rows, is_known = jnp.zeros(len(contexts), jnp.int32), jnp.ones(len(contexts), bool)
    if level.length:
        wanted = contexts[:, -level.length :]
        rows = _search(level.contexts, wanted, rows, jnp.full_like(rows, len(level.contexts)))
        is_known = (level.contexts.at[rows].get(mode="clip") == wanted).all(axis=1)
    begins, ends = level.starts.at[rows].get(mode="clip"), level.starts.at[rows + 1].get(mode="clip")
    backoffs = level.backoffs.at[rows].get(mode="clip")
    return Entries(begins, jnp.where(is_known, ends, begins), jnp.where(is_known, backoffs, 1))


@jax.named_scope("interpolate")
def interpolate(level: BackoffLevel, entries: Entries, shorter: FloatBV) -> FloatBV:
    """Return the probabilities after contexts with `entries`, given those after the shorter ones."""
    index = entries.begins[:, None] + jnp.arange(level.max_entries)[None, :]  # [B, max_entries]
    is_entry = index < entries.ends[:, None]
    tokens = jnp.where(is_entry, level.tokens.at[index].get(mode="clip"), shorter.shape[1])
    weights = jnp.where(is_entry, level.weights.at[index].get(mode="clip"), 0)
    scaled = entries.backoffs[:, None] * shorter
    return scaled.at[jnp.arange(len(scaled))[:, None], tokens].add(weights, mode="drop")


@jax.named_scope("interpolate")
def interpolate_targets(level: BackoffLevel, entries: Entries, targets: IntW, shorter: FloatW) -> FloatW:
    """Return the probabilities of `targets` only, given those after the shorter contexts."""
    index = _search(level.tokens[:, None], targets[:, None], entries.begins, entries.ends)
    is_seen = (index < entries.ends) & (level.tokens.at[index].get(mode="clip") == targets)
    weights = jnp.where(is_seen, level.weights.at[index].get(mode="clip"), 0)
    return weights + entries.backoffs * shorter


def _search(rows: Array, wanted: Array, begins: IntB, ends: IntB) -> IntB:
    """Return the first i in [begins, ends) with `rows[i] >= wanted` [B, k], or `ends`; `rows` [R, k] is sorted."""

    def halve(_: Any, bounds: tuple[IntB, IntB]) -> tuple[IntB, IntB]:
        low, high = bounds
        middle = (low + high) // 2
        found = rows.at[middle].get(mode="clip")
        is_below, is_equal = jnp.zeros(low.shape, bool), jnp.ones(low.shape, bool)
        for position in range(rows.shape[1]):
            is_below |= is_equal & (found[:, position] < wanted[:, position])
            is_equal &= found[:, position] == wanted[:, position]
        is_below &= low < high
        return jnp.where(is_below, middle + 1, low), jnp.where(is_below, high, middle)

    return lax.fori_loop(0, len(rows).bit_length(), halve, (begins, ends))[0]
