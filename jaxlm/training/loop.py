"""Training by gradient descent: one compiled loop for every model."""

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from numpy.typing import ArrayLike

from jaxlm.batching import check_at_least, check_stream, random_windows
from jaxlm.devices import resolve_device
from jaxlm.evaluation import Evaluation, evaluate, token_nats
from jaxlm.keys import map_steps
from jaxlm.models.interface import LanguageModel, count_weights, init, predict_in_training

_DEFAULT_LR = 0.1
INIT_FOLD = 2**31 - 1
NOISE_FOLD = 2**31 - 2

# Steps whose windows are drawn at once; fewer where they would hold more ids than that.
_STEPS_PER_DRAW = 32
_IDS_PER_DRAW = 2**14

# Seconds between two pauses: long enough to cost nothing, short enough for one who waits for a run to stop.
_LEAST_PAUSE, _MOST_PAUSE = 0.2, 0.5


class Best(NamedTuple):
    """What early stopping has to know: the params of the best validation, its nats per token, and its age."""

    params: Any
    nats_per_token: Array  # float32
    records_since: Array


class TrainState(NamedTuple):
    """All that a step of training reads and writes: the steps done, the params, the optimizer's state.

    `best` is there with `patience` alone.
    """

    step: Array
    params: Any
    opt_state: optax.OptState
    best: Best | None = None


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
    target_device = resolve_device(device, num_weights=count_weights(params))
    num_windows = len(train_stream) - model.context_length
    params, constants, train_stream, key = jax.device_put(
        (params, constants, padded(train_stream), key), target_device
    )
    fresh = _first_state(params, optimizer or plain_sgd(lr, weight_decay), keeps_best=patience is not None)
    if state is not None:
        _check_state(state, fresh, num_steps)
    # The loop donates its state: a copy, for the caller's params are in it, and an optimizer may hold them twice.
    state = jax.device_put(_copied(fresh if state is None else state), target_device)
    history: dict[str, list[Any]] = {"steps": [], "train_losses": [], "val_perplexities": []}
    for stop in _stops(int(state.step), num_steps, log_every, pause_every, by_clock=on_pause is not None):
        if is_over(state, num_steps, patience):
            break
        numbers = jax.device_put((num_windows, stop, float(lr), float(weight_decay)), target_device)
        best = state.best
        state, *outcome = _train_until(
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
                best = _with_record(best, state.params, validation)
            history["steps"].append(step)
            history["train_losses"].append(loss)
            if on_record is not None:
                on_record(Record(step, loss, validation))
        state = state._replace(best=best)
        if on_pause is not None and params_are_finite:
            on_pause(state)
    trained = state.params if state.best is None else state.best.params
    return join_variables(trained, constants), history


def initial_state(
    model: LanguageModel,
    optimizer: optax.GradientTransformation,
    key: Array,
    variables: Any = None,
    *,
    patience: int | None = None,
) -> TrainState:
    """The state that `train_lm` starts from, given the same arguments; its arrays may be the variables' own."""
    if variables is None:
        variables = init(model, jax.random.fold_in(key, INIT_FOLD))
    params, _ = split_variables(model, variables)
    return _first_state(params, optimizer, keeps_best=patience is not None)


def _first_state(params: Any, optimizer: optax.GradientTransformation, *, keeps_best: bool) -> TrainState:
    best = Best(params, jnp.float32(jnp.inf), jnp.int32(0)) if keeps_best else None
    return TrainState(jnp.int32(0), params, optimizer.init(params), best)


def _with_record(best: Best | None, params: Any, validation: Evaluation) -> Best | None:
    """The best after another record, with copies of its params, for the next step takes these over."""
    if best is None:
        return None
    nats = jnp.float32(validation.nats_per_token)
    if nats < best.nats_per_token:
        return Best(_copied(params), nats, jnp.int32(0))
    return best._replace(records_since=best.records_since + 1)


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
        logits = predict_in_training(model, join_variables(params, constants), contexts, noise_key)
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


def is_recorded(step: int, num_steps: int, log_every: int) -> bool:
    """Whether a run of `num_steps` records `step`: steps 0, log_every, 2 * log_every, ... and the last one are.

    >>> [step for step in range(10) if is_recorded(step, num_steps=10, log_every=4)]
    [0, 4, 8, 9]
    """
    return step % log_every == 0 or step == num_steps - 1


def is_over(state: TrainState, num_steps: int, patience: int | None) -> bool:
    """Whether no step comes after `state`: the run has done all of its own, or lost patience."""
    if state.best is not None and patience is not None and int(state.best.records_since) >= patience:
        return True
    return int(state.step) >= num_steps


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


def split_variables(model: LanguageModel, variables: Any) -> tuple[Any, Any]:
    """What is trained, and the collections that stay as they are (None where everything is trained)."""
    if isinstance(variables, Mapping) and "params" in variables:
        params = variables["params"]
        constants = {name: value for name, value in variables.items() if name != "params"}
    else:
        params, constants = variables, None
    dtypes = {jnp.asarray(leaf).dtype for leaf in jax.tree.leaves(params)}
    if not dtypes or not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        held = ", ".join(sorted(map(str, dtypes))) or "nothing"
        raise TypeError(
            f"{type(model).__name__} holds {held}, which no gradient trains"
            + ("; call model.fit(variables, ids)" if hasattr(model, "fit") else "; its params must be floats")
        )
    return params, constants


def padded(ids: ArrayLike) -> np.ndarray[Any, Any]:
    """`ids` with zeros behind, by an eighth at most, so that texts of many lengths share one compilation."""
    stream = np.asarray(ids)
    granule = 1 << max(len(stream).bit_length() - 4, 0)
    return np.pad(stream, (0, -len(stream) % granule))


def _copied(tree: Any) -> Any:
    def copy(leaf: Any) -> Array:
        return leaf.copy() if isinstance(leaf, Array) else jnp.array(leaf)  # jnp.array takes no random keys

    return jax.tree.map(copy, tree)


def join_variables(params: Any, constants: Any) -> Any:
    return params if constants is None else {"params": params, **constants}


def _check_state(state: TrainState, fresh: TrainState, num_steps: int) -> None:
    """Raises a ValueError unless a run of `num_steps` that starts from `fresh` can go on from `state`."""
    structures: list[Any] = [jax.tree.structure(state), jax.tree.structure(fresh)]
    if structures[0] != structures[1]:
        raise ValueError("state is of another model or optimizer: its arrays have other names")
    for (path, leaf), wanted in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(fresh), strict=True
    ):
        if (leaf.shape, leaf.dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(
                f"state is of another model or optimizer: {jax.tree_util.keystr(path)} is {leaf.dtype}"
                f"{list(leaf.shape)}, here it is {wanted.dtype}{list(wanted.shape)}"
            )
    if not 0 <= int(state.step) <= num_steps:
        raise ValueError(f"state is of step {int(state.step)}; num_steps={num_steps} ends before it")


def _stops(step: int, num_steps: int, log_every: int, pause_every: int | None, *, by_clock: bool) -> Iterator[int]:
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


def plain_sgd(lr: float | Array, weight_decay: float | Array = 0.0) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(lr))


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "batch_size"), donate_argnames=("state",))
def _train_until(
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
        windows = map_steps(draw_windows, key, first_step + jnp.arange(num_steps))

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
