"""Name the arrays of a pytree, and compare their names, shapes and dtypes."""

from collections.abc import Iterable
from typing import Any

import jax

Name = tuple[str, ...]


def named_leaves(tree: Any) -> list[tuple[Name, Any]]:
    """Return the leaves of nested dicts, each with its path of keys."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(tuple(str(entry.key) for entry in path), leaf) for path, leaf in leaves]


def check_arrays(origin: str, arrays: Iterable[tuple[Name, Any]], expected: Iterable[tuple[Name, Any]]) -> None:
    """Raise a ValueError that starts with `origin` if names, dtypes or shapes differ. The order is ignored."""
    found = {name: _signature(array) for name, array in arrays}
    wanted = {name: _signature(array) for name, array in expected}
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{origin}: array {format_name(name)} is {found.get(name, 'missing'):.100}, "
                f"expected {wanted.get(name, 'no array of that name')}"
            )


def format_name(name: Name) -> str:
    """Return an array's name as shown in messages, at most 200 characters."""
    return f"{'/'.join(name)!r:.200}"


def _signature(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}"
