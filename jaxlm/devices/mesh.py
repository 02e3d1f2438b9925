"""Place arrays on a mesh of devices, which may belong to several processes."""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np
from jax import Array, lax, numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from numpy.typing import NDArray

from jaxlm._types import Device


def shard_map(fun: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """Return `jax.shard_map(fun)` in all supported versions of JAX, without the check of replication."""
    specs: Any = {"mesh": mesh, "in_specs": in_specs, "out_specs": out_specs}
    if jax.__version_info__ >= (0, 7):
        return jax.shard_map(fun, **specs, check_vma=False)
    from jax.experimental import shard_map as experimental

    return cast(Any, experimental).shard_map(fun, **specs, check_rep=False)


def check_mesh(mesh: Mesh) -> str:
    """Return the name of the mesh's axis. Raise a ValueError unless it has one, with devices of all processes.

    >>> check_mesh(Mesh(np.array(jax.devices()), ("data",)))
    'data'
    """
    if len(mesh.axis_names) != 1:
        remedy = 'use jax.sharding.Mesh(np.array(devices), ("data",))'
        raise ValueError(f"mesh must have one axis, got {mesh.axis_names}; {remedy}")
    missing = set(range(jax.process_count())) - {device.process_index for device in mesh.devices.flat}
    if missing:
        raise ValueError(f"mesh must have devices of all processes, got none of process {min(missing)}")
    return str(mesh.axis_names[0])


def check_placement(device: Device, mesh: Mesh | None) -> None:
    """Raise a ValueError if both a device and a mesh are requested, or if `check_mesh` does."""
    if mesh is not None:
        check_mesh(mesh)
    if mesh is not None and device != "auto":
        raise ValueError(f"device {device} and mesh exclude each other; a mesh has its own devices")


def partition(*axes: str | None) -> PartitionSpec:
    """Return the `PartitionSpec` of an array whose axis i is split over the mesh axis `axes[i]`."""
    return PartitionSpec(*axes)  # type: ignore[no-untyped-call]


def sharding_of(mesh: Mesh, *axes: str | None) -> NamedSharding:
    """Return the sharding that splits array axis i over the mesh axis `axes[i]`. Without axes, it replicates."""
    return NamedSharding(mesh, partition(*axes))


def put(tree: Any, sharding: Sharding) -> Any:
    """Return the arrays of a pytree with this sharding, like `jax.device_put`.

    If several processes share the sharding, all of them pass the same values, which are not compared.
    """
    if sharding.is_fully_addressable:
        # With jax_debug_key_reuse, `device_put` of jax 0.5.0 raises an IndexError for a tree without arrays.
        return jax.device_put(tree, sharding) if jax.tree.leaves(tree) else tree

    def put_array(array: Any) -> Any:
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put_array(jax.random.key_data(array)), impl=jax.random.key_impl(array))
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put_array, tree)


def to_local(tree: Any) -> Any:
    """Return replicated arrays as arrays of one device of this process; all others unchanged."""

    def copy(array: Any) -> Any:
        is_replicated = isinstance(array, Array) and array.is_fully_replicated and len(array.devices()) > 1
        return array.addressable_data(0) if is_replicated else array

    return jax.tree.map(copy, tree)


@functools.partial(jax.jit, static_argnums=1)
def all_gather(array: Array, mesh: Mesh) -> Array:
    """Copy an array, whose rows are split over the mesh, to every device."""
    (axis,) = mesh.axis_names

    def gather(rows: Array) -> Array:
        return cast(Array, lax.all_gather(rows, axis, tiled=True))

    return cast(Array, shard_map(gather, mesh, partition(axis), partition())(array))


def gather_from_processes(value: NDArray[Any], mesh: Mesh) -> NDArray[Any]:
    """Return each process's value, once for each of its devices in the mesh. All processes make the same call.

    On the CPU, JAX connects the devices of a mesh in the first such call and then waits at most 30 seconds; in the
    later ones, 30 minutes. So make a call when the processes start, before one of them does what takes long.
    """
    shape, sharding = (mesh.size, *value.shape), sharding_of(mesh, *mesh.axis_names)
    rows = jax.make_array_from_callback(shape, sharding, lambda _: value[None])
    return np.asarray(all_gather(rows, mesh))


def max_over_processes(value: float, mesh: Mesh | None) -> float:
    """Return the largest value of all processes of the mesh. All processes make the same call."""
    if mesh is None or not mesh.is_multi_process:
        return value
    return float(gather_from_processes(np.array(value, np.float32), mesh).max())
