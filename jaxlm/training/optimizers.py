"""The optimizer of the neural rungs: SGD, made of Optax's parts."""

from typing import Any, Literal

import jax
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike


def sgd(
    lr: ArrayLike,
    num_steps: int,
    *,
    schedule: Literal["constant", "cosine"] = "constant",
    warmup_steps: int = 0,
    momentum: ArrayLike = 0.0,
    weight_decay: ArrayLike = 0.0,
    decoupled_decay: bool = False,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """SGD as PyTorch has it: the gradient is clipped, decay is added to it, momentum gathers it, lr scales it.

    `lr`, `momentum` and `weight_decay` may be a sweep's: `train_many` traces them.

    Args:
        lr: the learning rate, after the steps of warm-up.
        num_steps: where the cosine has fallen to zero (Loshchilov & Hutter 2017, "SGDR", equation 5, one period).
        warmup_steps: step i of them has the rate `lr * (i + 1) / (warmup_steps + 1)`.
        momentum: the share of the gathered gradients that the next step keeps; 0 gathers none.
        weight_decay: L2, added to the gradient as `weight_decay * param`.
        decoupled_decay: it is added to what the gathered gradients make instead, so that momentum does not gather
            it, and scaled by the rate with it, as in `optax.adamw` (after Loshchilov & Hutter 2019, "Decoupled
            Weight Decay Regularization", algorithm 1, which scales it by the schedule alone).
        clip_norm: the largest norm of the whole gradient, a larger one is scaled down to it; None clips nothing.

    Raises:
        ValueError: the schedule is unknown, or the warm-up negative, or so long that it leaves the cosine no step.
    """
    rate = _rate(lr, num_steps, schedule, warmup_steps)
    decay = [] if _is_zero(weight_decay) else [optax.add_decayed_weights(weight_decay)]
    return optax.chain(
        *([] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]),
        *([] if decoupled_decay else decay),
        *([] if _is_zero(momentum) else [optax.trace(momentum)]),
        *(decay if decoupled_decay else []),
        optax.scale_by_learning_rate(rate),
    )


def _is_zero(number: ArrayLike) -> bool:
    """Whether it is known to be 0; a number that a sweep traces may be any."""
    return not isinstance(number, jax.core.Tracer) and not np.any(number)


def _rate(lr: ArrayLike, num_steps: int, schedule: str, warmup_steps: int) -> Any:
    if schedule not in ("constant", "cosine"):
        raise ValueError(f"unknown schedule {schedule!r}; choose constant or cosine")
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps must be at least 0, got {warmup_steps}")
    if schedule == "cosine" and warmup_steps >= max(num_steps, 1):
        raise ValueError(
            f"warmup_steps={warmup_steps} must be below num_steps={num_steps}, or the cosine has none"
        )
    first = lr / (warmup_steps + 1)
    match schedule, warmup_steps:
        case "cosine", 0:
            return optax.cosine_decay_schedule(lr, num_steps)
        case "cosine", _:
            # As warmup_cosine_decay_schedule, which takes no rate that a sweep traces.
            warm_up = optax.linear_schedule(first, lr, warmup_steps)
            cosine = optax.cosine_decay_schedule(lr, num_steps - warmup_steps)
            return optax.join_schedules([warm_up, cosine], [warmup_steps])
        case _, 0:
            return lr
    return optax.warmup_constant_schedule(first, lr, warmup_steps)


def plain_sgd(lr: float | Array, weight_decay: float | Array = 0.0) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(lr))
