"""Name the arrays of nested dicts by their paths."""

from collections.abc import Mapping
from typing import Any

_MAX_DEPTH = 100  # of nested dicts; JAX's recursion fails at a depth of about 1,000


def flatten(tree: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts by path, such as `params/embedding/embedding`, or "" for a single array.

    Raises a TypeError for an empty dict inside another, a key that is empty, contains a slash or is not a string,
    and deep nesting.
    """
    if not isinstance(tree, Mapping):
        return {path.removesuffix("/"): tree}
    if (path and not tree) or path.count("/") >= _MAX_DEPTH:
        raise TypeError(f"variables must be nested dicts of arrays, none empty, at most {_MAX_DEPTH} levels deep")
    leaves: dict[str, Any] = {}
    for name, subtree in tree.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise TypeError(f"the keys of variables must be non-empty strings without slashes, got {name!r}")
        leaves |= flatten(subtree, f"{path}{name}/")
    return leaves


def unflatten(arrays: Mapping[str, Any], origin: str) -> Any:
    """Invert `flatten`. Raise a ValueError that starts with `origin` if the paths do not form a tree."""
    if arrays.keys() == {""}:
        return arrays[""]
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *parents, name = path.split("/")
        branch: Any = tree
        for part in parents[:_MAX_DEPTH]:
            branch = branch.setdefault(part, {}) if isinstance(branch, dict) else branch
        if len(parents) >= _MAX_DEPTH or not isinstance(branch, dict) or name in branch or not name:
            raise ValueError(f"{origin} is damaged: the names of its arrays do not form a tree")
        branch[name] = array
    return tree
