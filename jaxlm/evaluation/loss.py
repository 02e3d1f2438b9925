"""The loss: nats of a target token, and their conversion to bits per byte."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxlm._types import FloatB, FloatBV, FloatW, IntB, IntW


def token_nats(logits: FloatBV, targets: IntB) -> FloatB:
    """Return `-log softmax(logits)[target]` in nats.

    Like `optax.softmax_cross_entropy_with_integer_labels`, but a target with the logit -inf costs inf even if all
    logits of its row are -inf (counts without smoothing, after a token never seen).

    >>> token_nats(jnp.array([[1.0, -jnp.inf]]), jnp.array([1])).tolist()
    [inf]
    """
    return nats_of_targets(*center_logits(logits), jnp.arange(len(logits)), targets)


@jax.named_scope("nats")
def center_logits(logits: FloatBV) -> tuple[FloatBV, FloatB]:
    """Return logits minus the maximum of their row, and the log of the sum of their exponentials."""
    largest = lax.stop_gradient(logits.max(axis=1, keepdims=True))
    # -inf - -inf is NaN, so a row of -inf stays as it is, with the sum 1.
    centered = logits - jnp.where(largest == -jnp.inf, 0, largest)
    sums = jnp.exp(centered).sum(axis=1)
    return centered, jnp.log(jnp.where(sums == 0, 1, sums))


@jax.named_scope("nats")
def nats_of_targets(centered: FloatBV, log_sums: FloatB, rows: IntW, targets: IntW) -> FloatW:
    """Return the nats of `targets` in `rows`, given the results of `center_logits`."""
    return log_sums[rows] - centered[rows, targets]


def bits_per_byte(nats_per_token: float, bytes_per_token: float) -> float:
    """Convert nats per token to bits per byte of text, which compares models with different tokenizers.

    >>> bits_per_byte(math.log(256), bytes_per_token=1)
    8.0
    """
    return nats_per_token / (math.log(2) * bytes_per_token)
