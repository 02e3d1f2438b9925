"""Gather the random windows of many training steps on the host, while the device trains on the ones before."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

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
from jaxlm.utils.workers import DaemonExecutor, map_ahead

_IDS_PER_BLOCK = 2**18  # 1 MiB, gathered in 3 ms; at B = 32 and N = 3, the windows of 2,048 steps


def iterate_blocks(
    stream: TokenStream, context_length: int, batch_size: int, steps: range, *, key: Array, sharding: Sharding
) -> Iterator[tuple[int, Array]]:
    """Yield `(stop, windows)` for each block of at most S steps; the last of them is `stop - 1`.

    Step i has `windows[i % S]`, int32 [B, N + 1]: the windows of `get_batch(stream, N, B, key=fold_in(key, i))`.
    With R keys it has those of each run's key, [R, B, N + 1]. After the last step, the windows are zeros.

    While the device trains on a block, a thread gathers the next one, whose positions have been drawn before.
    """
    devices: Any = sharding.addressable_devices
    device = min(devices, key=lambda device: device.id)
    key, num_windows = jax.device_put((key, as_int32(len(stream) - context_length)), device)
    # A small integer of NumPy would overflow.
    size = max(_IDS_PER_BLOCK // (int(batch_size) * (int(context_length) + 1) * key.size), 1)

    def draw(first: int) -> tuple[int, Integers]:
        return first, _draw_block(num_windows, jax.device_put(np.int32(first), device), size, batch_size, key=key)

    def gather(drawn: tuple[int, Integers]) -> tuple[int, Array]:
        first, positions = drawn
        taken = gather_windows(stream, jax.device_get(positions)[: steps.stop - first], context_length)
        windows = np.zeros((size, *taken.shape[1:]), np.int32)
        windows[: len(taken)] = taken
        return first + len(taken), put(windows, sharding)

    firsts = range(steps.start - steps.start % size, steps.stop, size) if steps else range(0)
    # A run of one block needs no thread; the threads of 1,000 such runs would reserve 20 MB.
    with DaemonExecutor(1) if len(firsts) > 1 else contextlib.nullcontext() as executor:
        yield from map_ahead(executor, gather, map(draw, firsts), ahead=1)


@functools.partial(jax.jit, static_argnames=("num_steps", "batch_size"))
def _draw_block(
    num_windows: IntScalar | None, first: IntScalar, num_steps: int, batch_size: int, *, key: Array
) -> Integers:
    """Return the random numbers of `draw_starts` for S steps: [S, B] or [S, B, 2], with R keys [S, R, ...]."""

    def draw(key: KeyLike) -> Any:
        steps = first + jnp.arange(num_steps)
        return vmap_over_steps(lambda key: draw_starts(num_windows, batch_size, key=key), key, steps)

    return jax.vmap(draw, out_axes=1)(key) if key.ndim else draw(key)
