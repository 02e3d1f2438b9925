"""A stream of token ids in one or more arrays, which may be memory maps of files larger than the memory."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from jaxlm.text.tokenizers import Tokenizer


@final
@dataclass(frozen=True, eq=False)
class TokenStream:
    """The concatenation of 1-D arrays of ids, such as memory maps. It lives on the host and is never copied whole.

    A slice with step 1 is another stream, and a view. An integer returns an id, and an array of integers of any
    shape returns a NumPy array of ids. `np.asarray(stream)` reads the whole stream into memory.

    Args:
        shards: at least one integer array [T_i], all of one dtype.
        vocab_size: V. The ids must be in [0, V); helpers check them only if a model has a smaller vocabulary.
        tokenizer: the one that encoded the text, if it is known.

    >>> stream = TokenStream((np.array([5, 3]), np.array([8, 2, 7])), vocab_size=9)
    >>> len(stream), stream[2], stream[[[0, 1], [3, 4]]].tolist(), np.asarray(stream[1:4]).tolist()
    (5, 8, [[5, 3], [2, 7]], [3, 8, 2])
    """

    shards: tuple[NDArray[Any], ...]
    vocab_size: int
    tokenizer: "Tokenizer | None" = None

    ndim = 1

    def __post_init__(self) -> None:
        kinds = {f"{shard.dtype}{'[T]' if shard.ndim == 1 else list(shard.shape)}" for shard in self.shards}
        if len(kinds) != 1 or not np.issubdtype(self.dtype, np.integer) or self.shards[0].ndim != 1:
            raise TypeError(
                f"shards must be integer arrays [T] of one dtype, got {', '.join(sorted(kinds)) or 'none'}"
            )

    @functools.cached_property
    def _bounds(self) -> list[tuple[int, int]]:
        """The position of each shard's first id, and the position after its last."""
        return [*itertools.pairwise(itertools.accumulate(map(len, self.shards), initial=0))]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the shards."""
        return self.shards[0].dtype

    @property
    def shape(self) -> tuple[int]:
        """The shape of the concatenated array: [T]."""
        return (len(self),)

    def __len__(self) -> int:
        return self._bounds[-1][1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self.shards[0] if len(self.shards) == 1 else np.concatenate(self.shards)
        return np.array(whole, dtype) if copy else np.asarray(whole, dtype)

    @overload
    def __getitem__(self, index: slice) -> "TokenStream": ...
    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: ArrayLike) -> NDArray[Any]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            begin, end, step = index.indices(len(self))
            if step != 1:
                raise ValueError(f"the step of a slice must be 1, got {step}; index with an array of positions")
            return replace(self, shards=self._cut(begin, end))
        positions = np.asarray(index)
        if not np.issubdtype(positions.dtype, np.integer):
            raise TypeError(f"a stream is indexed by integers or a slice, got {positions.dtype}")
        flat = positions.astype(np.int64).reshape(-1)
        for worst in (flat.min(), flat.max()) if flat.size else ():
            if not -len(self) <= worst < len(self):
                raise IndexError(f"position {worst} is outside a stream of {len(self)} tokens")
        ids = self._gather(np.where(flat < 0, flat + len(self), flat))
        return ids.reshape(positions.shape) if positions.ndim else int(ids[0])

    def segments(self, size: int, overlap: int = 0) -> Iterator[NDArray[Any]]:
        """Yield the stream as NumPy arrays of `size + overlap` ids, each starting `size` after the one before.

        Each window of `overlap + 1` ids is in exactly one segment. The last segment may be shorter.
        """
        for begin in range(0, len(self) - overlap, size):
            yield np.asarray(self[begin : begin + size + overlap])

    def _cut(self, begin: int, end: int) -> tuple[NDArray[Any], ...]:
        parts = (
            shard[max(begin - first, 0) : end - first]
            for shard, (first, stop) in zip(self.shards, self._bounds, strict=True)
            if max(begin, first) < min(end, stop)
        )
        return (*parts,) or (self.shards[0][:0],)

    def _gather(self, positions: NDArray[Any]) -> NDArray[Any]:
        """Return the ids at 1-D `positions` in [0, T)."""
        if len(self.shards) == 1:
            return self.shards[0][positions]
        ids = np.empty(len(positions), self.dtype)
        # 262,144 positions in 10 and 100 shards take 7 and 20 ms; with `searchsorted` and a sort, 18 and 23 ms.
        for shard, (first, stop) in zip(self.shards, self._bounds, strict=True):
            owned = np.flatnonzero((first <= positions) & (positions < stop))
            ids[owned] = shard[positions[owned] - first]
        return ids
