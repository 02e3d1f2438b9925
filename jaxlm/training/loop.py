"""Train one model: compiled chunks of many steps, with records and validation between them."""

import functools
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypedDict, cast

import jax
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, Sharding, SingleDeviceSharding
from numpy.typing import ArrayLike

from jaxlm._types import Device, Variables
from jaxlm.devices.mesh import check_placement, max_over_processes, put, sharding_of, to_local
from jaxlm.devices.selection import resolve_device
from jaxlm.evaluation.evaluate import evaluate
from jaxlm.models.interface import LanguageModel, num_params
from jaxlm.models.jit import check_model
from jaxlm.text.batching import check_stream
from jaxlm.text.token_stream import TokenStream
from jaxlm.training.blocks import iterate_blocks
from jaxlm.training.early_stopping import stop_early
from jaxlm.training.optimizers import sgd
from jaxlm.training.sharding import check_sharding
from jaxlm.training.state import Record, TrainState, init_state, resume_state
from jaxlm.training.step import train_chunk
from jaxlm.utils.checks import check_at_least, check_not_traced
from jaxlm.utils.keys import check_key

_CHUNK_SECONDS = 0.3  # target duration of a compiled chunk, so that signals and progress bars are handled in time


class History(TypedDict):
    """The log of a training run, with one value per recorded step."""

    steps: list[int]
    train_losses: list[float]
    val_perplexities: list[float]  # empty without validation


def train_lm(
    model: LanguageModel,
    train_ids: ArrayLike,
    *,
    key: Array,
    variables: Variables = None,
    val_ids: ArrayLike | None = None,
    batch_size: int = 32,
    num_steps: int = 1000,
    lr: float | None = None,
    weight_decay: float = 0.0,
    optimizer: optax.GradientTransformation | None = None,
    log_every: int = 100,
    patience: int | None = None,
    device: Device = "auto",
    mesh: Mesh | None = None,
    grad_shards: int | None = None,
) -> tuple[Variables, History]:
    """Train a model on random windows of `train_ids` to minimize the mean nats per token.

    Host function; not for use inside `jit`: use `init_state` and `train_step` there.

    Step i trains on `get_batch(train_ids, N, batch_size, key=jax.random.fold_in(key, i))`. Dropout in step i uses
    `fold_in(fold_in(key, 2**31 - 2), i)`. Nothing else is random, so the result of a resumed run is bit-identical.

    Args:
        train_ids: integers [T], T > N; of a memory map or a `TokenStream`, each step reads only its windows.
        variables: initial variables, not modified; None means `init(model, jax.random.fold_in(key, 2**31 - 1))`.
            Only the collection "params" is trained if there is one, otherwise everything.
        val_ids: integers [T'], T' > N, evaluated after every recorded step.
        batch_size: windows per step.
        lr: learning rate of SGD; None means 0.1.
        weight_decay: L2 coefficient of SGD; `weight_decay * param` is added to the gradient, as in PyTorch.
        optimizer: an Optax optimizer instead of SGD; then leave `lr` and `weight_decay` unset. `jaxlm.sgd` has
            schedules and momentum. To reuse the compiled program of another optimizer, pass the same object again.
        log_every: record the steps 0, log_every, 2 * log_every, ... and the last one.
        patience: stop after this many consecutive records without a lower validation loss, and return the best
            variables. Their perplexity is optimistic, because they were selected on `val_ids`.
        mesh: devices that share the rows of each batch instead of `device`, such as `Mesh(devices, ("data",))`. If
            several processes have them, all make the same call. The losses differ from those of one device by
            rounding and, without `grad_shards`, by the masks of dropout.
        grad_shards: S, a multiple of the number of devices. The gradients of S parts of each batch are added in a
            fixed order, so that any number of devices gives the same bits.

    Returns:
        the trained variables, and the history, with one value per recorded step:
        `{"steps": [...], "train_losses": [...], "val_perplexities": [...]}`, the last empty without `val_ids`.
        `pandas.DataFrame({name: values for name, values in history.items() if values})` is a table of it.

    Raises:
        FloatingPointError: the loss, or a parameter at a recorded step, is not finite; the message names the step.
        TypeError: the model has counts instead of parameters, or is not hashable, or the call is traced.
        ValueError: an argument is out of range, or `patience` is set without `val_ids`.

    >>> from jaxlm import NeuralBigramLM
    >>> model, key = NeuralBigramLM(vocab_size=3, embedding_dim=4), jax.random.key(0)
    >>> variables, history = train_lm(model, [0, 1, 2] * 9, key=key, num_steps=50, lr=1.0)
    >>> history["steps"], history["train_losses"][-1] < 0.1
    ([0, 49], True)
    """
    training = train(
        model,
        train_ids,
        key=key,
        variables=variables,
        val_ids=val_ids,
        batch_size=batch_size,
        num_steps=num_steps,
        lr=lr,
        weight_decay=weight_decay,
        optimizer=optimizer,
        log_every=log_every,
        device=device,
        mesh=mesh,
        grad_shards=grad_shards,
    )
    if patience is not None:
        items = stop_early(training, patience)
        training = ((state._replace(params=best.params), record) for state, record, best in items)
    records = []
    for state, record in training:
        variables = state.variables
        records.append(record)
    return to_local(variables), make_history(records)


