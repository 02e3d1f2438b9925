"""The state of a training run."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxlm._types import IntScalar, Variables
from jaxlm.evaluation.evaluate import Evaluation
from jaxlm.models.counts_bigram import CountsBigramLM
from jaxlm.models.counts_ngram import CountsNgramLM
from jaxlm.models.interface import LanguageModel, check_collections, init
from jaxlm.training.optimizers import HyperparamState
from jaxlm.utils.checks import check_arrays, describe_tree
from jaxlm.utils.keys import check_key

# `fold_in` values outside the range of step numbers.
INIT_FOLD = 2**31 - 1
DROPOUT_FOLD = 2**31 - 2


class TrainState(NamedTuple):
    """Everything that changes from one training step to the next, as a pytree.

    >>> TrainState(step=jnp.int32(3), params={"w": 1.0}, opt_state=optax.EmptyState()).variables
    {'w': 1.0}
    """

    step: IntScalar  # number of steps done
    params: Any
    opt_state: optax.OptState
    constants: Any = None  # collections besides "params"; None if the variables have no collections

    @property
    def variables(self) -> Variables:
        """The variables for `model.apply`."""
        return self.params if self.constants is None else {"params": self.params, **self.constants}


class Record(NamedTuple):
    """One entry of the training log.

    >>> Record(step=0, train_loss=1.5, validation=None).train_loss
    1.5
    """

    step: int  # from 0
    train_loss: float  # mean nats per token of the step's batch, before the update
    validation: Evaluation | None  # on `val_ids`, after the update


def init_state(
    model: LanguageModel, optimizer: optax.GradientTransformation, *, key: Array, variables: Variables = None
) -> TrainState:
    """Return the state before the first step.

    A pure function, for use inside `jit` and `vmap`. In one program with the training loop, XLA may round the
    first step differently; for the bits of `train_lm`, pass the state to your jitted loop.

    Args:
        key: key of the run.
        variables: None means `init(model, jax.random.fold_in(key, 2**31 - 1))`. Only the collection "params" is
            trained if there is one, otherwise everything.

    >>> from jaxlm import NeuralBigramLM, sgd
    >>> model = NeuralBigramLM(vocab_size=5, embedding_dim=2)
    >>> init_state(model, sgd(0.1, num_steps=10), key=jax.random.key(0)).step
    Array(0, dtype=int32)
    """
    if variables is None:
        variables = init(model, jax.random.fold_in(check_key(key), INIT_FOLD))
    check_collections(model, variables)
    params, constants = variables, None
    if isinstance(variables, Mapping) and "params" in variables:
        constants = {name: value for name, value in variables.items() if name != "params"}
        params = variables["params"]
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves(params)}
    if not dtypes or not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        found = ", ".join(sorted(map(str, dtypes))) or "no arrays"
        is_counts = isinstance(model, CountsBigramLM | CountsNgramLM)
        remedy = "call model.fit(variables, ids)" if is_counts else "trained parameters must be floats"
        problem = f"{type(model).__name__} cannot be trained by gradient descent: its variables are {found}"
        raise TypeError(f"{problem}; {remedy}")
    # Remove weak types: the first step would remove them, and the second step would recompile.
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), params)
    return TrainState(jnp.int32(0), params, optimizer.init(params), constants)


def resume_state(state: TrainState, expected: TrainState, optimizer: Any, num_steps: int) -> TrainState:
    """Return the state to resume from. If `optimizer` is a bare `sgd`, its hyperparameters replace the state's.

    Raise a ValueError unless its arrays match those of `expected` and its step is at most `num_steps`.
    """
    check_arrays("state is of a different model or optimizer", describe_tree(state), describe_tree(expected))
    if not 0 <= int(state.step) <= num_steps:
        raise ValueError(f"state.step must be in [0, {num_steps}], got {int(state.step)}; raise num_steps")
    if not isinstance(state.opt_state, HyperparamState):
        return state
    return state._replace(opt_state=state.opt_state._replace(hyperparams=optimizer.init({}).hyperparams))
