"""Check token ids, split a stream of them, and draw random batches of windows."""

import functools
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from jaxlm._types import IntB, IntBN, Integers, IntScalar, IntT, KeyLike
from jaxlm.text.token_stream import TokenStream
from jaxlm.utils.checks import check_at_least, check_not_traced, check_number
from jaxlm.utils.keys import check_key


class Batch(NamedTuple):
    """Windows of a stream: B contexts, and the token that follows each.

    >>> batch = windows([5, 3, 8, 2], context_length=2)
    >>> batch.contexts.tolist(), batch.targets.tolist()
    ([[5, 3], [3, 8]], [8, 2])
    """

    contexts: IntBN
    targets: IntB


class Split(NamedTuple):
    """The two parts of a stream.

    >>> split_ids(np.arange(4), val_fraction=0.25)
    Split(train_ids=array([0, 1, 2]), val_ids=array([3]))
    """

    train_ids: Any  # same array type as the stream
    val_ids: Any  # same array type as the stream


def check_ids(ids: ArrayLike, vocab_size: int, *, name: str = "ids") -> Integers:
    """Check that `ids` are integers in [0, vocab_size), and return them as int32 of the same shape.

    JAX does not check: a scatter drops an index out of range and a gather clamps it. A JAX array stays on its
    device; everything else becomes a NumPy array. Host function; not for use inside `jit`.

    Args:
        ids: integers of any shape.
        vocab_size: V, the limit. Ids must also be below 2^31.
        name: what errors call the ids.

    Raises:
        ValueError: an id is outside [0, V).
        TypeError: `ids` are not integers, or are traced by `jit`.

    >>> check_ids([0, 2, 1], vocab_size=3)
    array([0, 2, 1], dtype=int32)
    """
    check_not_traced("check_ids", "ids that were checked before", ids)
    array = as_integers(ids, name)
    array = np.asarray(array) if isinstance(array, TokenStream) else array
    _check_range([array], min(vocab_size, 2**31), name)  # the result is int32
    return array if array.dtype == np.int32 else array.astype(np.int32)


def check_stream(ids: ArrayLike, vocab_size: int, *, min_length: int, name: str = "ids") -> TokenStream:
    """Check that `ids` are integers [T] in [0, vocab_size), with T >= `min_length`. Return a view on the host.

    Every helper that takes a stream calls this once. The ids of a `TokenStream` are read only if its vocabulary is
    larger. The errors are those of `check_ids`. Host function; not for use inside `jit`.
    """
    check_not_traced("check_stream", "ids that were checked before", ids)
    array = as_integers(ids, name, min_length)
    stream = array if isinstance(array, TokenStream) else TokenStream((np.asarray(array),), 2**64)
    if stream.vocab_size <= vocab_size:
        return stream
    _check_range(stream.shards, vocab_size, name)
    return replace(stream, vocab_size=vocab_size)


def _check_range(arrays: Iterable[Integers], vocab_size: int, name: str) -> None:
    """Raise a ValueError that names the worst id unless all are in [0, vocab_size)."""
    limits = [int(limit) for array in arrays if array.size for limit in (array.min(), array.max())]
    low, high = min(limits, default=0), max(limits, default=-1)
    if low < 0 or high >= vocab_size:
        worst, remedy = low if low < 0 else high, "encode the text with the tokenizer of this model"
        raise ValueError(f"{name}: {worst} is outside 0..{vocab_size - 1}; {remedy}")


