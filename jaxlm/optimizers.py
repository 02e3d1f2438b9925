"""The optimizer of the neural rungs: SGD, made of Optax's parts."""

from typing import Literal

import optax


def sgd(
    lr: float,
    num_steps: int,
    *,
    schedule: Literal["constant", "cosine"] = "constant",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """SGD as PyTorch has it: the gradient is clipped, decay is added to it, momentum gathers it, lr scales it.

    Args:
        lr: the learning rate of the first step.
        num_steps: where the cosine has fallen to zero (Loshchilov & Hutter 2017, "SGDR", equation 5, one period).
        momentum: the share of the gathered gradients that the next step keeps; 0 gathers none.
        weight_decay: L2, added to the gradient as `weight_decay * param`.
        clip_norm: the largest norm of the whole gradient, a larger one is scaled down to it; None clips nothing.
    """
    rate = optax.cosine_decay_schedule(lr, num_steps) if schedule == "cosine" else lr
    return optax.chain(
        *([] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]),
        *([optax.add_decayed_weights(weight_decay)] if weight_decay else []),
        optax.sgd(rate, momentum=momentum or None),
    )
