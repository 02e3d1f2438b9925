"""Many runs of training as one compiled program: seeds, learning rates, and what else an optimizer is made of."""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import ArrayLike

from jaxlm.devices.selection import resolve_device
from jaxlm.evaluation.evaluate import evaluate
from jaxlm.models.interface import LanguageModel, init, num_init_params
from jaxlm.text.batching import check_stream, random_windows
from jaxlm.training.loop import is_recorded, padded
from jaxlm.training.optimizers import plain_sgd
from jaxlm.training.state import INIT_FOLD, TrainState, join_variables, split_variables
from jaxlm.training.step import steps_per_draw, train_step
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.keys import vmap_over_steps

_AXES: Any = TrainState(None, 0, 0)  # type: ignore[arg-type]  # the runs share the step


def sweep_grid(keys: Array, **values: ArrayLike) -> tuple[Array, dict[str, np.ndarray[Any, Any]]]:
    """Every key with every combination of the values, as `train_many` takes them: keys [R] and numbers [R].

    The last named value varies fastest, the keys slowest.

    >>> keys, hyperparams = sweep_grid(jax.random.split(jax.random.key(0), 2), lr=[0.1, 0.3, 1.0])
    >>> keys.shape, hyperparams["lr"].tolist()
    ((6,), [0.1, 0.3, 1.0, 0.1, 0.3, 1.0])

    Raises:
        ValueError: there is no key, or a name has no numbers.
    """
    _check_keys(keys)
    for name, value in values.items():
        if np.ndim(value) != 1 or not np.size(value) or not np.issubdtype(np.asarray(value).dtype, np.number):
            raise ValueError(f"{name} must be a list of one number or more, got {value!r}")
    chosen = list(itertools.product(range(len(keys)), *map(np.asarray, values.values())))
    columns = list(zip(*chosen, strict=True))
    return keys[np.array(columns[0])], {
        name: np.array(column) for name, column in zip(values, columns[1:], strict=True)
    }


def train_many(
    model: LanguageModel,
    train_ids: ArrayLike,
    *,
    keys: Array,
    hyperparams: Mapping[str, ArrayLike],
    optimizer: Callable[..., optax.GradientTransformation] = plain_sgd,
    val_ids: ArrayLike | None = None,
    batch_size: int = 32,
    num_steps: int = 1000,
    log_every: int = 100,
    device: str | jax.Device = "auto",
) -> tuple[Any, list[dict[str, list[Any]]]]:
    """What `train_lm` makes of each key with its hyper-parameters: R runs side by side, as one vmapped program.

    Run r draws the same windows and starts from the same variables as `train_lm` does with `keys[r]`; its numbers
    differ by rounding alone, for products of many runs are summed in another order. A run that diverges does not
    stop the others: its losses and perplexities are NaN from there.

    The runs are spread over as many devices of one platform as divide them, unless `device` is a `jax.Device`. A
    CPU is several with `XLA_FLAGS=--xla_force_host_platform_device_count=2`: small products keep one core busy.

    Args:
        train_ids: integers [T].
        keys: R of them.
        hyperparams: R numbers by name, which `optimizer` takes by these names; `sweep_grid` makes keys and numbers
            of all combinations.
        optimizer: from those numbers an `optax.GradientTransformation`; as `lambda lr: optax.adam(lr)`. Pass the
            same function, and a second sweep compiles nothing. `plain_sgd` is `train_lm`'s: lr, weight_decay.
        val_ids, batch_size, num_steps, log_every, device: as `train_lm` has them.

    Returns:
        the trained variables, each array [R, ...]; and the R histories, each as `train_lm` returns it.

    Raises:
        TypeError: the model has no floating-point variables to train.
        ValueError: there is no key, numbers and keys differ in shape, an argument is out of its range, or the text
            shorter than one window.
    """
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("num_steps", num_steps, 0),
        ("log_every", log_every, 1),
    ):
        check_at_least(name, value, least)
    columns = _checked_columns(keys, hyperparams)
    window_length = model.context_length + 1
    train_stream = check_stream(train_ids, model.vocab_size, min_length=window_length, name="train_ids")
    if val_ids is not None:
        val_ids = check_stream(val_ids, model.vocab_size, min_length=window_length, name="val_ids")
    target_device = resolve_device(device, num_weights=len(keys) * num_init_params(model))
    everywhere, by_run = _placed(target_device, len(keys), is_chosen=isinstance(device, jax.Device))
    num_windows = len(train_stream) - model.context_length
    stream = jax.device_put(padded(train_stream), everywhere)
    keys, columns = jax.device_put((keys, columns), by_run)
    states, constants = _first_states(model, optimizer, keys, columns)
    histories: list[dict[str, list[Any]]] = [
        {"steps": [], "train_losses": [], "val_perplexities": []} for _ in range(len(keys))
    ]
    recorded = [step for step in range(num_steps) if is_recorded(step, num_steps, log_every)]
    for step in recorded:
        numbers = jax.device_put((num_windows, step + 1), everywhere)
        states, losses = _train_many_until(
            model, optimizer, batch_size, states, constants, stream, keys, columns, *numbers
        )
        for run, (history, loss) in enumerate(zip(histories, jax.device_get(losses).tolist(), strict=True)):
            history["steps"].append(step)
            history["train_losses"].append(loss)
            if val_ids is not None:
                trained = jax.tree.map(lambda leaf, run=run: leaf[run], join_variables(states.params, constants))
                history["val_perplexities"].append(_perplexity(model, trained, val_ids, target_device))
    return join_variables(states.params, constants), histories


