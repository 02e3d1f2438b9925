"""Convert the variables of a model to named arrays, and back."""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxlm.checkpoints.model_spec import is_library_model
from jaxlm.models import BackoffLM, CountsNgramLM, LanguageModel, MixtureLM, init
from jaxlm.models.baselines import UniformLM, UnigramLM
from jaxlm.utils.checks import check_arrays, describe_arrays

_MAX_DEPTH = 100  # of nested dicts; JAX's recursion fails at a depth of about 1,000


def variables_to_arrays(model: LanguageModel, variables: Any) -> dict[str, Any]:
    """Return the arrays to save by path, such as `params/embedding/embedding`, or "" for a single array.

    Of n-gram models, only the counts; loading smooths them. A mixture has one path per model, `0/...`, `1/...`.
    The arrays may be abstract. Raises a TypeError or a ValueError if the variables are those of another model.
    """
    try:
        return _flatten(_to_tree(model, variables))
    except (KeyError, IndexError, AttributeError) as error:
        raise TypeError(f"variables are not those of a {type(model).__name__}: {error!r}") from None


def variables_from_arrays(model: LanguageModel, arrays: Mapping[str, Any], origin: str) -> Any:
    """Invert `variables_to_arrays`. Raise the errors of `check_model_arrays`."""
    check_model_arrays(model, arrays, origin)
    try:
        return _from_tree(model, _unflatten(arrays))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{origin}: {error}") from None


def check_model_arrays(model: LanguageModel, arrays: Mapping[str, Any], origin: str) -> None:
    """Raise a ValueError that starts with `origin` unless these NumPy arrays can be those of the model."""
    try:
        expected = describe_arrays(_flatten(_expected_tree(model, _unflatten(arrays))))
    except (TypeError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{origin}: a {type(model).__name__} cannot have these arrays ({reason:.100})") from None
    check_arrays(origin, describe_arrays(arrays), expected)
    for name, array in arrays.items():
        message = f"{origin}: array {name!r:.200}"
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            raise ValueError(f"{message} is {array.dtype}, which JAX would narrow; set jax_enable_x64")
        if is_library_model(model) and not np.isfinite(array).all():
            raise ValueError(f"{message} contains NaN or infinity")
        if is_library_model(model) and np.issubdtype(array.dtype, np.integer) and (array < 0).any():
            raise ValueError(f"{message} contains {array.min()}; counts must be at least 0")


def _to_tree(model: LanguageModel, variables: Any) -> Any:
    """Return the arrays to save as nested dicts."""
    if isinstance(model, MixtureLM):
        parts = zip(model.models, model.variables_of_each(variables), strict=True)
        return {str(number): _to_tree(*part) for number, part in enumerate(parts)}
    if isinstance(model, CountsNgramLM):
        ngrams, counts = model.ngrams_of(variables)
        return {"ngrams": ngrams, "counts": counts.astype(np.int32)}
    with contextlib.suppress(ValueError):
        structures: Any = [jax.tree.structure(tree) for tree in (variables, _unflatten(_flatten(variables)))]
        if structures[0] == structures[1]:
            return variables
    keys = "none empty, with non-empty strings without slashes as keys"
    raise TypeError(f"variables must be nested dicts of arrays, {keys}, at most {_MAX_DEPTH} levels deep")


def _from_tree(model: LanguageModel, tree: Any) -> Any:
    if isinstance(model, MixtureLM):
        return tuple(_from_tree(part, tree.get(str(number), {})) for number, part in enumerate(model.models))
    return model.variables_of(**tree) if isinstance(model, CountsNgramLM | BackoffLM) else tree


def _expected_tree(model: LanguageModel, tree: Any) -> Any:
    """Return what `tree` must be, with abstract arrays."""
    if isinstance(model, MixtureLM):
        found = tree if isinstance(tree, dict) else {}
        parts = enumerate(model.models)
        return {str(number): _expected_tree(part, found.get(str(number), {})) for number, part in parts}
    if isinstance(model, UniformLM):
        return {}
    if isinstance(model, UnigramLM):
        return jax.ShapeDtypeStruct((int(model.vocab_size),), np.int32)  # type: ignore[no-untyped-call]
    if isinstance(model, CountsNgramLM | BackoffLM) or not is_library_model(model):
        return tree
    return jax.eval_shape(lambda: init(model, jax.random.key(0)))


def _flatten(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(getattr(key, "key", "")) for key in path): leaf for path, leaf in leaves}


def _unflatten(arrays: Mapping[str, Any]) -> Any:
    """Return nested dicts. Raise a ValueError if the paths do not form a tree."""
    if arrays.keys() == {""}:
        return arrays[""]
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *parents, name = path.split("/")
        branch: Any = tree
        for part in parents[:_MAX_DEPTH]:
            branch = branch.setdefault(part, {}) if isinstance(branch, dict) else branch
        if len(parents) >= _MAX_DEPTH or not isinstance(branch, dict) or name in branch or not name:
            raise ValueError("the names of its arrays do not form a tree")
        branch[name] = array
    return tree
