"""One training step, and the compiled loop over many steps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from jaxlm.evaluation.loss import token_nats
from jaxlm.models.interface import LanguageModel, compute_training_logits
from jaxlm.text.batching import random_windows
from jaxlm.training.optimizers import plain_sgd
from jaxlm.training.state import DROPOUT_FOLD, TrainState, join_variables
from jaxlm.utils.keys import vmap_over_steps

# Batches are drawn ahead of the loop, for many steps at once: at most this many steps, and about this many ids.
_MAX_STEPS_PER_DRAW = 32
_MAX_IDS_PER_DRAW = 2**14


def train_step(
    model: LanguageModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    constants: Any,
    contexts: Array,
    targets: Array,
    key: Array,
) -> tuple[TrainState, Array]:
    """Return the state after one step on contexts [B, N] and targets [B], and the loss before it, float32 [].

    A pure function, for use inside `jit`, `vmap` and `scan`. The loss is the mean nats per token.

    Args:
        constants: the collections that are not trained, from `split_variables`.
        key: key of the run; dropout in step i uses `fold_in(fold_in(key, 2**31 - 2), i)`.

    >>> from jaxlm import NeuralBigramLM
    >>> from jaxlm.training.state import init_state
    >>> model, optimizer, key = NeuralBigramLM(5, embedding_dim=2), optax.sgd(0.1), jax.random.key(0)
    >>> state = init_state(model, optimizer, key)
    >>> train_step(model, optimizer, state, {}, jnp.array([[0]]), jnp.array([1]), key)[0].step
    Array(1, dtype=int32)
    """
    dropout_key = jax.random.fold_in(jax.random.fold_in(key, DROPOUT_FOLD), state.step)

    def mean_nats(params: Any) -> Array:
        logits = compute_training_logits(model, join_variables(params, constants), contexts, dropout_key)
        return token_nats(logits, targets).mean()

    loss, gradients = jax.value_and_grad(mean_nats)(state.params)
    # For line searches and for learning rates that depend on the loss.
    extra_args = {"value": loss, "grad": gradients, "value_fn": mean_nats}
    update = optax.with_extra_args_support(optimizer).update
    updates, opt_state = update(gradients, state.opt_state, state.params, **extra_args)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, opt_state), loss.astype(jnp.float32)


def draw_batches(
    model: LanguageModel, batch_size: int, train_ids: Array, num_windows: Array, key: Array, first_step: Array
) -> tuple[Array, Array]:
    """Draw the batches of S steps from `first_step` on: contexts [S, B, N] and targets [S, B].

    The batch of step i is `get_batch(train_ids, N, batch_size, key=jax.random.fold_in(key, i))`.
    """
    num_steps = min(_MAX_STEPS_PER_DRAW, max(_MAX_IDS_PER_DRAW // (batch_size * (model.context_length + 1)), 1))

    def draw(step_key: Array) -> tuple[Array, Array]:
        return random_windows(train_ids, num_windows, model.context_length, batch_size, key=step_key)

    return vmap_over_steps(draw, key, first_step + jnp.arange(num_steps))


def run_steps(
    draw: Callable[[Array], Any], step: Callable[..., Any], is_unfinished: Callable[..., Array], carry: Any
) -> Any:
    """Apply `step(state, contexts, targets)` to the batches of `draw(state.step)` while `is_unfinished(*carry)`.

    `carry` is the state and the loss, and `step` returns both.
    """

    def run_drawn_steps(carry: Any) -> Any:
        first_step = carry[0].step
        contexts, targets = draw(first_step)
        stop = first_step + len(targets)

        def run_step(carry: Any) -> Any:
            i = carry[0].step - first_step
            return step(carry[0], contexts[i], targets[i])

        return lax.while_loop(lambda carry: is_unfinished(*carry) & (carry[0].step < stop), run_step, carry)

    return lax.while_loop(lambda carry: is_unfinished(*carry), run_drawn_steps, carry)


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "batch_size"), donate_argnames=("state",))
def train_until(
    model: LanguageModel,
    optimizer: optax.GradientTransformation | None,
    batch_size: int,
    state: TrainState,
    constants: Any,
    train_ids: Array,
    key: Array,
    num_windows: Array,
    stop: Array,
    lr: Array,
    weight_decay: Array,
) -> tuple[TrainState, Array, Array]:
    """Train up to step `stop`, or until a loss is not finite.

    Return the state, the loss of the last step, and whether all params are finite. `num_windows`, `stop`, `lr` and
    `weight_decay` are traced, so that other values do not recompile.
    """
    step = functools.partial(train_step, model, optimizer or plain_sgd(lr, weight_decay))
    state, loss = run_steps(
        functools.partial(draw_batches, model, batch_size, train_ids, num_windows, key),
        lambda state, contexts, targets: step(state, constants, contexts, targets, key),
        lambda state, loss: (state.step < stop) & jnp.isfinite(loss),
        (state, jnp.float32(0)),
    )
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]
    return state, loss, jnp.stack(finite).all()