def _placed(device: jax.Device, num_runs: int, *, is_chosen: bool) -> tuple[NamedSharding, NamedSharding]:
    """Where goes what is the same for all runs, and what is a run's own."""
    devices = [device] if is_chosen else jax.devices(device.platform)
    shared = next(count for count in range(len(devices), 0, -1) if num_runs % count == 0)
    mesh = Mesh(np.array(devices[:shared]), ("runs",))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("runs"))  # type: ignore[no-untyped-call]


def _perplexity(model: LanguageModel, variables: Any, ids: Any, device: jax.Device) -> float:
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(variables))):
        return float("nan")
    return evaluate(model, variables, ids, device=device).perplexity


def _check_keys(keys: Array) -> None:
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.ndim != 1 or not len(keys):
        raise ValueError(
            f"keys must be an array of one random key or more, as jax.random.split makes it, got {keys.dtype}"
            f"{list(keys.shape)}"
        )


def _checked_columns(keys: Array, hyperparams: Mapping[str, ArrayLike]) -> dict[str, np.ndarray[Any, Any]]:
    _check_keys(keys)
    columns = {name: np.asarray(values, np.float32) for name, values in hyperparams.items()}
    for name, column in columns.items():
        if column.shape != (len(keys),):
            raise ValueError(
                f"{name} must hold a number for each of the {len(keys)} keys, got the shape {list(column.shape)}; "
                "sweep_grid makes keys and numbers of all combinations"
            )
        if not np.isfinite(column).all():
            raise ValueError(f"{name} must be finite, got {column[~np.isfinite(column)][0]}")
    return columns


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def _first_states(
    model: LanguageModel, optimizer: Callable[..., Any], keys: Array, columns: dict[str, Array]
) -> tuple[TrainState, Any]:
    def first_state(key: Array, hyperparams: dict[str, Array]) -> tuple[TrainState, Any]:
        params, constants = split_variables(model, init(model, jax.random.fold_in(key, INIT_FOLD)))
        return TrainState(jnp.int32(0), params, optimizer(**hyperparams).init(params)), constants

    return jax.vmap(first_state, out_axes=(_AXES, 0))(keys, columns)


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "batch_size"), donate_argnames=("states",))
def _train_many_until(
    model: LanguageModel,
    optimizer: Callable[..., optax.GradientTransformation],
    batch_size: int,
    states: TrainState,
    constants: Any,
    train_ids: Array,
    keys: Array,
    columns: dict[str, Array],
    num_windows: Array,
    stop: Array,
) -> tuple[TrainState, Array]:
    """The states [R] after step `stop`, and the last step's losses [R].

    The runs share the number of the step, so that the loop's end is no run's own: under `vmap` each array would
    have to be kept or replaced, run by run, in every step.
    """
    num_drawn = steps_per_draw(model, batch_size)

    def draw(key: Array, first_step: Array) -> Any:
        def draw_windows(step_key: Array) -> tuple[Array, Array]:
            return random_windows(train_ids, num_windows, model.context_length, batch_size, key=step_key)

        return vmap_over_steps(draw_windows, key, first_step + jnp.arange(num_drawn))

    def one_step(
        state: TrainState,
        constants: Any,
        hyperparams: dict[str, Array],
        contexts: Array,
        targets: Array,
        key: Array,
    ) -> tuple[TrainState, Array]:
        return train_step(model, optimizer(**hyperparams), state, constants, contexts, targets, key)

    step_of_all = jax.vmap(one_step, in_axes=(_AXES, 0, 0, 0, 0, 0), out_axes=(_AXES, 0))

    def steps(carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
        first_step = carry[0].step
        windows = jax.vmap(draw, in_axes=(0, None))(keys, first_step)  # [R, S, B, N] and [R, S, B]

        def step(carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
            states, _ = carry
            contexts, targets = jax.tree.map(lambda each: each[:, states.step - first_step], windows)
            return step_of_all(states, constants, columns, contexts, targets, keys)

        def drawn(carry: tuple[TrainState, Array]) -> Array:
            return (carry[0].step < stop) & (carry[0].step < first_step + num_drawn)

        return lax.while_loop(drawn, step, carry)

    return lax.while_loop(lambda carry: carry[0].step < stop, steps, (states, jnp.zeros(len(keys), jnp.float32)))
