"""Check the arguments of public functions, and compare arrays with those expected."""

import operator
from collections.abc import Mapping
from typing import Any, SupportsFloat, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise a TypeError unless `value` is an integer, and a ValueError if it is below `least` or above int32."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    if operator.index(value) >= 2**31:  # as a Python integer, which cannot overflow
        raise ValueError(f"{name} must be below 2**31, got {value}")


def check_number(name: str, value: Any) -> float:
    """Return `value` as a float; raise a TypeError unless it is a number or an array of shape []."""
    if np.ndim(value) != 0 or not isinstance(value, SupportsFloat):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)


def check_not_traced(name: str, alternative: str, *values: Any) -> None:
    """Raise a TypeError under `jit`, or if a leaf of `values` is traced, because `name` is a host function."""
    leaves = jax.tree.leaves(values)
    if any(isinstance(leaf, jax.Array) for leaf in leaves):  # otherwise, this could start JAX and its plugins
        leaves.append(lax.iota(jnp.int32, 1))  # traced under `jit`
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        raise TypeError(f"{name} does not work inside jit, vmap or grad; use {alternative}")


def describe_arrays(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Return the dtype and shape of each array, such as `float32[2, 3]`."""
    return {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}


def describe_tree(tree: Any) -> dict[str, str]:
    """Return the dtype and shape of each array of a pytree, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return describe_arrays({jax.tree_util.keystr(path): leaf for path, leaf in leaves})


def check_arrays(origin: str, found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Raise a ValueError that starts with `origin` if two descriptions of arrays differ."""
    for name in sorted(found.keys() | expected.keys()):
        got, wanted = found.get(name, "missing"), expected.get(name, "no array of that name")
        if got != wanted:
            raise ValueError(f"{origin}: array {name!r:.200} is {got:.100}, expected {wanted}")
