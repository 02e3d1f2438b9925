"""Training by gradient descent: one compiled loop for every model."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array
from numpy.typing import ArrayLike

from jaxlm.devices.selection import resolve_device
from jaxlm.evaluation.evaluate import Evaluation, evaluate
from jaxlm.models.interface import LanguageModel, init, num_params
from jaxlm.text.batching import check_stream
from jaxlm.training.optimizers import plain_sgd
from jaxlm.training.state import (
    INIT_FOLD,
    TrainState,
    check_state,
    copy_arrays,
    is_finished,
    join_variables,
    make_state,
    split_variables,
    update_early_stopping,
)
from jaxlm.training.step import train_until
from jaxlm.utils.checks import check_at_least

_DEFAULT_LR = 0.1

# Seconds of one compiled call, so that a loop hears a signal and a bar moves.
_LEAST_PAUSE, _MOST_PAUSE = 0.2, 0.5


class Record(NamedTuple):
    """What is written down at a recorded step: its minibatch loss in nats, and the validation after it."""

    step: int
    train_loss: float
    validation: Evaluation | None


def train_lm(
    model: LanguageModel,
    train_ids: ArrayLike,
    *,
    key: Array,
    variables: Any = None,
    val_ids: ArrayLike | None = None,
    batch_size: int = 32,
    num_steps: int = 1000,
    lr: float = _DEFAULT_LR,
    weight_decay: float = 0.0,
    optimizer: optax.GradientTransformation | None = None,
    log_every: int = 100,
    patience: int | None = None,
    device: str | jax.Device = "auto",
    on_record: Callable[[Record], None] | None = None,
    state: TrainState | None = None,
    on_pause: Callable[[TrainState], None] | None = None,
    pause_every: int | None = None,
) -> tuple[Any, dict[str, list[Any]]]:
    """Minimises the mean nats per token of random windows of `train_ids`.

    Step i trains on `get_batch(train_ids, N, batch_size, key=jax.random.fold_in(key, i))` and on nothing else
    random, so how the steps are grouped, or a stop and a later call that goes on, changes no bit of the result.
    (The noise of a model with dropout is another: `fold_in(fold_in(key, 2**31 - 2), i)`.)

    Args:
        train_ids: integers [T].
        variables: where to start; None means `init(model, jax.random.fold_in(key, 2**31 - 1))`. They are
            copied, never donated. Where they have a "params" collection it is trained and the rest is
            constant; otherwise all of them are trained.
        val_ids: integers [T'], scored after every recorded step.
        lr: the learning rate of plain SGD.
        weight_decay: L2, added to the gradient as `weight_decay * param` (as PyTorch's SGD does).
        optimizer: any `optax.GradientTransformation` instead of that SGD; build it once and pass the same
            object, and a second call compiles nothing.
        log_every: recorded are steps 0, log_every, 2 * log_every, ... and the last, once each.
        patience: end the training when so many records in a row brought no better validation than the best
            before them; None never does. With it, the params of the best validation are returned;
            their figure there flatters them.
        on_record: called with each `Record` as soon as it is there.
        state: where a stopped call goes on, as `on_pause` was given it; all other arguments are that call's.
        on_pause: called with the state between two steps: after every recorded one (and its record), every
            `pause_every` steps, and else a few times a second. The next step takes its arrays over: copy what is
            to be kept (`jax.device_get`, and `np.array` of that). What it raises ends the training.

    Returns:
        the trained variables (with `patience` the best), and `{"steps": [...], "train_losses": [...],
        "val_perplexities": [...]}` of the steps recorded by this call (the last empty without `val_ids`).

    Raises:
        TypeError: the model has no floating-point variables to train (counts: call its `fit`).
        ValueError: an argument is out of its range, or the text shorter than one window.
        FloatingPointError: a loss, or a param at a recorded step, is not finite; the message names the step.
    """
    _check_options(batch_size, num_steps, lr, weight_decay, optimizer, log_every)
    if patience is not None:
        check_at_least("patience", patience, 1)
        if val_ids is None:
            raise ValueError(f"patience={patience} waits for a better validation; pass val_ids")
    if pause_every is not None:
        check_at_least("pause_every", pause_every, 1)
    window_length = model.context_length + 1
    train_stream = check_stream(train_ids, model.vocab_size, min_length=window_length, name="train_ids")
    if val_ids is not None:
        val_ids = check_stream(val_ids, model.vocab_size, min_length=window_length, name="val_ids")
    if variables is None:
        variables = init(model, jax.random.fold_in(key, INIT_FOLD))
    params, constants = split_variables(model, variables)
    target_device = resolve_device(device, num_weights=num_params(params))
    num_windows = len(train_stream) - model.context_length
    params, constants, train_stream, key = jax.device_put(
        (params, constants, padded(train_stream), key), target_device
    )
    fresh = make_state(params, optimizer or plain_sgd(lr, weight_decay), keeps_best=patience is not None)
    if state is not None:
        check_state(state, fresh, num_steps)
    # The loop donates its state: a copy, for the caller's params are in it, and an optimizer may hold them twice.
    state = jax.device_put(copy_arrays(fresh if state is None else state), target_device)
    history: dict[str, list[Any]] = {"steps": [], "train_losses": [], "val_perplexities": []}
    for stop in _chunk_ends(int(state.step), num_steps, log_every, pause_every, by_clock=on_pause is not None):
        if is_finished(state, num_steps, patience):
            break
        numbers = jax.device_put((num_windows, stop, float(lr), float(weight_decay)), target_device)
        best = state.best
        state, *outcome = train_until(
            model, optimizer, batch_size, state._replace(best=None), constants, train_stream, key, *numbers
        )
        loss, params_are_finite = map(float, jax.device_get(outcome))
        step = stop - 1
        recorded = is_recorded(step, num_steps, log_every)
        # Params between two recorded steps wait for the next loss or record to tell, so that no pause matters.
        if not math.isfinite(loss) or (recorded and not params_are_finite):
            broken = "the params are no longer finite after" if math.isfinite(loss) else f"the loss is {loss} at"
            remedy = f"lower lr={lr}" if optimizer is None else "lower the learning rate"
            raise FloatingPointError(f"{broken} step {int(state.step) - 1}; {remedy}, or clip the gradient")
        if recorded:
            validation = None
            if val_ids is not None:
                validation = evaluate(
                    model, join_variables(state.params, constants), val_ids, device=target_device
                )
                history["val_perplexities"].append(validation.perplexity)
                best = update_early_stopping(best, state.params, validation)
            history["steps"].append(step)
            history["train_losses"].append(loss)
            if on_record is not None:
                on_record(Record(step, loss, validation))
        state = state._replace(best=best)
        if on_pause is not None and params_are_finite:
            on_pause(state)
    trained = state.params if state.best is None else state.best.params
    return join_variables(trained, constants), history


def is_recorded(step: int, num_steps: int, log_every: int) -> bool:
    """Whether a run of `num_steps` records `step`: steps 0, log_every, 2 * log_every, ... and the last one are.

    >>> [step for step in range(10) if is_recorded(step, num_steps=10, log_every=4)]
    [0, 4, 8, 9]
    """
    return step % log_every == 0 or step == num_steps - 1


def _check_options(
    batch_size: int,
    num_steps: int,
    lr: float,
    weight_decay: float,
    optimizer: optax.GradientTransformation | None,
    log_every: int,
) -> None:
    check_at_least("batch_size", batch_size, 1)
    check_at_least("num_steps", num_steps, 0)
    check_at_least("log_every", log_every, 1)
    for name, rate in (("lr", lr), ("weight_decay", weight_decay)):
        if callable(rate) or isinstance(rate, str):
            raise TypeError(
                f"{name} must be a number, got {rate!r}; for a schedule pass optimizer=optax.sgd(schedule)"
            )
        if not 0 <= rate < math.inf:
            raise ValueError(f"{name} must be finite and at least 0, got {rate}")
    if not isinstance(optimizer, optax.GradientTransformation | None):
        raise TypeError(
            f"optimizer must be an optax.GradientTransformation, as optax.adam(1e-3) is, got {optimizer!r}"
        )
    if optimizer is not None and (lr, weight_decay) != (_DEFAULT_LR, 0.0):
        raise ValueError(
            f"lr={lr} and weight_decay={weight_decay} are for the default SGD; build them into optimizer="
        )


def padded(ids: ArrayLike) -> np.ndarray[Any, Any]:
    """`ids` with zeros behind, by an eighth at most, so that texts of many lengths share one compilation."""
    stream = np.asarray(ids)
    granule = 1 << max(len(stream).bit_length() - 4, 0)
    return np.pad(stream, (0, -len(stream) % granule))


def _chunk_ends(
    step: int, num_steps: int, log_every: int, pause_every: int | None, *, by_clock: bool
) -> Iterator[int]:
    """Where each compiled call stops: after recorded steps, at multiples of `pause_every`, and `by_clock`."""
    steps_per_call = 1 if by_clock else num_steps
    while step < num_steps:
        recorded = min(-(-step // log_every) * log_every, num_steps - 1)
        pause = num_steps if pause_every is None else step - step % pause_every + pause_every
        stop = min(recorded + 1, pause, step + steps_per_call)
        begin = time.monotonic()
        yield stop
        seconds = time.monotonic() - begin
        if by_clock and stop - step == steps_per_call:  # a shorter call says less of the clock
            if seconds < _LEAST_PAUSE:
                steps_per_call *= 2
            elif seconds > _MOST_PAUSE:
                steps_per_call = max(steps_per_call // 2, 1)
        step = stop
