"""The optimizer of the neural rungs: SGD, made of Optax's parts."""

from typing import Literal

import optax


def sgd(
    lr: float,
    num_steps: int,
    *,
    schedule: Literal["constant", "cosine"] = "constant",
    warmup_steps: int = 0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    decoupled_decay: bool = False,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """SGD as PyTorch has it: the gradient is clipped, decay is added to it, momentum gathers it, lr scales it.

    Args:
        lr: the learning rate, after the steps of warm-up.
        num_steps: where the cosine has fallen to zero (Loshchilov & Hutter 2017, "SGDR", equation 5, one period).
        warmup_steps: step i of them has the rate `lr * (i + 1) / (warmup_steps + 1)`.
        momentum: the share of the gathered gradients that the next step keeps; 0 gathers none.
        weight_decay: L2, added to the gradient as `weight_decay * param`.
        decoupled_decay: it is added to what the gathered gradients make instead, so that momentum does not gather
            it (Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 1).
        clip_norm: the largest norm of the whole gradient, a larger one is scaled down to it; None clips nothing.

    Raises:
        ValueError: the warm-up leaves the cosine no step.
    """
    decay = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    return optax.chain(
        *([] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]),
        *([] if decoupled_decay else decay),
        *([optax.trace(momentum)] if momentum else []),
        *(decay if decoupled_decay else []),
        optax.scale_by_learning_rate(_rate(lr, num_steps, schedule, warmup_steps)),
    )


def _rate(lr: float, num_steps: int, schedule: str, warmup_steps: int) -> optax.ScalarOrSchedule:
    if schedule == "cosine" and warmup_steps >= max(num_steps, 1):
        raise ValueError(
            f"warmup_steps={warmup_steps} must be below num_steps={num_steps}, or the cosine has none"
        )
    first = lr / (warmup_steps + 1)
    match schedule, warmup_steps:
        case "cosine", 0:
            return optax.cosine_decay_schedule(lr, num_steps)
        case "cosine", _:
            return optax.warmup_cosine_decay_schedule(first, lr, warmup_steps, num_steps)
        case _, 0:
            return lr
    return optax.warmup_constant_schedule(first, lr, warmup_steps)
