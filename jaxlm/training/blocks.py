"""Gather the random windows of many training steps on the host, while the device trains on the ones before."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Sharding

from jaxlm._types import Integers, IntScalar, KeyLike
from jaxlm.devices.mesh import put
from jaxlm.text.batching import as_int32, draw_starts, gather_windows
from jaxlm.text.token_stream import TokenStream
from jaxlm.utils.keys import vmap_over_steps

_IDS_PER_BLOCK = 2**18  # 1 MiB, gathered in 3 ms; at B = 32 and N = 3, the windows of 2,048 steps


class Block(NamedTuple):
    """The windows of the steps in [first, stop)."""

    first: int
    stop: int
    windows: Array  # int32 [S, B, N + 1], or [S, R, B, N + 1] for R runs; zeros from step `stop`


def iterate_blocks(
    stream: TokenStream,
    context_length: int,
    batch_size: int,
    num_steps: int,
    *,
    key: Array,
    sharding: Sharding,
    windows_sharding: Sharding | None = None,
    first_step: int = 0,
) -> Iterator[Block]:
    """Yield the windows of the steps in [first_step, num_steps).

    Step i has the windows of `get_batch(stream, N, B, key=fold_in(key, i))`; with R keys, those of each run's key.
    The next positions are drawn before a block is yielded, and their windows are gathered when the next block is
    requested. Request it while the device trains on this block, so that neither waits for the other.

    The positions are drawn with `sharding`, that of `key`. It is also that of the windows, unless they have one.
    """
    num_windows = jax.device_put(as_int32(len(stream) - context_length), sharding)
    # A small integer of NumPy would overflow.
    size = max(_IDS_PER_BLOCK // (int(batch_size) * (int(context_length) + 1) * key.size), 1)

    def draw(first: int) -> Any:
        return _draw_block(num_windows, jax.device_put(np.int32(first), sharding), size, batch_size, key=key)

    drawn = draw(first_step)
    for first in range(first_step, num_steps, size):
        taken = gather_windows(stream, jax.device_get(drawn)[: num_steps - first], context_length)
        windows = np.zeros((size, *taken.shape[1:]), np.int32)
        windows[: len(taken)] = taken
        drawn = draw(first + size)
        yield Block(first, first + len(taken), put(windows, windows_sharding or sharding))


@functools.partial(jax.jit, static_argnames=("num_steps", "batch_size"))
def _draw_block(
    num_windows: IntScalar | None, first: IntScalar, num_steps: int, batch_size: int, *, key: Array
) -> Integers:
    """Return the random numbers of `draw_starts` for S steps: [S, B] or [S, B, 2], with R keys [S, R, ...]."""

    def draw(key: KeyLike) -> Any:
        steps = first + jnp.arange(num_steps)
        return vmap_over_steps(lambda key: draw_starts(num_windows, batch_size, key=key), key, steps)

    return jax.vmap(draw, out_axes=1)(key) if key.ndim else draw(key)
