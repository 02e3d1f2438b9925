"""How well a model predicts a text: nats per token, perplexity, bits per byte."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import ArrayLike

from jaxlm.batching import check_at_least, check_stream
from jaxlm.devices import resolve_device
from jaxlm.models.interface import LanguageModel, predict

# Windows scored by one call of the compiled loop: bounds memory, whatever the text's length.
_WINDOWS_PER_CALL = 65_536


class Evaluation(NamedTuple):
    """The cross-entropy of a text under a model: its mean, the exponential of that, and the tokens predicted."""

    nats_per_token: float
    perplexity: float
    num_tokens: int


def token_nats(logits: Array, targets: Array) -> Array:
    """`-log softmax(logits)[target]` in nats: logits [B, V], targets int [B] -> [B].

    A target of logit -inf costs inf, also where the whole row is -inf (a token that was never seen, without
    smoothing).
    """
    # With the maximum taken off before anything else is done, large logits cost no digits.
    shifted = logits - lax.stop_gradient(logits.max(axis=1, keepdims=True))
    target_logits = jnp.take_along_axis(shifted, targets[:, None], axis=1)[:, 0]
    nats = jnp.log(jnp.exp(shifted).sum(axis=1)) - target_logits
    impossible = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0] == -jnp.inf
    return jnp.where(impossible, jnp.inf, nats)


def evaluate(
    model: LanguageModel,
    variables: Any,
    ids: ArrayLike,
    *,
    batch_size: int = 256,
    device: str | jax.Device = "auto",
) -> Evaluation:
    """Scores every window of `ids`: the sum of all their nats over their number, divided once, at the end.

    Each nat is computed in float32, the sum in float64. `batch_size` is for speed and memory alone.

    Args:
        ids: integers [T]; all but the first `context_length` are predicted.

    Raises:
        TypeError: `ids` are not integers.
        ValueError: an id is out of range, `T <= context_length`, or `batch_size < 1`.
    """
    context_length = model.context_length
    stream = np.asarray(check_stream(ids, model.vocab_size, min_length=context_length + 1))
    check_at_least("batch_size", batch_size, 1)
    target_device = resolve_device(device)
    variables = jax.device_put(variables, target_device)
    num_windows = len(stream) - context_length
    # A batch far larger than the text would only cost memory.
    batch_size = min(batch_size, max(1 << (num_windows - 1).bit_length(), 256))
    windows_per_call = max(_WINDOWS_PER_CALL // batch_size, 1) * batch_size
    total_nats = 0.0
    for start in range(0, num_windows, windows_per_call):
        num_left = min(num_windows - start, windows_per_call)
        # Every call has one shape, so that texts of all lengths share one compilation.
        segment = np.zeros(windows_per_call + context_length, np.int32)
        segment[: num_left + context_length] = stream[start : start + num_left + context_length]
        nats = _window_nats(
            model, variables, jax.device_put(segment, target_device), -(-num_left // batch_size), batch_size
        )
        total_nats += float(np.asarray(nats)[:num_left].sum(dtype=np.float64))
    nats_per_token = total_nats / num_windows
    return Evaluation(nats_per_token, _exp(nats_per_token), num_windows)


def perplexity(
    model: LanguageModel,
    variables: Any,
    ids: ArrayLike,
    *,
    batch_size: int = 256,
    device: str | jax.Device = "auto",
) -> float:
    """`exp` of the mean nats over all windows of `ids`: the number of equally likely tokens that would be as
    hard to predict. A uniform model has perplexity V; `inf` where a token was given probability zero.

    Args and Raises: as `evaluate`.
    """
    return evaluate(model, variables, ids, batch_size=batch_size, device=device).perplexity


def bits_per_byte(nats_per_token: float, bytes_per_token: float) -> float:
    """Nats per token as bits per byte of text, the figure that compares models with different tokenizers.

    >>> bits_per_byte(math.log(256), bytes_per_token=1)
    8.0
    """
    return nats_per_token / (math.log(2) * bytes_per_token)


@functools.partial(jax.jit, static_argnames=("model", "batch_size"))
def _window_nats(
    model: LanguageModel, variables: Any, segment: Array, num_batches: Array, batch_size: int
) -> Array:
    context_length = model.context_length
    offsets = jnp.arange(batch_size)[:, None] + jnp.arange(context_length)[None, :]  # [B, N]

    def score_batch(index: Array, nats: Array) -> Array:
        start = index * batch_size
        ids = lax.dynamic_slice(segment, (start,), (batch_size + context_length,))
        batch_nats = token_nats(predict(model, variables, ids[offsets]), ids[context_length:])
        return lax.dynamic_update_slice(nats, batch_nats.astype(jnp.float32), (start,))

    return lax.fori_loop(0, num_batches, score_batch, jnp.zeros(len(segment) - context_length, jnp.float32))


def _exp(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
