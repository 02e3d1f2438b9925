"""loss."""

import math

import jax.numpy as jnp
from jax import Array, lax


def token_nats(logits: Array, targets: Array) -> Array:
    """`-log softmax(logits)[target]` in nats: logits [B, V], targets int [B] -> [B].

    A target of logit -inf costs inf, also where the whole row is -inf (a token that was never seen, without
    smoothing).
    """
    return nats_of_targets(*center_logits(logits), jnp.arange(len(logits)), targets)


def center_logits(logits: Array) -> tuple[Array, Array]:
    """The logits [B, V] less the largest of each row, and the log of the sum of their exponentials [B]."""
    # Taken off before anything else is done, so that large logits cost no digits.
    largest = lax.stop_gradient(logits.max(axis=1, keepdims=True))
    # A row that is -inf throughout stays so: -inf - -inf would be NaN.
    shifted = logits - jnp.where(largest == -jnp.inf, 0, largest)
    return shifted, jnp.log(jnp.exp(shifted).sum(axis=1))


def nats_of_targets(shifted: Array, log_sums: Array, rows: Array, targets: Array) -> Array:
    """What the targets [W] cost after the contexts that are the rows [W] of `shifted` [B, V]."""
    target_logits = shifted[rows, targets]
    return jnp.where(target_logits == -jnp.inf, jnp.inf, log_sums[rows] - target_logits)


def bits_per_byte(nats_per_token: float, bytes_per_token: float) -> float:
    """Nats per token as bits per byte of text, the figure that compares models with different tokenizers.

    >>> bits_per_byte(math.log(256), bytes_per_token=1)
    8.0
    """
    return nats_per_token / (math.log(2) * bytes_per_token)
