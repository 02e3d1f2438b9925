"""Data parallel training: average gradients over the parts of a batch, on one device or several."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax as jax_lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from jaxlm._types import KeyLike
from jaxlm.devices.mesh import check_mesh
from jaxlm.utils.checks import check_at_least

lax: Any = jax_lax  # some of its functions have no types


def average_over_batch(
    fun: Callable[[Any, KeyLike], Any],
    batch: Any,
    key: KeyLike,
    axis_name: str | None = None,
    grad_shards: int | None = None,
) -> Any:
    """Return `fun(batch, key)`, the mean over the rows of a batch, computed in parts.

    With `axis_name`, `batch` holds this device's rows of the whole batch, inside `shard_map` over that axis; the
    means of the devices are averaged with `psum`, whose order of additions depends on the number of devices.

    With `grad_shards`, the whole batch is S parts of equal size. The same program computes the mean of each part,
    and every device adds the S means in the order of the parts. So the number of devices does not change a bit.
    The key of part i is `fold_in(key, i)`.

    >>> batch = jnp.arange(8.0)
    >>> average_over_batch(lambda part, key: part.mean(), batch, jax.random.key(0), grad_shards=4)
    Array(3.5, dtype=float32)
    """
    if axis_name is None and grad_shards is None:
        return fun(batch, key)
    # The arrays are communicated as one. With a message for each, a step of two local processes takes 17.5 ms
    # instead of 9.6, and 29.0 instead of 13.5 with `grad_shards` (MLP at V = 4096, B = 128).
    if grad_shards is None:
        mean, unravel = ravel_pytree(fun(batch, jax.random.fold_in(key, lax.axis_index(axis_name))))
        return unravel(lax.pmean(mean, axis_name))
    num_devices, device = (1, 0) if axis_name is None else (lax.psum(1, axis_name), lax.axis_index(axis_name))
    num_local = grad_shards // num_devices
    numbers = device * num_local + jnp.arange(num_local)
    parts = jax.tree.map(lambda rows: rows.reshape(num_local, -1, *rows.shape[1:]), batch)

    def compute_part(part: tuple[Any, Any]) -> Any:
        number, rows = lax.optimization_barrier(part)  # no fusion across it, so that each part is the same program
        return lax.optimization_barrier(fun(rows, jax.random.fold_in(key, number)))

    trees = lax.map(compute_part, (numbers, parts))
    _, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], trees))
    means = jax.vmap(lambda tree: ravel_pytree(tree)[0])(trees)  # [S / P, M]
    if axis_name is not None:
        means = lax.all_gather(means, axis_name, tiled=True)  # [S, M]
    means = lax.optimization_barrier(means)
    return unravel(functools.reduce(jnp.add, means) / grad_shards)


def check_sharding(mesh: Mesh, grad_shards: int | None, batch_size: int) -> str:
    """Return the name of the mesh's axis. Raise a ValueError unless its devices can share the batch evenly."""
    name, shards = check_mesh(mesh), mesh.size
    what = f"the {shards} devices"
    if grad_shards is not None:
        check_at_least("grad_shards", grad_shards, 1)
        if grad_shards % mesh.size:
            raise ValueError(f"grad_shards must be a multiple of {what}, got {grad_shards}")
        shards, what = grad_shards, f"{grad_shards=}"
    if batch_size % shards:
        nearest = max(round(batch_size / shards), 1) * shards
        raise ValueError(f"batch_size must be a multiple of {what}, got {batch_size}; use {nearest}")
    return name
