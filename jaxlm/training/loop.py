"""The training loop: compiled chunks of many steps, with records and validation between them."""

import functools
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
from jaxlm.models.interface import LanguageModel, num_params
from jaxlm.text.batching import check_stream
from jaxlm.training.optimizers import HyperparamState, sgd
from jaxlm.training.state import TrainState, check_state, init_state
from jaxlm.training.step import train_chunk
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.padding import pad_rows

_DEFAULT_LR = 0.1

# Seconds of a compiled chunk, so that signals and progress bars are served in time.
_MIN_CHUNK_SECONDS, _MAX_CHUNK_SECONDS = 0.2, 0.5


class Record(NamedTuple):
    """One entry of the training log.

    >>> Record(step=0, train_loss=1.5, validation=None).train_loss
    1.5
    """

    step: int  # from 0
    train_loss: float  # mean nats per token of the step's batch, before the update
    validation: Evaluation | None  # on `val_ids`, after the update


def train(
    model: LanguageModel,
    train_ids: ArrayLike,
    *,
    key: Array,
    variables: Any = None,
    state: TrainState | None = None,
    val_ids: ArrayLike | None = None,
    batch_size: int = 32,
    num_steps: int = 1000,
    lr: float | None = None,
    weight_decay: float = 0.0,
    optimizer: optax.GradientTransformation | None = None,
    log_every: int = 100,
    yield_every: int | None = None,
    device: str | jax.Device = "auto",
) -> Iterator[tuple[TrainState, Record | None]]:
    """Train a model as `train_lm` does, and yield the state at the start and after each compiled chunk of steps.

    Host function; not for use inside `jit`.

    A chunk takes at most about half a second. It ends at each recorded step, and the state then comes with its
    `Record`. The number of steps in a chunk does not change a bit of the result. To stop, leave the loop; to
    resume, pass the last state.

    Args:
        state: resume from this state; the other arguments must be those of the stopped run. The hyperparameters
            of `sgd` are taken from `optimizer`, not from the state.
        yield_every: also end a chunk at each multiple of this number of steps.
        model, train_ids, key, variables, val_ids, batch_size, num_steps, lr, weight_decay, optimizer, log_every,
            device: as in `train_lm`.

    Raises:
        FloatingPointError: as in `train_lm`.

    >>> from jaxlm import NeuralBigramLM
    >>> model, key = NeuralBigramLM(vocab_size=3, embedding_dim=4), jax.random.key(0)
    >>> for state, record in train(model, [0, 1, 2] * 9, key=key, num_steps=50, lr=1.0):
    ...     if record is not None and record.train_loss < 0.1:
    ...         print(record.step)
    49
    """
    check_at_least("batch_size", batch_size, 1)
    check_at_least("num_steps", num_steps, 0)
    check_at_least("log_every", log_every, 1)
    if yield_every is not None:
        check_at_least("yield_every", yield_every, 1)
    optimizer = _resolve_optimizer(optimizer, lr, weight_decay, num_steps)
    window_length = model.context_length + 1
    train_stream = check_stream(train_ids, model.vocab_size, min_length=window_length, name="train_ids")
    if val_ids is not None:
        val_ids = check_stream(val_ids, model.vocab_size, min_length=window_length, name="val_ids")
    make_state = functools.partial(init_state, model, optimizer, key=key)
    if state is None:
        state = make_state(variables=variables)
    else:
        check_state(state, jax.eval_shape(make_state, variables=variables), num_steps)
        if isinstance(state.opt_state, HyperparamState):
            hyperparams = optimizer.init(state.params).hyperparams
            state = state._replace(opt_state=state.opt_state._replace(hyperparams=hyperparams))
    target_device = resolve_device(device, num_weights=num_params(state.params))
    num_windows = len(train_stream) - model.context_length
    padded = pad_rows(np.asarray(train_stream), 0)
    data = jax.device_put((padded, num_windows, key), target_device)
    state = jax.device_put(state, target_device)
    # Equal for all optimizers that share an `update`, which is all that the compiled program uses.
    update_only = optimizer._replace(init=None)
    run_chunk = functools.partial(train_chunk, model, update_only, batch_size, *data)
    validate = None
    if val_ids is not None:
        validate = functools.partial(evaluate, model, ids=val_ids, device=target_device)
    return _iterate(state, run_chunk, validate, num_steps, log_every, yield_every)


def is_recorded(step: int, num_steps: int, log_every: int) -> bool:
    """Return whether a run of `num_steps` steps records `step`."""
    return step % log_every == 0 or step == num_steps - 1


def _resolve_optimizer(optimizer: Any, lr: float | None, weight_decay: float, num_steps: int) -> Any:
    """Return the optimizer to train with: SGD if `optimizer` is None."""
    if optimizer is None:
        return sgd(_DEFAULT_LR if lr is None else lr, num_steps, weight_decay=weight_decay)
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"optimizer must be an optax.GradientTransformation like optax.sgd(0.1), got {optimizer!r}"
        )
    if lr is not None or weight_decay != 0:
        rates = f"lr={lr} and weight_decay={weight_decay}"
        raise ValueError(f"{rates} apply to the default SGD only; build them into optimizer=")
    return optimizer


def _iterate(
    state: TrainState,
    run_chunk: Callable[..., tuple[TrainState, Array, Array]],
    validate: Callable[[Any], Evaluation] | None,
    num_steps: int,
    log_every: int,
    yield_every: int | None,
) -> Iterator[tuple[TrainState, Record | None]]:
    yield state, None
    step, max_steps = int(state.step), 1
    while step < num_steps:
        next_recorded = min(-(-step // log_every) * log_every, num_steps - 1)
        stop = min(next_recorded + 1, step + max_steps)
        if yield_every is not None:
            stop = min(stop, step - step % yield_every + yield_every)
        start = time.monotonic()
        state, *outcome = run_chunk(state, jax.device_put(np.int32(stop)))
        train_loss, params_are_finite = map(float, jax.device_get(outcome))
        seconds = time.monotonic() - start
        recorded = stop - 1 == next_recorded
        # Between records only the loss is checked, so that chunks do not change where a run fails.
        if not math.isfinite(train_loss) or (recorded and not params_are_finite):
            problem = "the params are no longer finite after"
            if not math.isfinite(train_loss):
                problem = f"the loss is {train_loss} at"
            raise FloatingPointError(
                f"{problem} step {int(state.step) - 1}; lower the learning rate, or clip the gradient"
            )
        record = None
        if recorded:
            record = Record(stop - 1, train_loss, validate(state.variables) if validate else None)
        if params_are_finite:
            yield state, record
        if stop == step + max_steps:  # only a full chunk is a measurement
            if seconds < _MIN_CHUNK_SECONDS:
                max_steps *= 2
            elif seconds > _MAX_CHUNK_SECONDS:
                max_steps = max(max_steps // 2, 1)
        step = stop
