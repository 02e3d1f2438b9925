"""The training loop: compiled calls of many steps, with records and validation between them."""

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
    init_state,
    is_finished,
    join_variables,
    split_variables,
    update_early_stopping,
)
from jaxlm.training.step import train_until
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.padding import pad_rows

_DEFAULT_LR = 0.1

# With `on_pause`, seconds that a compiled call takes, so that signals and progress bars are served in time.
_MIN_CALL_SECONDS, _MAX_CALL_SECONDS = 0.2, 0.5


class Record(NamedTuple):
    """One entry of the training log.

    >>> Record(step=0, train_loss=1.5, validation=None).train_loss
    1.5
    """

    step: int  # from 0
    train_loss: float  # mean nats per token of the step's batch, before the update
    validation: Evaluation | None  # on `val_ids`, after the update


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
    """Train a model on random windows of `train_ids` to minimize the mean nats per token.

    Host function; not for use inside `jit`.

    Step i trains on `get_batch(train_ids, N, batch_size, key=jax.random.fold_in(key, i))`. Dropout in step i uses
    `fold_in(fold_in(key, 2**31 - 2), i)`. Nothing else is random, so a resumed run ends in the same bits.

    Args:
        train_ids: integers [T], T > N.
        variables: initial variables, not modified; None means `init(model, jax.random.fold_in(key, 2**31 - 1))`.
            Only the collection "params" is trained if there is one, otherwise everything.
        val_ids: integers [T'], T' > N, evaluated after every recorded step.
        batch_size: windows per step.
        lr: learning rate of plain SGD.
        weight_decay: L2 coefficient of plain SGD; `weight_decay * param` is added to the gradient, as in PyTorch.
        optimizer: replaces plain SGD. Pass the same object again to reuse the compiled program.
        log_every: record the steps 0, log_every, 2 * log_every, ... and the last one.
        patience: stop after this many records in a row without a better validation, and return the variables of
            the best one. Its perplexity is optimistic, because it was selected on `val_ids`.
        on_record: called with each `Record`.
        state: resume from this state of `on_pause`; all other arguments must be those of the stopped run.
        on_pause: called with the state after each record, every `pause_every` steps, and a few times per second.
            The next step donates its arrays: copy what you keep. An exception raised here ends the training.

    Returns:
        the trained variables, and the history of this call, with one value per recorded step:
        `{"steps": [...], "train_losses": [...], "val_perplexities": [...]}`, the last empty without `val_ids`.

    Raises:
        FloatingPointError: a loss, or a param at a recorded step, is not finite; the message names the step.

    >>> from jaxlm import NeuralBigramLM
    >>> model, key = NeuralBigramLM(vocab_size=3, embedding_dim=4), jax.random.key(0)
    >>> variables, history = train_lm(model, [0, 1, 2] * 9, key=key, num_steps=50, lr=1.0)
    >>> history["steps"], history["train_losses"][-1] < 0.1
    ([0, 49], True)
    """
    check_at_least("batch_size", batch_size, 1)
    check_at_least("num_steps", num_steps, 0)
    check_at_least("log_every", log_every, 1)
    _check_optimizer(lr, weight_decay, optimizer)
    if patience is not None:
        check_at_least("patience", patience, 1)
        if val_ids is None:
            raise ValueError(f"patience={patience} needs a validation; pass val_ids")
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
    padded = pad_rows(np.asarray(train_stream), 0)
    params, constants, train_stream, key = jax.device_put((params, constants, padded, key), target_device)
    transformation = optimizer or plain_sgd(lr, weight_decay)
    fresh = init_state(model, transformation, key, join_variables(params, constants), patience=patience)
    if state is not None:
        check_state(state, fresh, num_steps)
    # Copied, because the loop donates the state, which holds the caller's arrays, perhaps twice in an optimizer.
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
        # Between records only the loss is checked, so that pauses do not change where a run fails.
        if not math.isfinite(loss) or (recorded and not params_are_finite):
            problem = "the params are no longer finite after" if math.isfinite(loss) else f"the loss is {loss} at"
            remedy = f"lower lr={lr}" if optimizer is None else "lower the learning rate"
            raise FloatingPointError(f"{problem} step {int(state.step) - 1}; {remedy}, or clip the gradient")
        if recorded:
            validation = None
            if val_ids is not None:
                trained = join_variables(state.params, constants)
                validation = evaluate(model, trained, val_ids, device=target_device)
                history["val_perplexities"].append(validation.perplexity)
                best = best and update_early_stopping(best, state.params, validation)
            history["steps"].append(step)
            history["train_losses"].append(loss)
            if on_record is not None:
                on_record(Record(step, loss, validation))
        state = state._replace(best=best)
        if on_pause is not None and params_are_finite:
            on_pause(state)
    params = state.params if state.best is None else state.best.params
    return join_variables(params, constants), history


def is_recorded(step: int, num_steps: int, log_every: int) -> bool:
    """Return whether a run of `num_steps` steps records `step`."""
    return step % log_every == 0 or step == num_steps - 1


def _check_optimizer(lr: float, weight_decay: float, optimizer: optax.GradientTransformation | None) -> None:
    for name, rate in (("lr", lr), ("weight_decay", weight_decay)):
        if callable(rate) or isinstance(rate, str):
            remedy = "for a schedule pass optimizer=optax.sgd(schedule)"
            raise TypeError(f"{name} must be a number, got {rate!r}; {remedy}")
        if not 0 <= rate < math.inf:
            raise ValueError(f"{name} must be finite and at least 0, got {rate}")
    if not isinstance(optimizer, optax.GradientTransformation | None):
        raise TypeError(
            f"optimizer must be an optax.GradientTransformation like optax.sgd(0.1), got {optimizer!r}"
        )
    if optimizer is not None and (lr, weight_decay) != (_DEFAULT_LR, 0.0):
        rates = f"lr={lr} and weight_decay={weight_decay}"
        raise ValueError(f"{rates} apply to the default SGD only; build them into optimizer=")


def _chunk_ends(
    step: int, num_steps: int, log_every: int, pause_every: int | None, *, by_clock: bool
) -> Iterator[int]:
    """Yield the steps at which compiled calls stop: after records, at multiples of `pause_every`, by the clock."""
    steps_per_call = 1 if by_clock else num_steps
    while step < num_steps:
        recorded = min(-(-step // log_every) * log_every, num_steps - 1)
        pause = num_steps if pause_every is None else step - step % pause_every + pause_every
        stop = min(recorded + 1, pause, step + steps_per_call)
        start = time.monotonic()
        yield stop
        seconds = time.monotonic() - start
        if by_clock and stop - step == steps_per_call:  # only a full call is a measurement
            if seconds < _MIN_CALL_SECONDS:
                steps_per_call *= 2
            elif seconds > _MAX_CALL_SECONDS:
                steps_per_call = max(steps_per_call // 2, 1)
        step = stop
