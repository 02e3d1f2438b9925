"""SGD, with schedules, momentum, weight decay and clipping, built from Optax transformations."""

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
    """Return SGD in PyTorch's order: clip the gradient, add weight decay, accumulate momentum, scale by the rate.

    Args:
        lr: learning rate after warmup. `lr`, `momentum` and `weight_decay` may be traced, as in `train_many`.
        num_steps: step at which the cosine schedule reaches zero.
        schedule: "cosine" is one period of Loshchilov & Hutter 2017, "SGDR", equation 5.
        warmup_steps: step i of the warmup has the rate `lr * (i + 1) / (warmup_steps + 1)`. A cosine needs
            `warmup_steps < num_steps`.
        momentum: factor of the accumulated gradient; 0 keeps no accumulator.
        weight_decay: L2 coefficient; `weight_decay * param` is added to the gradient.
        decoupled_decay: add the decay after momentum instead, scaled by the learning rate as in `optax.adamw`
            (Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 1, scales it by the
            schedule alone).
        clip_norm: maximum norm of the whole gradient; None does not clip.

    >>> import jax.numpy as jnp
    >>> optimizer = sgd(0.5, num_steps=100, weight_decay=0.1)
    >>> param, gradient = jnp.float32(2), jnp.float32(1)
    >>> optimizer.update(gradient, optimizer.init(param), param)[0]  # -0.5 * (1 + 0.1 * 2)
    Array(-0.6, dtype=float32)
    """
    rate = _learning_rate(lr, num_steps, schedule, warmup_steps)
    decay = [] if _is_zero(weight_decay) else [optax.add_decayed_weights(weight_decay)]
    return optax.chain(
        *([] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]),
        *([] if decoupled_decay else decay),
        *([] if _is_zero(momentum) else [optax.trace(momentum)]),
        *(decay if decoupled_decay else []),
        optax.scale_by_learning_rate(rate),
    )


def _is_zero(number: ArrayLike) -> bool:
    """Return whether `number` is zero; False for a traced number, because its value is unknown."""
    return not isinstance(number, jax.core.Tracer) and not np.any(number)


def _learning_rate(lr: ArrayLike, num_steps: int, schedule: str, warmup_steps: int) -> Any:
    if schedule not in ("constant", "cosine"):
        raise ValueError(f"unknown schedule {schedule!r}; choose constant or cosine")
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps must be at least 0, got {warmup_steps}")
    if schedule == "cosine" and warmup_steps >= max(num_steps, 1):
        raise ValueError(f"warmup_steps must be below num_steps={num_steps} for a cosine, got {warmup_steps}")
    after_warmup = lr if schedule == "constant" else optax.cosine_decay_schedule(lr, num_steps - warmup_steps)
    if warmup_steps == 0:
        return after_warmup
    # Not `optax.warmup_cosine_decay_schedule`, which rejects a traced rate.
    warmup = optax.linear_schedule(lr / (warmup_steps + 1), lr, warmup_steps)
    return warmup if schedule == "constant" else optax.join_schedules([warmup, after_warmup], [warmup_steps])


def plain_sgd(lr: float | Array, weight_decay: float | Array = 0.0) -> optax.GradientTransformation:
    """Return the default optimizer of `train_lm`: `param -= lr * (gradient + weight_decay * param)`."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(lr))
