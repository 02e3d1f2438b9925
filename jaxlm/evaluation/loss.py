"""The loss: nats of a target token, and their conversion to bits per byte."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from jaxlm._types import FloatB
from jaxlm.models.interface import center_logits


@jax.named_scope("nats")
def token_nats(logits: Array, targets: Array) -> FloatB:
    """Return `-log softmax(logits)[target]` in nats. A pure function.

    Like `optax.softmax_cross_entropy_with_integer_labels`, but a target whose logit is -inf has inf nats, even if
    all logits of its row are -inf (counts without smoothing, after a token never seen).

    Args:
        logits: floats [B, V].
        targets: integers [B] in [0, V), not checked.

    Returns:
        nats [B], at least 0.

    Raises:
        ValueError: the shapes differ from these.

    >>> token_nats(jnp.array([[1.0, -jnp.inf]]), jnp.array([1])).tolist()
    [inf]
    """
    if len(logits.shape) != 2 or targets.shape != logits.shape[:1]:
        shapes = f"{list(logits.shape)} and {list(targets.shape)}"
        raise ValueError(f"logits must have shape [B, V] and targets [B], got {shapes}")
    centered, log_sums = center_logits(logits)
    return log_sums - centered[jnp.arange(len(logits)), targets]


def bits_per_byte(nats_per_token: float, bytes_per_token: float) -> float:
    """Convert nats per token to bits per byte, which are comparable across tokenizers.

    >>> bits_per_byte(math.log(256), bytes_per_token=1)
    8.0
    """
    return nats_per_token / (math.log(2) * bytes_per_token)
