"""SGD with schedules, momentum, weight decay and clipping, and optimizers whose hyperparameters are data."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, SupportsFloat

import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxlm.models.jit import is_abstract


class HyperparamState(NamedTuple):
    """The state of an optimizer from `inject_hyperparams`."""

    hyperparams: dict[str, Array]
    inner_state: optax.OptState


def inject_hyperparams(
    make_optimizer: Callable[..., optax.GradientTransformation], hyperparams: Mapping[str, ArrayLike]
) -> optax.GradientTransformationExtraArgs:
    """Return `make_optimizer(**hyperparams)`, with the hyperparameters in its state.

    Unlike with `optax.inject_hyperparams`, all optimizers made from one `make_optimizer` share one `update`, so
    they also share compiled training steps.
    """

    def init(params: optax.Params) -> HyperparamState:
        numbers = {name: jnp.asarray(value, float) for name, value in hyperparams.items()}
        return HyperparamState(numbers, make_optimizer(**numbers).init(params))

    return optax.GradientTransformationExtraArgs(init, _make_update(make_optimizer))


@functools.lru_cache(maxsize=1024)
def _make_update(make_optimizer: Callable[..., optax.GradientTransformation]) -> Callable[..., Any]:
    def update(updates: Any, state: HyperparamState, params: Any = None, **extra_args: Any) -> Any:
        optimizer = optax.with_extra_args_support(make_optimizer(**state.hyperparams))
        updates, inner_state = optimizer.update(updates, state.inner_state, params, **extra_args)
        return updates, state._replace(inner_state=inner_state)

    return update


def sgd(
    lr: float | Array,
    num_steps: int | Array | None = None,
    *,
    schedule: Literal["constant", "cosine"] = "constant",
    warmup_steps: int | Array = 0,
    momentum: float | Array = 0.0,
    weight_decay: float | Array = 0.0,
    clip_norm: float | Array | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Return SGD in PyTorch's order: clip the gradient, add weight decay, accumulate momentum, scale by the rate.

    The numeric arguments are stored in the optimizer's state, so new values do not recompile. (Zero warmup steps
    and zero momentum use a simpler program.) All may be traced. `update` reads them from the state:
    `sgd(0.1).update` with a state from `sgd(0.5).init` uses the rate 0.5.

    Args:
        lr: learning rate after warmup, finite and at least 0.
        num_steps: step at which the cosine schedule reaches zero; the constant schedule ignores it.
        schedule: "cosine" is one period of Loshchilov & Hutter 2017, "SGDR", equation 5.
        warmup_steps: step i of the warmup has the rate `lr * (i + 1) / (warmup_steps + 1)`. A cosine needs
            `warmup_steps < num_steps`.
        momentum: factor of the accumulated gradient, in [0, 1).
        weight_decay: L2 coefficient; `weight_decay * param` is added to the gradient.
        clip_norm: maximum global norm of the gradient, above 0; None disables clipping.

    >>> optimizer = sgd(0.5, num_steps=100, weight_decay=0.1)
    >>> param, gradient = jnp.float32(2), jnp.float32(1)
    >>> optimizer.update(gradient, optimizer.init(param), param)[0]  # -0.5 * (1 + 0.1 * 2)
    Array(-0.6, dtype=float32)
    """
    if schedule not in ("constant", "cosine"):
        raise ValueError(f"unknown schedule {schedule!r}; choose constant or cosine")
    ends = {"lr": math.inf, "weight_decay": math.inf, "momentum": 1, "warmup_steps": math.inf}
    for (name, end), number in zip(ends.items(), (lr, weight_decay, momentum, warmup_steps), strict=True):
        if not (is_abstract(number) or isinstance(number, SupportsFloat)):
            remedy = "for a schedule pass optimizer=optax.sgd(schedule)"
            raise TypeError(f"{name} must be a number, got {number!r}; {remedy}")
        if not (is_abstract(number) or 0 <= number < end):
            raise ValueError(f"{name} must be in [0, {end}), got {number}")
    if not (clip_norm is None or is_abstract(clip_norm) or clip_norm > 0):
        raise ValueError(f"clip_norm must be above 0, got {clip_norm}")
    # Omit zeros: a constant rate needs no step count, and momentum needs one array per parameter.
    optional = {"warmup_steps": warmup_steps, "momentum": momentum, "clip_norm": clip_norm}
    used: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
    used |= {name: number for name, number in optional.items() if is_abstract(number) or number not in (0, None)}
    if schedule == "cosine":
        if num_steps is None:
            raise ValueError("a cosine schedule needs num_steps, the step at which it ends")
        is_known = not (is_abstract(warmup_steps) or is_abstract(num_steps))
        if is_known and warmup_steps >= max(num_steps, 1):
            raise ValueError(f"warmup_steps must be below {num_steps=} for a cosine, got {warmup_steps}")
        used["num_steps"] = num_steps
    return inject_hyperparams(_make_sgd, used)


def _make_sgd(
    lr: Array,
    weight_decay: Array,
    num_steps: Array | None = None,
    warmup_steps: Array | None = None,
    momentum: Array | None = None,
    clip_norm: Array | None = None,
) -> optax.GradientTransformation:
    def rate(step: Array) -> Array:
        warmup = 0 if warmup_steps is None else warmup_steps
        factor: Array | float = 1.0
        if num_steps is not None:
            progress = jnp.clip((step - warmup) / (num_steps - warmup), 0, 1)
            factor = 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return lr * jnp.where(step < warmup, (step + 1) / (warmup + 1), factor)

    is_constant = num_steps is None and warmup_steps is None
    return optax.chain(
        *([] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]),
        optax.add_decayed_weights(weight_decay),
        *([] if momentum is None else [optax.trace(momentum)]),
        optax.scale_by_learning_rate(lr if is_constant else rate),
    )
