"""The state of a training run, and the split of variables into trained and constant ones."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxlm.evaluation.evaluate import Evaluation
from jaxlm.models.interface import LanguageModel, init

# Folds of a run's key that are not steps.
INIT_FOLD = 2**31 - 1
DROPOUT_FOLD = 2**31 - 2


class EarlyStopping(NamedTuple):
    """The best validation so far."""

    params: Any
    nats_per_token: Array  # float32 []
    records_since: Array  # int32 []


class TrainState(NamedTuple):
    """Everything that changes from one training step to the next, as a pytree.

    >>> TrainState(step=jnp.int32(3), params={"w": 1.0}, opt_state=optax.EmptyState()).params
    {'w': 1.0}
    """

    step: Array  # int32 [], number of steps done
    params: Any
    opt_state: optax.OptState
    best: EarlyStopping | None = None  # with `patience` only


def init_state(
    model: LanguageModel,
    optimizer: optax.GradientTransformation,
    key: Array,
    variables: Any = None,
    *,
    patience: int | None = None,
) -> TrainState:
    """Return the state from which `train_lm` starts, given the same arguments. The arrays are not copied."""
    if variables is None:
        variables = init(model, jax.random.fold_in(key, INIT_FOLD))
    params, _ = split_variables(model, variables)
    best = None if patience is None else EarlyStopping(params, jnp.float32(jnp.inf), jnp.int32(0))
    return TrainState(jnp.int32(0), params, optimizer.init(params), best)


def update_early_stopping(best: EarlyStopping, params: Any, validation: Evaluation) -> EarlyStopping:
    """Return the best validation, after one more record."""
    nats = jnp.float32(validation.nats_per_token)
    if nats < best.nats_per_token:
        return EarlyStopping(copy_arrays(params), nats, jnp.int32(0))  # copies, because the next step donates
    return best._replace(records_since=best.records_since + 1)


def is_finished(state: TrainState, num_steps: int, patience: int | None) -> bool:
    """Return whether training ends at `state`, after the last step or because `patience` is exhausted."""
    is_impatient = patience is not None and state.best is not None and int(state.best.records_since) >= patience
    return is_impatient or int(state.step) >= num_steps


def split_variables(model: LanguageModel, variables: Any) -> tuple[Any, Any]:
    """Return the trained params and the constant collections; without "params", all variables and None."""
    if isinstance(variables, Mapping) and "params" in variables:
        params = variables["params"]
        constants = {name: value for name, value in variables.items() if name != "params"}
    else:
        params, constants = variables, None
    dtypes = {jnp.asarray(leaf).dtype for leaf in jax.tree.leaves(params)}
    if not dtypes or not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        found = ", ".join(sorted(map(str, dtypes))) or "no arrays"
        remedy = "call model.fit(variables, ids)" if hasattr(model, "fit") else "its params must be floats"
        raise TypeError(f"{type(model).__name__} cannot be trained by gradient: it holds {found}; {remedy}")
    return params, constants


def join_variables(params: Any, constants: Any) -> Any:
    """Invert `split_variables`."""
    return params if constants is None else {"params": params, **constants}


def copy_arrays(tree: Any) -> Any:
    """Return `tree` with each leaf copied to a new JAX array."""
    # `jnp.array` rejects random keys.
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, Array) else jnp.array(leaf), tree)


def check_state(state: TrainState, expected: TrainState, num_steps: int) -> None:
    """Raise a ValueError unless `state` has the arrays of `expected` and is at most at step `num_steps`."""
    problem = "state belongs to another model or optimizer"
    structure: Any = jax.tree.structure  # its type lacks !=
    if structure(state) != structure(expected):
        raise ValueError(f"{problem}: its arrays have other names")
    leaves = jax.tree_util.tree_leaves_with_path(state)
    for (path, leaf), wanted in zip(leaves, jax.tree.leaves(expected), strict=True):
        found, needed = (f"{each.dtype}{list(each.shape)}" for each in (leaf, wanted))
        if found != needed:
            raise ValueError(f"{problem}: {jax.tree_util.keystr(path)} is {found}, expected {needed}")
    if not 0 <= int(state.step) <= num_steps:
        raise ValueError(f"state is at step {int(state.step)}, outside 0..num_steps={num_steps}")