def split_ids(ids: ArrayLike, val_fraction: float = 0.1) -> Split:
    """Split a stream by position: the last `ceil(T * val_fraction)` ids are for validation.

    Args:
        ids: integers [T], or a `TokenStream`.
        val_fraction: in (0, 1), such that no part is empty.

    Returns:
        train_ids and val_ids, views of `ids`.

    Raises:
        ValueError: `ids` is not 1-D, `val_fraction` is outside (0, 1), or a part would be empty.
        TypeError: `ids` are not integers.

    >>> train_ids, val_ids = split_ids(np.arange(20))
    >>> len(train_ids), val_ids
    (18, array([18, 19]))
    """
    array = as_integers(ids, min_length=0)
    if not 0 < check_number("val_fraction", val_fraction) < 1:
        raise ValueError(f"val_fraction must be in (0, 1), got {val_fraction}")
    # Round before `ceil`, because 100 * 0.07 is 7.000000000000001.
    num_train = len(array) - math.ceil(round(len(array) * val_fraction, 6))
    if not 0 < num_train < len(array):
        problem = f"{len(array)} ids cannot be split with val_fraction={val_fraction}: a part is empty"
        raise ValueError(f"{problem}; use a longer text")
    return Split(array[:num_train], array[num_train:])


def get_batch(ids: ArrayLike, context_length: int, batch_size: int, *, key: Array) -> Batch:
    """Draw random contexts of a stream, and the token that follows each.

    Start positions are uniform over [0, T - N), with replacement. Works under `jax.jit` and `jax.vmap`, where
    ids on the host become a constant of the program. Elsewhere, of ids on the host, such as a memory map or a
    `TokenStream`, only the batch is read and checked. Each new length of a JAX array recompiles.

    Args:
        ids: integers [T], where T is at least N + 1, or a `TokenStream`.
        context_length: N, at least 0.
        batch_size: B, at least 1.
        key: a random key.

    Returns:
        contexts int32 [B, N] and targets int32 [B].

    Raises:
        ValueError: `ids` is not 1-D with at least N + 1 ids, or a size or an id is out of range.
        TypeError: `ids` or a size are not integers, or `key` is not a random key.

    >>> contexts, targets = get_batch(np.arange(100), 3, 2, key=jax.random.key(0))
    >>> contexts.shape, bool((contexts[:, -1] + 1 == targets).all())
    ((2, 3), True)
    """
    check_at_least("context_length", context_length, 0)
    check_at_least("batch_size", batch_size, 1)
    stream, key = as_integers(ids, min_length=context_length + 1), check_key(key)
    if isinstance(stream, Array):
        return _random_windows(stream, context_length, batch_size, key=key)
    drawn = draw_starts(as_int32(len(stream) - context_length), batch_size, key=key)
    if isinstance(drawn, jax.core.Tracer):  # under `jit` or `vmap`, the host does not know the positions
        return _split_rows(_take_windows(_to_device(stream), drawn, context_length))
    return _split_rows(_to_device(gather_windows(stream, np.asarray(drawn), context_length)))


@functools.partial(jax.jit, static_argnames=("context_length", "batch_size"))
def _random_windows(ids: IntT, context_length: int, batch_size: int, *, key: KeyLike) -> Batch:
    starts = draw_starts(len(ids) - context_length, batch_size, key=key)
    return _split_rows(_take_windows(ids, starts, context_length).astype(jnp.int32))


def _take_windows(ids: Any, starts: Any, context_length: int) -> Array:
    return jnp.asarray(ids[starts[:, None] + jnp.arange(context_length + 1)[None, :]])


@functools.partial(jax.jit, static_argnames="batch_size")
def draw_starts(num_windows: IntScalar | int | None, batch_size: int, *, key: KeyLike) -> Integers:
    """Draw start positions for `gather_windows`, int32 [B], uniform over `num_windows`.

    None means 2^31 or more, which JAX cannot represent by default. The result is then two random words for each
    position, uint32 [B, 2].
    """
    if num_windows is None:
        return jax.random.bits(key, (batch_size, 2))
    return jax.random.randint(key, (batch_size,), 0, num_windows)


def as_int32(num_windows: int) -> np.int32 | None:
    """Return `num_windows` as `draw_starts` takes it: None from 2^31 on."""
    return np.int32(num_windows) if num_windows < 2**31 else None


