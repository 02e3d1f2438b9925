"""step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from jaxlm.evaluation.loss import token_nats
from jaxlm.models.interface import LanguageModel, compute_training_logits
from jaxlm.text.batching import random_windows
from jaxlm.training.optimizers import plain_sgd
from jaxlm.training.state import NOISE_FOLD, TrainState, join_variables
from jaxlm.utils.keys import vmap_over_steps

# Steps whose windows are drawn at once; fewer where they would hold more ids than that.
_STEPS_PER_DRAW = 32
_IDS_PER_DRAW = 2**14

# Seconds between two pauses: long enough to cost nothing, short enough for one who waits for a run to stop.


def train_step(
    model: LanguageModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    constants: Any,
    contexts: Array,
    targets: Array,
    key: Array,
) -> tuple[TrainState, Array]:
    """The state after a step on contexts [B, N] and targets [B], and the loss before it: mean nats per token.

    `key` is the run's; the noise of a model that has some is `fold_in(fold_in(key, 2**31 - 2), step)`.
    """
    noise_key = jax.random.fold_in(jax.random.fold_in(key, NOISE_FOLD), state.step)

    def mean_nats(params: Any) -> Array:
        logits = compute_training_logits(model, join_variables(params, constants), contexts, noise_key)
        return token_nats(logits, targets).mean()

    loss, gradients = jax.value_and_grad(mean_nats)(state.params)
    updates, opt_state = optax.with_extra_args_support(optimizer).update(
        gradients,
        state.opt_state,
        state.params,
        # For those of optax's transformations that ask for more: plateaus, line searches.
        value=loss,
        grad=gradients,
        value_fn=mean_nats,
    )
    return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state), loss.astype(
        jnp.float32
    )


def steps_per_draw(model: LanguageModel, batch_size: int) -> int:
    """How many steps' windows are drawn at once."""
    return min(_STEPS_PER_DRAW, max(_IDS_PER_DRAW // (batch_size * (model.context_length + 1)), 1))


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
    """Trains up to step `stop`, or until a loss is not finite.

    Also returns the last step's loss, and whether all params are finite after it.

    `num_windows`, `stop`, `lr` and `weight_decay` are arguments of the compiled loop: no value compiles anew.
    """
    transformation = optimizer or plain_sgd(lr, weight_decay)

    def unfinished(carry: tuple[TrainState, Array]) -> Array:
        state, loss = carry
        return (state.step < stop) & jnp.isfinite(loss)

    def draw_windows(step_key: Array) -> tuple[Array, Array]:
        return random_windows(train_ids, num_windows, model.context_length, batch_size, key=step_key)

    def train_steps(carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
        first_step = carry[0].step
        num_steps = steps_per_draw(model, batch_size)
        windows = vmap_over_steps(draw_windows, key, first_step + jnp.arange(num_steps))

        def drawn(carry: tuple[TrainState, Array]) -> Array:
            return unfinished(carry) & (carry[0].step < first_step + num_steps)

        def step(carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
            state, _ = carry
            contexts, targets = jax.tree.map(lambda each: each[state.step - first_step], windows)
            return train_step(model, transformation, state, constants, contexts, targets, key)

        return lax.while_loop(drawn, step, carry)

    state, loss = lax.while_loop(unfinished, train_steps, (state, jnp.float32(0)))
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]
    return state, loss, jnp.stack(finite).all()
