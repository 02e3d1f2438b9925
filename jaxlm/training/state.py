"""state."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxlm.evaluation.evaluate import Evaluation
from jaxlm.models.interface import LanguageModel, init

INIT_FOLD = 2**31 - 1
NOISE_FOLD = 2**31 - 2


class EarlyStopping(NamedTuple):
    """What early stopping has to know: the params of the best validation, its nats per token, and its age."""

    params: Any
    nats_per_token: Array  # float32
    records_since: Array


class TrainState(NamedTuple):
    """All that a step of training reads and writes: the steps done, the params, the optimizer's state.

    `best` is there with `patience` alone.
    """

    step: Array
    params: Any
    opt_state: optax.OptState
    best: EarlyStopping | None = None


def init_state(
    model: LanguageModel,
    optimizer: optax.GradientTransformation,
    key: Array,
    variables: Any = None,
    *,
    patience: int | None = None,
) -> TrainState:
    """The state that `train_lm` starts from, given the same arguments; its arrays may be the variables' own."""
    if variables is None:
        variables = init(model, jax.random.fold_in(key, INIT_FOLD))
    params, _ = split_variables(model, variables)
    return make_state(params, optimizer, keeps_best=patience is not None)


def make_state(params: Any, optimizer: optax.GradientTransformation, *, keeps_best: bool) -> TrainState:
    best = EarlyStopping(params, jnp.float32(jnp.inf), jnp.int32(0)) if keeps_best else None
    return TrainState(jnp.int32(0), params, optimizer.init(params), best)


def update_early_stopping(best: EarlyStopping | None, params: Any, validation: Evaluation) -> EarlyStopping | None:
    """The best after another record, with copies of its params, for the next step takes these over."""
    if best is None:
        return None
    nats = jnp.float32(validation.nats_per_token)
    if nats < best.nats_per_token:
        return EarlyStopping(copy_arrays(params), nats, jnp.int32(0))
    return best._replace(records_since=best.records_since + 1)


def is_finished(state: TrainState, num_steps: int, patience: int | None) -> bool:
    """Whether no step comes after `state`: the run has done all of its own, or lost patience."""
    if state.best is not None and patience is not None and int(state.best.records_since) >= patience:
        return True
    return int(state.step) >= num_steps


def split_variables(model: LanguageModel, variables: Any) -> tuple[Any, Any]:
    """What is trained, and the collections that stay as they are (None where everything is trained)."""
    if isinstance(variables, Mapping) and "params" in variables:
        params = variables["params"]
        constants = {name: value for name, value in variables.items() if name != "params"}
    else:
        params, constants = variables, None
    dtypes = {jnp.asarray(leaf).dtype for leaf in jax.tree.leaves(params)}
    if not dtypes or not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        held = ", ".join(sorted(map(str, dtypes))) or "nothing"
        raise TypeError(
            f"{type(model).__name__} holds {held}, which no gradient trains"
            + ("; call model.fit(variables, ids)" if hasattr(model, "fit") else "; its params must be floats")
        )
    return params, constants


def copy_arrays(tree: Any) -> Any:
    def copy(leaf: Any) -> Array:
        return leaf.copy() if isinstance(leaf, Array) else jnp.array(leaf)  # jnp.array takes no random keys

    return jax.tree.map(copy, tree)


def join_variables(params: Any, constants: Any) -> Any:
    return params if constants is None else {"params": params, **constants}


def check_state(state: TrainState, fresh: TrainState, num_steps: int) -> None:
    """Raises a ValueError unless a run of `num_steps` that starts from `fresh` can go on from `state`."""
    structures: list[Any] = [jax.tree.structure(state), jax.tree.structure(fresh)]
    if structures[0] != structures[1]:
        raise ValueError("state is of another model or optimizer: its arrays have other names")
    for (path, leaf), wanted in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(fresh), strict=True
    ):
        if (leaf.shape, leaf.dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(
                f"state is of another model or optimizer: {jax.tree_util.keystr(path)} is {leaf.dtype}"
                f"{list(leaf.shape)}, here it is {wanted.dtype}{list(wanted.shape)}"
            )
    if not 0 <= int(state.step) <= num_steps:
        raise ValueError(f"state is of step {int(state.step)}; num_steps={num_steps} ends before it")
