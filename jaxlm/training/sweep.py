"""Sweeps: many training runs, one per seed and set of hyperparameters, as one vmapped program."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import ArrayLike, NDArray

from jaxlm._types import Device, FloatScalar, KeyLike, Variables
from jaxlm.devices.selection import resolve_device
from jaxlm.evaluation.evaluate import Evaluation, evaluate
from jaxlm.models.interface import LanguageModel, num_init_params
from jaxlm.models.jit import jit_model
from jaxlm.training.blocks import iterate_blocks
from jaxlm.training.loop import History, check_training, is_recorded, make_history
from jaxlm.training.optimizers import inject_hyperparams, sgd
from jaxlm.training.state import Record, TrainState, init_state
from jaxlm.training.step import SWEEP_AXES, train_chunk
from jaxlm.utils.checks import check_not_traced
from jaxlm.utils.keys import check_key


def sweep_grid(keys: Array, **values: ArrayLike) -> tuple[Array, dict[str, NDArray[Any]]]:
    """Return keys [R] and hyperparameters [R] for all combinations of keys and values, for `train_many`.

    The last hyperparameter varies fastest, the keys slowest.

    >>> keys, hyperparams = sweep_grid(jax.random.split(jax.random.key(0), 2), lr=[0.1, 0.3, 1.0])
    >>> keys.shape, hyperparams["lr"].tolist()
    ((6,), [0.1, 0.3, 1.0, 0.1, 0.3, 1.0])
    """
    keys = _check_keys(keys)
    for name, value in values.items():
        if np.ndim(value) != 1 or not np.size(value) or not np.issubdtype(np.asarray(value).dtype, np.number):
            raise ValueError(f"{name} must be a list of at least one number, got {value!r}")
    runs = itertools.product(range(len(keys)), *map(np.asarray, values.values()))
    rows, *hyperparams = map(np.array, zip(*runs, strict=True))
    return keys[rows], dict(zip(values, hyperparams, strict=True))


def train_many(
    model: LanguageModel,
    train_ids: ArrayLike,
    *,
    keys: Array,
    hyperparams: Mapping[str, ArrayLike],
    optimizer: Callable[..., optax.GradientTransformation] = sgd,
    val_ids: ArrayLike | None = None,
    batch_size: int = 32,
    num_steps: int = 1000,
    log_every: int = 100,
    device: Device = "auto",
) -> tuple[Variables, list[History]]:
    """Train R models at once, one per key and set of hyperparameters, as one vmapped program.

    Host function; not for use inside `jit`.

    Run r differs from `train_lm(..., key=keys[r])` only by rounding. A run that diverges has NaN losses and
    perplexities from there on; the others continue.

    The runs are split evenly over the largest number of the platform's devices that divides R; a `jax.Device`
    is used alone. `XLA_FLAGS=--xla_force_host_platform_device_count=2` presents the CPU as two devices.

    Args:
        train_ids: as in `train_lm`.
        keys: threefry keys [R] (JAX's default).
        hyperparams: the arguments of `optimizer`, finite numbers [R] each. `sweep_grid` returns all combinations.
        optimizer: returns an Optax optimizer, such as `lambda lr: optax.adam(lr)`. Pass the same function again to
            reuse the compiled program. The default, `jaxlm.sgd`, accepts any of its numeric arguments.
        val_ids, batch_size, num_steps, log_every, device: as in `train_lm`.

    Returns:
        the trained variables, each array [R, ...], and R histories as in `train_lm`.

    >>> from jaxlm import NeuralBigramLM
    >>> keys, hyperparams = sweep_grid(jax.random.split(jax.random.key(0), 2), lr=[0.1, 1.0])
    >>> model = NeuralBigramLM(vocab_size=3, embedding_dim=4)
    >>> variables, histories = train_many(model, [0, 1, 2] * 9, keys=keys, hyperparams=hyperparams, num_steps=50)
    >>> [history["train_losses"][-1] < 0.1 for history in histories]  # two rates for each of two keys
    [False, True, False, True]
    """
    check_not_traced("train_many", "vmap over init_state and train_step", train_ids, keys, hyperparams)
    keys = _check_keys(keys)
    numbers: Any = {name: np.asarray(values, np.float32) for name, values in hyperparams.items()}
    for name, array in numbers.items():
        if array.shape != keys.shape or not np.isfinite(array).all():
            got = array if array.shape == keys.shape else f"shape {list(array.shape)}"
            problem = f"{name} must hold {len(keys)} finite numbers, one per key, got {got}"
            raise ValueError(f"{problem}; sweep_grid returns all combinations")
    stream, val_ids = check_training(model, train_ids, val_ids, batch_size, num_steps, log_every)
    for run in range(len(keys)):  # raises the errors of `optimizer`, which cannot check traced numbers
        optimizer(**{name: array[run] for name, array in numbers.items()})
    target_device = resolve_device(device, num_weights=len(keys) * num_init_params(model))
    devices = [target_device] if isinstance(device, jax.Device) else jax.devices(target_device.platform)
    num_devices = next(count for count in range(len(devices), 0, -1) if len(keys) % count == 0)
    mesh = Mesh(np.array(devices[:num_devices]), ("runs",))
    replicated = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]
    split_by_run = NamedSharding(mesh, PartitionSpec("runs"))  # type: ignore[no-untyped-call]
    keys, numbers = jax.device_put((keys, numbers), split_by_run)
    states = _init_states(model, optimizer, keys, numbers)
    update_only = inject_hyperparams(optimizer, {})._replace(init=None)  # the same `update` in each call
    blocks = iterate_blocks(stream, model.context_length, batch_size, num_steps, key=keys, sharding=replicated)
    records = []
    for block in blocks:
        for step in range(block.first, block.stop):
            if (is_record := is_recorded(step, num_steps, log_every)) or step + 1 == block.stop:
                first, stop = jax.device_put((np.int32(block.first), np.int32(step + 1)), replicated)
                states, *outcome = train_chunk(model, update_only, block.windows, first, keys, states, stop)
            if is_record:
                records.append(_make_records(model, states, step, outcome, val_ids, target_device))
    return states.variables, [make_history([each[run] for each in records]) for run in range(len(keys))]


def _make_records(
    model: LanguageModel, states: TrainState, step: int, outcome: Any, val_ids: Any, device: jax.Device
) -> list[Record]:
    """Return the record of each run, given losses [R] and whether the parameters are finite [R]."""
    records = []
    for run, (loss, is_finite) in enumerate(zip(*map(np.asarray, outcome), strict=True)):
        validation = None if val_ids is None else Evaluation(math.nan, math.nan, 0)
        if validation and is_finite:
            trained = jax.tree.map(lambda leaf, run=run: leaf[run], states.variables)
            validation = evaluate(model, trained, val_ids, device=device)
        records.append(Record(step, float(loss), validation))
    return records


def _check_keys(keys: Any) -> Array:
    """Return typed threefry keys [R]. Legacy keys [R, 2] are wrapped."""
    keys = check_key(keys, ndim=1)
    if not len(keys) or (kind := jax.random.key_impl(keys)) != "threefry2x32":
        got = f"{kind}, which draws the numbers of the first key for all" if len(keys) else "none"
        raise ValueError(f"keys must be at least one threefry2x32 key, got {got}")
    return keys


@functools.partial(jit_model, static_argnames="optimizer")
def _init_states(
    model: LanguageModel, optimizer: Callable[..., Any], keys: Array, hyperparams: dict[str, Array]
) -> TrainState:
    def init_run(key: KeyLike, hyperparams: dict[str, FloatScalar]) -> TrainState:
        return init_state(model, inject_hyperparams(optimizer, hyperparams), key=key)

    return jax.vmap(init_run, out_axes=SWEEP_AXES)(keys, hyperparams)