def starts_of(drawn: NDArray[Any], num_windows: int) -> NDArray[np.int64]:
    """Return the start positions that belong to the result of `draw_starts`. Leading axes are allowed."""
    if drawn.dtype != np.uint32:
        return drawn.astype(np.int64)
    words = drawn.astype(np.uint64)
    # The probabilities of two positions differ by a factor of less than 1 + num_windows / 2^64.
    positions = (words[..., 0] << np.uint64(32) | words[..., 1]) % np.uint64(num_windows)
    return positions.astype(np.int64)


def gather_windows(stream: Any, drawn: NDArray[Any], context_length: int) -> NDArray[Any]:
    """Return the windows [..., N + 1] of a stream on the host, given the result of `draw_starts`."""
    starts = starts_of(drawn, len(stream) - context_length)
    return np.asarray(stream[starts[..., None] + np.arange(context_length + 1)])


def windows(ids: ArrayLike, context_length: int) -> Batch:
    """Return all contexts of a stream, in order, and the token that follows each.

    Works under `jax.jit`. Each new length of `ids` recompiles.

    Args:
        ids: integers [T], where T is at least N + 1.
        context_length: N, at least 0.

    Returns:
        contexts int32 [T - N, N] and targets int32 [T - N].

    Raises:
        ValueError: `ids` is not 1-D with at least N + 1 ids, or N is negative.
        TypeError: `ids` or N are not integers.

    >>> windows([5, 3, 8, 2], context_length=1).contexts.tolist()
    [[5], [3], [8]]
    """
    check_at_least("context_length", context_length, 0)
    return _all_windows(_to_device(as_integers(ids, min_length=context_length + 1)), context_length)


@functools.partial(jax.jit, static_argnames="context_length")
def _all_windows(ids: IntT, context_length: int) -> Batch:
    num_windows = len(ids) - context_length
    # 3 times faster than a gather at N = 8.
    rows = jnp.stack([ids[i : i + num_windows] for i in range(context_length + 1)], axis=1).astype(jnp.int32)
    return _split_rows(rows)


def _split_rows(rows: Any) -> Batch:
    return Batch(rows[:, :-1], rows[:, -1])


def _to_device(ids: Any) -> Integers:
    """Return ids as a JAX array. Check that those on the host fit in int32; a JAX array may be traced."""
    return ids if isinstance(ids, Array) else jnp.asarray(check_ids(ids, vocab_size=2**31 - 1))


def pad_rows(array: NDArray[Any], value: int) -> NDArray[Any]:
    """Append rows of `value`, at most an eighth of the length, so that many lengths share a compiled program."""
    granule = 1 << max(len(array).bit_length() - 4, 0)
    size = max(-(-len(array) // granule) * granule, 1)
    return np.pad(array, [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)], constant_values=value)


def as_integers(ids: Any, name: str = "ids", min_length: int | None = None) -> Any:
    """Return `ids` as an array of integers or a stream; with `min_length`, of shape [T] with T >= `min_length`."""
    try:
        array: Any = ids if isinstance(ids, Array | TokenStream) else np.asarray(ids)
        if array.dtype == object:  # such as a column of lists in pandas
            array = np.asarray(array.tolist())
    except ValueError:  # from NumPy, which calls the shape inhomogeneous
        remedy = "make them equal, or call once for each"
        raise ValueError(f"{name}: the rows have different lengths; {remedy}") from None
    if not isinstance(ids, Array | np.ndarray | TokenStream) and not array.size:
        array = array.astype(np.int32)  # NumPy makes an empty list an array of floats
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {array.dtype}; encode the text with a tokenizer first")
    if min_length is None:
        return array
    if array.ndim != 1:
        raise ValueError(f"{name} must be a 1-D stream of shape [T], got shape {list(array.shape)}")
    if len(array) < min_length:
        least = f"{name} must have at least {min_length} tokens (one context and its target)"
        raise ValueError(f"{least}, got {len(array)}; use a longer text")
    return array
