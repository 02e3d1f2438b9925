"""Sweeps: many training runs, one per seed and set of hyperparameters, as one vmapped program."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh
from numpy.typing import ArrayLike, NDArray

from jaxlm._types import Device, FloatScalar, KeyLike, Variables
from jaxlm.devices.mesh import check_placement, sharding_of
from jaxlm.devices.selection import resolve_device
from jaxlm.evaluation.evaluate_many import evaluate_many
from jaxlm.models.interface import LanguageModel, num_init_params
from jaxlm.text.token_stream import TokenStream
from jaxlm.training.blocks import iterate_blocks
from jaxlm.training.loop import History, check_training, make_history, next_record
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
    mesh: Mesh | None = None,
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
        mesh: devices that share the runs, instead of `device`; their number must divide R.

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
    check_placement(device, mesh)
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
    mesh = mesh or make_runs_mesh(device, len(keys), num_init_params(model))
    if len(keys) % mesh.size:
        raise ValueError(f"the number of devices in mesh must divide the {len(keys)} runs, got {mesh.size}")

    def init_run(key: KeyLike, hyperparams: dict[str, FloatScalar]) -> TrainState:
        return init_state(model, inject_hyperparams(optimizer, hyperparams), key=key)

    keys, numbers = jax.device_put((keys, numbers), sharding_of(mesh, *mesh.axis_names))
    states = jax.vmap(init_run, out_axes=SWEEP_AXES)(keys, numbers)
    update_only = inject_hyperparams(optimizer, {})._replace(init=None)  # the same `update` in each call
    options: Any = {"batch_size": batch_size, "num_steps": num_steps, "log_every": log_every, "val_ids": val_ids}
    logged: list[Sequence[Record | None]] = []
    for after, records in train_packed(model, update_only, stream, states, keys, mesh, **options):
        variables = after.variables
        logged.append(records or [None] * len(keys))
    return variables, [make_history(log) for log in zip(*logged, strict=True)]


def train_packed(
    model: LanguageModel,
    optimizer: optax.GradientTransformation,
    train_ids: TokenStream,
    states: TrainState,
    keys: Array,
    mesh: Mesh,
    *,
    val_ids: TokenStream | None,
    batch_size: int,
    num_steps: int,
    log_every: int,
) -> Iterator[tuple[TrainState, list[Record] | None]]:
    """Train R runs, split over the mesh; yield the states and the records [R] at the start and after each chunk.

    Like `train`, but a run that diverges continues with NaN. The arguments must have passed `check_training`.

    Args:
        optimizer: any of those of the runs; they differ only in the hyperparameters, which are in the states.
        states: the states of the runs at one step, each array [R, ...], as `SWEEP_AXES` says.
    """
    replicated, split = sharding_of(mesh), sharding_of(mesh, *mesh.axis_names)
    shardings: Any = TrainState(replicated, split, split, split)  # type: ignore[arg-type]
    states, keys = jax.device_put((states, keys), (shardings, split))
    yield states, None
    step = int(states.step)
    steps = range(step, num_steps)
    blocks = iterate_blocks(train_ids, model.context_length, batch_size, steps, key=keys, sharding=replicated)
    for block_stop, windows in blocks:
        while step < block_stop:
            record_stop = next_record(step, num_steps, log_every) + 1
            step = min(record_stop, block_stop)
            stop = jax.device_put(np.int32(step), replicated)
            states, losses, are_finite = train_chunk(model, optimizer, windows, keys, states, stop)
            yield states, None if step < record_stop else _make_records(model, states, losses, are_finite, val_ids)


def make_runs_mesh(device: Device, num_runs: int, num_params: int) -> Mesh:
    """Return the device, or as many of its platform as divide the runs evenly."""
    target_device = resolve_device(device, num_weights=num_runs * num_params)
    devices = [target_device] if isinstance(device, jax.Device) else jax.devices(target_device.platform)
    num_devices = next(count for count in range(len(devices), 0, -1) if num_runs % count == 0)
    return Mesh(np.array(devices[:num_devices]), ("runs",))


def _make_records(
    model: LanguageModel, states: TrainState, losses: Array, are_finite: Array, val_ids: TokenStream | None
) -> list[Record]:
    """Return the record of each run after a step, given losses [R] and whether the parameters are finite [R]."""
    evaluations = [None] * len(losses) if val_ids is None else evaluate_many(model, states.variables, val_ids)
    records = []
    for loss, is_finite, validation in zip(losses.tolist(), are_finite.tolist(), evaluations, strict=True):
        if validation is not None and not is_finite:
            validation = validation._replace(nats_per_token=math.nan, perplexity=math.nan)
        records.append(Record(int(states.step) - 1, loss, validation))
    return records


def _check_keys(keys: Any) -> Array:
    """Return typed threefry keys [R]. Legacy keys [R, 2] are wrapped."""
    keys = check_key(keys, ndim=1)
    if not len(keys) or (kind := jax.random.key_impl(keys)) != "threefry2x32":
        got = f"{kind}, which draws the numbers of the first key for all" if len(keys) else "none"
        raise ValueError(f"keys must be at least one threefry2x32 key, got {got}")
    return keys