def make_history(records: Iterable[Record | None]) -> History:
    """Return the values of records as lists. None is ignored."""
    logged = [record for record in records if record is not None]
    return History(
        steps=[record.step for record in logged],
        train_losses=[record.train_loss for record in logged],
        val_perplexities=[record.validation.perplexity for record in logged if record.validation is not None],
    )


def train(
    model: LanguageModel,
    train_ids: ArrayLike,
    *,
    key: Array,
    variables: Variables = None,
    state: TrainState | None = None,
    val_ids: ArrayLike | None = None,
    batch_size: int = 32,
    num_steps: int = 1000,
    lr: float | None = None,
    weight_decay: float = 0.0,
    optimizer: optax.GradientTransformation | None = None,
    log_every: int = 100,
    yield_every: int | None = None,
    device: Device = "auto",
    mesh: Mesh | None = None,
    grad_shards: int | None = None,
) -> Iterator[tuple[TrainState, Record | None]]:
    """Train a model like `train_lm`; yield `(state, record)` at the start and after each compiled chunk of steps.

    Host function; not for use inside `jit`.

    The arrays of the states are replicated over the mesh, if there is one; `jaxlm.evaluate` and `train` take them.
    A chunk takes about 0.3 seconds. It ends at each recorded step; its `Record` is then yielded with the state,
    otherwise None. The lengths of the chunks do not affect the result. To stop, break out of the loop. To resume,
    pass the last state.

    Args:
        state: resume from this state; the other arguments must be those of the stopped run. Only the
            hyperparameters of a bare `sgd` may change; inside `optax.chain`, those of the state are kept.
        yield_every: also end a chunk at each multiple of this number of steps.

    All other arguments, and the errors, are those of `train_lm`.

    >>> from jaxlm import NeuralBigramLM
    >>> model, key = NeuralBigramLM(vocab_size=3, embedding_dim=4), jax.random.key(0)
    >>> for state, record in train(model, [0, 1, 2] * 9, key=key, num_steps=50, lr=1.0):
    ...     if record is not None and record.train_loss < 0.1:
    ...         print(record.step)
    49
    """
    check_not_traced("train", "init_state and train_step", train_ids, key, variables, state, lr, weight_decay)
    optimizer = _resolve_optimizer(optimizer, lr, weight_decay, num_steps)
    key = check_key(key)
    check_placement(device, mesh)
    if yield_every is not None:
        check_at_least("yield_every", yield_every, 1)
    stream, val_ids = check_training(model, train_ids, val_ids, batch_size, num_steps, log_every)
    make_state = functools.partial(init_state, model, optimizer, key=key, variables=variables)
    if state is None:
        state = make_state()
    else:
        state = resume_state(state, jax.eval_shape(make_state), optimizer, num_steps)
    if mesh is None:
        device = resolve_device(device, num_weights=num_params(state.params))
        mesh = None if grad_shards is None else Mesh(np.array([device]), ("data",))
    if mesh is None:
        replicated = by_row = cast(Sharding, SingleDeviceSharding(device))
    else:
        axis = check_sharding(mesh, grad_shards, batch_size)
        device, replicated, by_row = "auto", sharding_of(mesh), sharding_of(mesh, None, axis)
    placement: Any = {"device": device, "mesh": mesh, "num_shards": grad_shards}
    # The compiled program uses only `update`, so optimizers that share it share the program.
    update_only = optimizer._replace(init=None)

    def iterate(state: TrainState, run_key: Array) -> Iterator[tuple[TrainState, Record | None]]:
        yield state, None
        step, max_steps, interval = int(state.step), 1, yield_every or num_steps
        steps = range(step, num_steps)
        blocks = iterate_blocks(stream, model.context_length, batch_size, steps, key=key, sharding=by_row)
        for block_stop, windows in blocks:
            while step < block_stop:
                record_stop = next_record(step, num_steps, log_every) + 1
                stop = min(record_stop, block_stop, step + max_steps, step - step % interval + interval)
                begin = time.monotonic()
                end = put(np.int32(stop), replicated)
                state, *outcome = train_chunk(model, update_only, windows, run_key, state, end, mesh, grad_shards)
                loss, is_finite = map(float, jax.device_get(outcome))
                seconds = max_over_processes(time.monotonic() - begin, mesh)  # all choose the same next chunk
                # Checking the parameters only at records makes the failing step independent of the chunks.
                if not math.isfinite(loss) or (stop == record_stop and not is_finite):
                    raise _diverged(int(state.step) - 1, loss)
                validation = None
                if stop == record_stop and val_ids is not None:
                    validation = evaluate(model, state.variables, val_ids, **placement)
                if is_finite:
                    yield state, Record(stop - 1, loss, validation) if stop == record_stop else None
                if stop == step + max_steps:  # only a full chunk is measured
                    max_steps = max(1, min(16 * max_steps, round(max_steps * _CHUNK_SECONDS / max(seconds, 1e-3))))
                step = stop

    return iterate(*put((state, key), replicated))


