"""Name the arrays of nested dicts by their paths, and compare their shapes and dtypes."""

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


def check_arrays(origin: str, arrays: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise a ValueError that starts with `origin` if names, dtypes or shapes differ. The order is ignored."""
    for name in sorted(arrays.keys() | expected.keys()):
        pair = (each.get(name) for each in (arrays, expected))
        found, wanted = ("missing" if each is None else f"{each.dtype}{list(each.shape)}" for each in pair)
        if found != wanted:
            wanted = "no array of that name" if wanted == "missing" else wanted
            raise ValueError(f"{origin}: array {name!r:.200} is {found:.100}, expected {wanted}")
