"""Counts of n-grams of any order, smoothed as the field knows best: what a neural model has to beat."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import ArrayLike

from jaxlm.models.interface import check_contexts, check_sizes, num_contexts
from jaxlm.models.smoothing import (
    AddK,
    KneserNey,
    ModifiedKneserNey,
    Smoothing,
    WittenBell,
    discounts,
    uses_continuation_counts,
)
from jaxlm.text.batching import check_ids, check_stream
from jaxlm.utils.checks import check_at_least

_MAX_COUNT = np.iinfo(np.int32).max
_MAX_CONTEXT_LENGTH = 5

# Cells of a dense table: what "auto" makes one of, and what can be asked for. Each costs 8 bytes, a count and a
# log-probability.
_AUTO_CELLS = 2**22
_MAX_CELLS = 2**28

_Rows = np.ndarray[Any, np.dtype[np.int32]]  # n-grams [M, n], sorted, each once


@dataclass(frozen=True)
class CountsNgramLM:
    """Smoothed counts of n-grams, n = context_length + 1 from 1 to 6, over any vocabulary.

    Counted are all windows of n tokens; what a shorter n-gram counts follows from them, so that the table is the
    same for a text fitted whole and in pieces. On a text without marks of sentences it is what KenLM estimates.

    Its variables are, dense, `{"counts": {"table": int32 [V^N, V]}, "smoothed": {"log_probs": float32 [V^N, V]}}`;
    sparse, for what dense would be too large, `{"counts": {"ngrams": int32 [M, n], "counts": int32 [M]},
    "smoothed": ...}`: the n-grams in their order, and for each order the contexts, the tokens after each, their
    weights, and the contexts' backoffs. Both give the same probabilities.

    Args:
        table: "auto" is dense where the table has at most 4 million cells.

    Raises:
        ValueError: the order is not from 1 to 6; or a dense table is asked for that would not fit.
    """

    vocab_size: int
    context_length: int
    smoothing: Smoothing = field(default_factory=ModifiedKneserNey)
    table: Literal["auto", "dense", "sparse"] = "auto"

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size")
        check_at_least("CountsNgramLM: context_length", self.context_length, 0)
        if self.context_length > _MAX_CONTEXT_LENGTH:
            raise ValueError(
                f"CountsNgramLM: context_length must be at most {_MAX_CONTEXT_LENGTH}, got {self.context_length}"
            )
        if not isinstance(self.smoothing, Smoothing):
            raise TypeError(
                "CountsNgramLM: smoothing must be AddK(k), WittenBell(), KneserNey() or ModifiedKneserNey(), got "
                f"{self.smoothing!r}"
            )
        if self.table not in ("auto", "dense", "sparse"):
            raise ValueError(f"CountsNgramLM: table must be auto, dense or sparse, got {self.table!r}")
        if self.table == "dense" and self._num_cells > _MAX_CELLS:
            raise ValueError(
                f"CountsNgramLM: a dense table of V^{self.context_length + 1} = {self._num_cells:,} cells needs "
                f"{8 * self._num_cells:,} bytes; use table='sparse', which holds what was seen alone"
            )

    @property
    def is_dense(self) -> bool:
        """Whether the table has a cell for every n-gram, seen or not."""
        return self.table == "dense" or (self.table == "auto" and self._num_cells <= _AUTO_CELLS)

    @property
    def _num_cells(self) -> int:
        return num_contexts(self) * int(self.vocab_size)

    def init(self, key: Array, contexts: Array) -> Any:
        """The variables of an empty table."""
        return self._variables_of(np.zeros((0, self.context_length + 1), np.int32), np.zeros(0, np.int64))

    def fit(self, variables: Any, ids: ArrayLike) -> Any:
        """The variables with the n-grams of `ids` added: T ids make T - N of them.

        N-grams across two calls are not counted; to fit a stream in pieces, begin each piece with the last N ids
        of the one before. The pieces' order does not matter.

        Args:
            variables: as `init` or an earlier `fit` returned them; they stay as they are.
            ids: integers [T], T > N.

        Raises:
            TypeError: `ids` are not integers.
            ValueError: an id is out of range, there are too few of them, the variables are another model's, or a
                count could pass 2^31 - 1.
        """
        order = self.context_length + 1
        stream = np.asarray(check_stream(ids, self.vocab_size, min_length=order), np.int32)
        windows = np.lib.stride_tricks.sliding_window_view(stream, order)
        known, counts = self.ngrams_of(variables)
        ngrams, counts = _merged(
            np.concatenate([known, windows]), np.concatenate([counts, np.ones(len(windows), np.int64)])
        )
        return self._variables_of(ngrams, counts)

    def ngrams_of(self, variables: Any) -> tuple[_Rows, np.ndarray[Any, np.dtype[np.int64]]]:
        """What was counted: n-grams int32 [M, n], sorted, each once; and their counts int64 [M], above 0."""
        order, counts = self.context_length + 1, jax.device_get(variables["counts"])
        if ("table" in counts) != self.is_dense:
            raise ValueError("these variables are another model's: start from jaxlm.init(model, key)")
        if self.is_dense:
            table = counts["table"].reshape(-1)
            numbers = np.flatnonzero(table)
            digits = [numbers // self.vocab_size**place % self.vocab_size for place in range(order)]
            ngrams = np.stack(digits[::-1], axis=1).astype(np.int32)
            return ngrams, table[numbers].astype(np.int64)
        if counts["ngrams"].shape[1] != order:
            raise ValueError(
                f"the n-grams must be of shape [M, {order}], got {list(counts['ngrams'].shape)}: another model's"
            )
        is_real = counts["counts"] > 0
        return counts["ngrams"][is_real], counts["counts"][is_real].astype(np.int64)

    def variables_of(self, ngrams: ArrayLike, counts: ArrayLike) -> Any:
        """The variables that hold these counts, as `ngrams_of` gives them; n-grams in any order, once or more.

        Raises:
            TypeError: they are not integers.
            ValueError: their shapes do not fit, an id is out of range, or a count is not from 1 to 2^31 - 1.
        """
        ngrams, counts, order = np.asarray(ngrams), np.asarray(counts), self.context_length + 1
        if not all(np.issubdtype(array.dtype, np.integer) for array in (ngrams, counts)):
            raise TypeError(f"n-grams and counts must be integers, got {ngrams.dtype} and {counts.dtype}")
        if ngrams.shape != (len(ngrams), order) or counts.shape != ngrams.shape[:1]:
            raise ValueError(
                f"n-grams must be [M, {order}] and their counts [M], got {list(ngrams.shape)} and "
                f"{list(counts.shape)}"
            )
        check_ids(ngrams.reshape(-1), self.vocab_size)
        if len(counts) and counts.min() < 1:
            raise ValueError(f"an n-gram's count must be at least 1, got {counts.min()}")
        return self._variables_of(*_merged(ngrams.astype(np.int32), counts.astype(np.int64)))

    def apply(self, variables: Any, contexts: Array) -> Array:
        """Contexts [B, N] -> log-probabilities [B, V]."""
        contexts = check_contexts(contexts, self.context_length)
        smoothed = variables["smoothed"]
        if self.is_dense:
            return jnp.asarray(smoothed["log_probs"])[self._number_of(contexts)]
        probabilities = jnp.full((len(contexts), self.vocab_size), smoothed["base"])
        batch = jnp.arange(len(contexts))[:, None]
        for level in _levels(smoothed):
            place = self._find(level, contexts)
            entries = place.begins[:, None] + jnp.arange(len(level["slots"]))[None, :]  # [B, K]
            is_entry = entries < place.ends[:, None]
            tokens = jnp.where(is_entry, level["tokens"].at[entries].get(mode="clip"), self.vocab_size)
            weights = jnp.where(is_entry, level["weights"].at[entries].get(mode="clip"), 0)
            probabilities = place.backoffs[:, None] * probabilities
            probabilities = probabilities.at[batch, tokens].add(weights, mode="drop")
        return jnp.log(probabilities)

    def target_log_probs(self, variables: Any, contexts: Array) -> Callable[[Array, Array], Array]:
        """As `TargetScorer` has it: a search for the target in place of a row of V."""
        contexts = check_contexts(contexts, self.context_length)
        smoothed = variables["smoothed"]
        if self.is_dense:
            log_probs = jnp.asarray(smoothed["log_probs"])
            numbers = self._number_of(contexts)
            return lambda rows, targets: log_probs[numbers[rows], targets]
        places = [(level, self._find(level, contexts)) for level in _levels(smoothed)]

        def log_probs_of(rows: Array, targets: Array) -> Array:
            probability = jnp.full(targets.shape, smoothed["base"])
            for level, place in places:
                begins, ends = place.begins[rows], place.ends[rows]
                entry = _search(level["tokens"][:, None], targets[:, None], begins, ends)
                is_seen = (entry < ends) & (level["tokens"].at[entry].get(mode="clip") == targets)
                weight = jnp.where(is_seen, level["weights"].at[entry].get(mode="clip"), 0)
                probability = weight + place.backoffs[rows] * probability
            return jnp.log(probability)

        return log_probs_of

    def _number_of(self, contexts: Array) -> Array:
        """Contexts [B, N] as numbers in base V: the rows of a dense table."""
        number = jnp.zeros(len(contexts), jnp.int32)
        for position in range(self.context_length):
            number = number * self.vocab_size + contexts[:, position]
        return number

    def _find(self, level: Any, contexts: Array) -> "_Span":
        """Where a level has what follows the contexts' last tokens; nothing, and a backoff of 1, if it has not."""
        length = level["length"].shape[0]
        known, starts = level["contexts"], level["starts"]
        wanted = contexts[:, self.context_length - length :]
        if length == 0:
            rows = jnp.zeros(len(contexts), jnp.int32)
            is_known = jnp.broadcast_to(starts[1] > 0, rows.shape)
        else:
            limits = jnp.zeros(len(contexts), jnp.int32), jnp.full(len(contexts), len(known), jnp.int32)
            rows = _search(known, wanted, *limits)
            is_known = (known.at[rows].get(mode="clip") == wanted).all(axis=1)
        begins, ends = starts.at[rows].get(mode="clip"), starts.at[rows + 1].get(mode="clip")
        backoffs = level["backoffs"].at[rows].get(mode="clip")
        return _Span(begins, jnp.where(is_known, ends, begins), jnp.where(is_known, backoffs, 1))

    def _variables_of(self, ngrams: _Rows, counts: np.ndarray[Any, Any]) -> Any:
        if counts.max(initial=0) > _MAX_COUNT:
            raise ValueError(
                f"an n-gram's count is {counts.max()}, above the int32 limit {_MAX_COUNT}; fit fewer ids"
            )
        levels = list(_smoothed_levels(ngrams, counts, self.vocab_size, self.smoothing))[::-1]
        base = 0.0 if self.smoothing == AddK(0) else 1 / self.vocab_size
        if self.is_dense:
            table = np.zeros((num_contexts(self), self.vocab_size), np.int32)
            table[_numbers(ngrams[:, :-1], self.vocab_size), ngrams[:, -1]] = counts
            with np.errstate(divide="ignore"):
                log_probs = np.log(self.tabulate(levels, base)).astype(np.float32)
            return jax.device_put({"counts": {"table": table}, "smoothed": {"log_probs": log_probs}})
        size = _padded_size(len(ngrams))
        held = {"ngrams": _pad(ngrams, size, self.vocab_size), "counts": _pad(counts.astype(np.int32), size, 0)}
        smoothed = {f"order_{level.length + 1}": level.as_arrays(self.vocab_size) for level in levels}
        return jax.device_put({"counts": held, "smoothed": {"base": np.float32(base), **smoothed}})

    def tabulate(self, levels: list["_BackoffLevel"], base: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The probabilities [V^N, V] of a dense table."""
        table, length = np.full((1, self.vocab_size), base), 0
        for level in levels:
            # Rows of longer contexts: those of one suffix have its distribution.
            table = np.tile(table, (self.vocab_size ** (level.length - length), 1))
            length = level.length
            rows = _numbers(level.contexts, self.vocab_size)
            table[rows] *= level.backoffs[:, None]
            table[np.repeat(rows, np.diff(level.starts)), level.tokens] += level.weights
        return np.tile(table, (self.vocab_size ** (self.context_length - length), 1))


class _Span(NamedTuple):
    """Of each context [B]: its entries in a level, from `begins` to `ends`, and its backoff."""

    begins: Array
    ends: Array
    backoffs: Array


class _BackoffLevel(NamedTuple):
    """What follows the contexts of one length: `contexts[c]` has the entries `starts[c]` to `starts[c + 1]`."""

    contexts: _Rows  # [C, length], sorted
    starts: np.ndarray[Any, Any]  # [C + 1]
    backoffs: np.ndarray[Any, Any]  # [C]
    tokens: np.ndarray[Any, Any]  # [M], sorted within a context
    weights: np.ndarray[Any, Any]  # [M]

    @property
    def length(self) -> int:
        return self.contexts.shape[1]

    def as_arrays(self, vocab_size: int) -> dict[str, Any]:
        """For the device, padded so that texts of many lengths share one compilation; sizes are shapes too."""
        num_contexts, num_entries = _padded_size(len(self.contexts)), _padded_size(len(self.tokens))
        longest = int(np.diff(self.starts).max(initial=1))
        contexts = self.contexts if self.length else np.zeros((len(self.contexts), 1), np.int32)
        return {
            "contexts": _pad(contexts, num_contexts, vocab_size),
            "starts": _pad(self.starts.astype(np.int32), num_contexts + 1, len(self.tokens)),
            "backoffs": _pad(self.backoffs.astype(np.float32), num_contexts, 1),
            "tokens": _pad(self.tokens.astype(np.int32), num_entries, vocab_size),
            "weights": _pad(self.weights.astype(np.float32), num_entries, 0),
            "slots": np.zeros(min(1 << (longest - 1).bit_length(), vocab_size), np.int8),
            "length": np.zeros(self.length, np.int8),
        }


def _levels(smoothed: Any) -> list[Any]:
    return [smoothed[name] for name in sorted(smoothed) if name.startswith("order_")]


def _smoothed_levels(
    ngrams: _Rows, counts: np.ndarray[Any, Any], vocab_size: int, smoothing: Smoothing
) -> Iterator[_BackoffLevel]:
    """The levels from the longest context to none."""
    while True:
        level, order = _smoothed_level(ngrams, counts, vocab_size, smoothing), ngrams.shape[1]
        yield level
        if order == 1 or isinstance(smoothing, AddK):
            return
        ngrams, counts = _merged(
            ngrams[:, 1:], np.ones_like(counts) if uses_continuation_counts(smoothing) else counts
        )


def _smoothed_level(
    ngrams: _Rows, counts: np.ndarray[Any, Any], vocab_size: int, smoothing: Smoothing
) -> _BackoffLevel:
    contexts, tokens = ngrams[:, :-1], ngrams[:, -1]
    firsts = np.flatnonzero(_differs_from_before(contexts))
    starts = np.append(firsts, len(ngrams))
    types = np.diff(starts)
    if not len(ngrams):
        return _BackoffLevel(contexts, np.zeros(1, np.int64), np.zeros(0), tokens, np.zeros(0))
    totals = np.add.reduceat(counts, firsts).astype(np.float64)
    match smoothing:
        case AddK(k):
            scales, backoffs, taken = (
                totals + k * vocab_size,
                np.full(len(types), k * vocab_size),
                np.zeros(len(counts)),
            )
        case WittenBell():
            scales, backoffs, taken = totals + types, types.astype(np.float64), np.zeros(len(counts))
        case KneserNey() | ModifiedKneserNey():
            taken = np.array([0.0, *discounts(smoothing, counts, ngrams.shape[1])])[np.minimum(counts, 3)]
            scales, backoffs = totals, np.add.reduceat(taken, firsts)
    return _BackoffLevel(
        contexts[firsts], starts, backoffs / scales, tokens, (counts - taken) / np.repeat(scales, types)
    )


def _merged(ngrams: _Rows, counts: np.ndarray[Any, Any]) -> tuple[_Rows, np.ndarray[Any, Any]]:
    """The n-grams sorted, each once, with the sum of its counts."""
    order = np.lexsort(ngrams.T[::-1])
    ngrams, counts = ngrams[order], counts[order]
    firsts = np.flatnonzero(_differs_from_before(ngrams))
    return ngrams[firsts], np.add.reduceat(counts, firsts) if len(firsts) else counts


def _differs_from_before(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    differs = np.ones(len(rows), bool)
    differs[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return differs


def _numbers(rows: _Rows, vocab_size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    numbers = np.zeros(len(rows), np.int64)
    for position in range(rows.shape[1]):
        numbers = numbers * vocab_size + rows[:, position]
    return numbers


def _search(rows: Array, wanted: Array, begins: Array, ends: Array) -> Array:
    """Of sorted `rows` [R, k], between `begins` and `ends` [B], the first that is not below `wanted` [B, k]."""

    def halve(_: Array, limits: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = limits
        middle = (low + high) // 2
        found = rows.at[middle].get(mode="clip")
        is_below, is_equal = jnp.zeros(low.shape, bool), jnp.ones(low.shape, bool)
        for position in range(rows.shape[1]):
            is_below |= is_equal & (found[:, position] < wanted[:, position])
            is_equal &= found[:, position] == wanted[:, position]
        is_below &= low < high
        return jnp.where(is_below, middle + 1, low), jnp.where(is_below, high, middle)

    return lax.fori_loop(0, len(rows).bit_length(), halve, (begins, ends))[0]


def _padded_size(size: int) -> int:
    """At least 1, and by an eighth larger at most, so that many sizes share one compilation."""
    granule = 1 << max(size.bit_length() - 4, 0)
    return max(-(-size // granule) * granule, 1)


def _pad(array: np.ndarray[Any, Any], size: int, value: int) -> np.ndarray[Any, Any]:
    widths = [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)]
    return np.pad(array, widths, constant_values=value)
