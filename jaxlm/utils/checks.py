"""Check the arguments of public functions."""

import operator
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