def _diverged(step: int, loss: float) -> FloatingPointError:
    problem = "the parameters are not finite after" if math.isfinite(loss) else f"the loss is {loss} at"
    return FloatingPointError(f"{problem} step {step}; lower the learning rate, or clip the gradient")


def check_training(
    model: LanguageModel, train_ids: Any, val_ids: Any, batch_size: int, num_steps: int, log_every: int
) -> tuple[TokenStream, TokenStream | None]:
    """Check the arguments that `train` and `train_many` share. Return the streams for training and validation."""
    check_model(model)
    check_at_least("batch_size", batch_size, 1)
    check_at_least("num_steps", num_steps, 0)
    check_at_least("log_every", log_every, 1)
    window_length = model.context_length + 1
    stream = check_stream(train_ids, model.vocab_size, min_length=window_length, name="train_ids")
    if val_ids is not None:
        val_ids = check_stream(val_ids, model.vocab_size, min_length=window_length, name="val_ids")
    return stream, val_ids


def next_record(step: int, num_steps: int, log_every: int) -> int:
    """Return the first recorded step at or after `step`, in a run of `num_steps` steps."""
    return min(-(-step // log_every) * log_every, num_steps - 1)


def _resolve_optimizer(optimizer: Any, lr: float | None, weight_decay: float, num_steps: int) -> Any:
    """Return the optimizer to train with: SGD if `optimizer` is None."""
    if optimizer is None:
        return sgd(0.1 if lr is None else lr, num_steps, weight_decay=weight_decay)
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"optimizer must be an optax.GradientTransformation like optax.sgd(0.1), got {optimizer!r}"
        )
    if lr is not None or weight_decay != 0:
        raise ValueError(f"{lr=} and {weight_decay=} apply to the default SGD only; pass them to your optimizer")
    return optimizer
