"""From one stream of token ids to the (contexts, targets) that a model learns from."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from jaxlm.utils.checks import check_at_least


def check_ids(ids: ArrayLike, vocab_size: int, *, name: str = "ids") -> Array | np.ndarray[Any, Any]:
    """`ids` as int32 of the same shape, once every one of them is known to be in `[0, vocab_size)`.

    JAX would not say: a scatter drops an id out of range, a gather clamps it. A JAX array is checked where it
    lies, anything else as a NumPy array.

    Raises:
        TypeError: `ids` are not integers.
        ValueError: an id is out of range; the message names the worst.

    >>> check_ids([0, 2, 1], vocab_size=3)
    array([0, 2, 1], dtype=int32)
    """
    array = ids if isinstance(ids, Array) else np.asarray(ids)
    if not array.size and not isinstance(ids, Array | np.ndarray):
        array = array.astype(np.int32)  # NumPy takes an empty list for floats
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {array.dtype}; encode the text with a tokenizer first")
    if array.size:
        low, high = int(array.min()), int(array.max())
        worst = low if low < 0 else high
        if not 0 <= worst < vocab_size:
            raise ValueError(
                f"{name}: {worst} is outside 0..{vocab_size - 1}; "
                f"the model's vocab_size={vocab_size} must be the tokenizer's"
            )
    return array if array.dtype == np.int32 else array.astype(np.int32)


def check_stream(
    ids: ArrayLike, vocab_size: int, *, min_length: int, name: str = "ids"
) -> Array | np.ndarray[Any, Any]:
    """`check_ids` for one stream: 1-D, and at least `min_length` ids long.

    Raises:
        TypeError, ValueError: as `check_ids`; also for another rank, or fewer ids.
    """
    array = check_ids(ids, vocab_size, name=name)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one stream of shape [T], got shape {list(array.shape)}")
    if len(array) < min_length:
        raise ValueError(
            f"{name}: {len(array)} tokens are too few, one context and its target need {min_length}; use more text"
        )
    return array


def split_ids(ids: ArrayLike, val_fraction: float = 0.1) -> tuple[Any, Any]:
    """Splits by position: the last part, `ceil(T * val_fraction)` of the `T` ids, validates.

    Raises:
        TypeError: `ids` are not integers.
        ValueError: `val_fraction` is not in (0, 1), or one part would be empty.

    >>> train_ids, val_ids = split_ids(np.arange(20))
    >>> len(train_ids), val_ids
    (18, array([18, 19]))
    """
    array = ids if isinstance(ids, Array) else np.asarray(ids)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"ids must be integers, got {array.dtype}; encode the text with a tokenizer first")
    if array.ndim != 1:
        raise ValueError(f"ids must be one stream of shape [T], got shape {list(array.shape)}")
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction must lie between 0 and 1, got {val_fraction}")
    # Rounding first: 30 * 0.1 is 3.0000000000000004 in floats of another order, and must still mean 3.
    num_train = len(array) - math.ceil(round(len(array) * val_fraction, 6))
    if not 0 < num_train < len(array):
        raise ValueError(
            f"{len(array)} ids cannot be split with val_fraction={val_fraction}: a part would be empty"
        )
    return array[:num_train], array[num_train:]


def get_batch(ids: ArrayLike, context_length: int, batch_size: int, *, key: Array) -> tuple[Array, Array]:
    """Random windows of the stream: `batch_size` contexts and the token that follows each.

    Start positions are uniform over `[0, T - context_length)`, drawn with replacement. A pure function of its
    arguments, which works under `jax.jit` and `jax.vmap`.

    Args:
        ids: integers [T].
        key: one `jax.random.key`, used up by this call.

    Returns:
        contexts int32 [B, N] and targets int32 [B].

    Raises:
        TypeError: `ids` are not integers.
        ValueError: `T <= context_length`, or `batch_size < 1`.

    >>> contexts, targets = get_batch(np.arange(100), 3, 2, key=jax.random.key(0))
    >>> contexts.shape, bool((contexts[:, -1] + 1 == targets).all())
    ((2, 3), True)
    """
    # A traced array has no values to check, and this function knows no vocabulary: that ids fit int32 must do.
    stream = ids if isinstance(ids, Array) else check_ids(ids, vocab_size=2**31 - 1)
    if not jnp.issubdtype(stream.dtype, jnp.integer):
        raise TypeError(f"ids must be integers, got {stream.dtype}; encode the text with a tokenizer first")
    if stream.ndim != 1 or len(stream) <= context_length:
        raise ValueError(
            f"ids of shape {list(stream.shape)} hold no window: one stream of at least "
            f"context_length + 1 = {context_length + 1} ids is needed"
        )
    check_at_least("context_length", context_length, 0)
    check_at_least("batch_size", batch_size, 1)
    num_windows = len(stream) - context_length
    return random_windows(jnp.asarray(stream), num_windows, context_length, batch_size, key=key)


@functools.partial(jax.jit, static_argnames=("context_length", "batch_size"))
def random_windows(
    ids: Array, num_windows: Array | int, context_length: int, batch_size: int, *, key: Array
) -> tuple[Array, Array]:
    """`get_batch` without its checks, from the first `num_windows` windows of `ids` [T], which may be padded."""
    starts = jax.random.randint(key, (batch_size,), 0, num_windows)
    windows = ids[starts[:, None] + jnp.arange(context_length + 1)[None, :]].astype(jnp.int32)  # [B, N + 1]
    return windows[:, :-1], windows[:, -1]
