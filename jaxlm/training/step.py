"""One training step, and the compiled loop over many steps."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.sharding import Mesh

from jaxlm._types import Contexts, FloatScalar, IntB, Integers, IntScalar, KeyLike
from jaxlm.devices.mesh import partition, shard_map
from jaxlm.evaluation.loss import token_nats
from jaxlm.models.interface import LanguageModel, compute_logits
from jaxlm.models.jit import jit_model
from jaxlm.training.sharding import average_over_batch
from jaxlm.training.state import DROPOUT_FOLD, TrainState
from jaxlm.utils.keys import check_key

# The `vmap` axes of the state of R runs. All runs share the step, so that the loop condition is one scalar. With a
# condition per run, `vmap` would select between old and new arrays in every step.
SWEEP_AXES: Any = TrainState(None, 0, 0, 0)  # type: ignore[arg-type]


def train_step(
    model: LanguageModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: tuple[Contexts, IntB],
    *,
    key: KeyLike,
    axis_name: str | None = None,
    grad_shards: int | None = None,
) -> tuple[TrainState, FloatScalar]:
    """Take one training step on a batch. Return the new state, and the loss before the step.

    A pure function, for use inside `jit`, `vmap` and `scan`. The loss is the mean nats per token. With the batches
    below, the result is bit-identical to that of `train_lm`.

    Args:
        optimizer: the optimizer of `init_state`. `sgd` reads its hyperparameters from the state.
        batch: contexts and targets, as from `get_batch`.
        key: key of the run, the same in every step; under `vmap`, a threefry key (JAX's default). Dropout in step
            i uses `fold_in(fold_in(key, 2**31 - 2), i)`.
        axis_name: inside `shard_map`, the mesh axis over whose devices the rows of the batch are split.
        grad_shards: S, the number of parts of the batch whose gradients are added in a fixed order.

    >>> from jaxlm import NeuralBigramLM, get_batch, init_state, sgd
    >>> model, optimizer = NeuralBigramLM(vocab_size=3, embedding_dim=4), sgd(1.0, num_steps=50)
    >>> ids, key = jnp.array([0, 1, 2] * 9), jax.random.key(0)
    >>> def step(state, _):
    ...     batch = get_batch(ids, 1, 32, key=jax.random.fold_in(key, state.step))
    ...     return train_step(model, optimizer, state, batch, key=key)
    >>> state, losses = lax.scan(step, init_state(model, optimizer, key=key), length=50)
    >>> bool(losses[-1] < 0.1)
    True
    """
    dropout_key = jax.random.fold_in(jax.random.fold_in(check_key(key), DROPOUT_FOLD), state.step)

    def mean_nats(params: Any, batch: Any, key: KeyLike) -> FloatScalar:
        (contexts, targets), variables = batch, state._replace(params=params).variables
        return token_nats(compute_logits(model, variables, contexts, key=key), targets).mean()

    def average(fun: Any, params: Any) -> Any:
        return average_over_batch(functools.partial(fun, params), batch, dropout_key, axis_name, grad_shards)

    value_fn: Any = functools.partial(average, mean_nats)
    value_and_grad = functools.partial(average, jax.value_and_grad(mean_nats))
    if axis_name is not None:  # JAX cannot differentiate the communication of the devices
        value_fn = jax.custom_vjp(value_fn)
        value_fn.defvjp(value_and_grad, lambda grad, scale: (jax.tree.map(lambda leaf: scale * leaf, grad),))
    loss, grad = value_and_grad(state.params)
    with jax.named_scope("update"):
        update = optax.with_extra_args_support(optimizer).update
        # The additional arguments are for line searches and for rates that depend on the loss.
        updates, opt_state = update(grad, state.opt_state, state.params, value=loss, grad=grad, value_fn=value_fn)
        params = optax.apply_updates(state.params, updates)
    return state._replace(step=state.step + 1, params=params, opt_state=opt_state), loss.astype(jnp.float32)


@functools.partial(jit_model, static_argnames=("optimizer", "mesh", "grad_shards"))
def train_chunk(
    model: LanguageModel,
    optimizer: optax.GradientTransformation,
    windows: Integers,
    key: Array,
    state: TrainState,
    stop: IntScalar,
    mesh: Mesh | None = None,
    grad_shards: int | None = None,
) -> tuple[TrainState, Array, Array]:
    """Train up to step `stop`: one run, or R runs at once if `key` has shape [R] and `state` holds R runs.

    Return the state, the loss of the last step, and whether all parameters are finite, both [] or [R]. A single
    run stops after a non-finite loss; a sweep does not.

    Args:
        windows: the block of `iterate_blocks` that has the steps from `state.step` to `stop - 1`.
        stop: traced, so that another value does not recompile.
        mesh: devices that share the rows of each batch of a single run.
    """
    is_sweep = key.ndim == 1

    def run(
        windows: Integers, key: Array, state: TrainState, stop: IntScalar, **sharding: Any
    ) -> tuple[TrainState, Array, Array]:
        step: Any = functools.partial(train_step, model, optimizer, **sharding)
        if is_sweep:
            step = jax.vmap(step, in_axes=(SWEEP_AXES, 0), out_axes=(SWEEP_AXES, 0))

        def is_unfinished(carry: tuple[TrainState, Array]) -> Array:
            state, loss = carry
            return (state.step < stop) & (is_sweep | jnp.isfinite(loss).all())

        def run_step(carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
            state, _ = carry
            batch = windows[state.step % len(windows)]
            return step(state, (batch[..., :-1], batch[..., -1]), key=key)

        state, loss = lax.while_loop(is_unfinished, run_step, (state, jnp.zeros(key.shape, jnp.float32)))
        leaves = [jnp.isfinite(leaf).reshape(*key.shape, -1) for leaf in jax.tree.leaves(state.params)]
        return state, loss, jnp.stack([leaf.all(axis=-1) for leaf in leaves]).all(axis=0)

    if mesh is not None:
        (axis,) = mesh.axis_names
        specs = partition(None, axis), *3 * [partition()]
        run = shard_map(functools.partial(run, axis_name=axis, grad_shards=grad_shards), mesh, specs, partition())
    return run(windows, key, state, stop)
