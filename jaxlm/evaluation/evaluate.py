"""How well a model predicts a text: nats per token, perplexity, bits per byte."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import ArrayLike

from jaxlm.devices.selection import resolve_device
from jaxlm.evaluation.jax_versions import device_put
from jaxlm.evaluation.loss import center_logits, nats_of_targets
from jaxlm.evaluation.windows import WINDOWS_PER_CALL, GroupedWindows, group_windows
from jaxlm.models.interface import LanguageModel, compute_logits, num_params, target_scorer
from jaxlm.text.batching import check_stream
from jaxlm.utils.checks import check_at_least


class Evaluation(NamedTuple):
    """The cross-entropy of a text under a model: its mean, the exponential of that, and the tokens predicted."""

    nats_per_token: float
    perplexity: float
    num_tokens: int


def evaluate(
    model: LanguageModel,
    variables: Any,
    ids: ArrayLike,
    *,
    batch_size: int = 256,
    device: str | jax.Device = "auto",
) -> Evaluation:
    """Scores every window of `ids`: the sum of all their nats over their number, divided once, at the end.

    Each nat is computed in float32, the sum in float64. `batch_size` is for speed and memory alone. Where a model
    can see only so many contexts (a bigram, a small vocabulary), each of them is scored once, not once a window.

    Args:
        ids: integers [T]; all but the first `context_length` are predicted.

    Raises:
        TypeError: `ids` are not integers.
        ValueError: an id is out of range, `T <= context_length`, or `batch_size < 1`.
    """
    segments = _segment_nats(model, variables, ids, batch_size, device, in_order=False)
    sums = [(float(nats.sum(dtype=np.float64)), len(nats)) for nats in segments]
    num_windows = sum(length for _, length in sums)
    nats_per_token = sum(total for total, _ in sums) / num_windows
    return Evaluation(nats_per_token, _exp(nats_per_token), num_windows)


def window_nats(
    model: LanguageModel,
    variables: Any,
    ids: ArrayLike,
    *,
    batch_size: int = 256,
    device: str | jax.Device = "auto",
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The nats of each window of `ids` [T]: float32 [T - context_length], the first that of `ids[context_length]`.

    Args and Raises: as `evaluate`.
    """
    return np.concatenate([*_segment_nats(model, variables, ids, batch_size, device, in_order=True)])


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


def _segment_nats(
    model: LanguageModel,
    variables: Any,
    ids: ArrayLike,
    batch_size: int,
    device: str | jax.Device,
    *,
    in_order: bool,
) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """The nats of all windows, segment by segment of the text; within one in another order, if not `in_order`."""
    context_length = model.context_length
    stream = np.asarray(check_stream(ids, model.vocab_size, min_length=context_length + 1))
    check_at_least("batch_size", batch_size, 1)
    target_device = resolve_device(device, num_weights=num_params(variables))
    variables = device_put(variables, target_device)
    num_windows = len(stream) - context_length
    # A batch far larger than the text would only cost memory.
    batch_size = min(batch_size, max(1 << (num_windows - 1).bit_length(), 256), WINDOWS_PER_CALL)
    for start in range(0, num_windows, WINDOWS_PER_CALL):
        segment = stream[start : start + WINDOWS_PER_CALL + context_length]
        windows = group_windows(segment, model, batch_size)
        on_device = jax.device_put(windows._replace(order=None), target_device)
        nats = jax.device_get(_window_nats(model, variables, on_device, batch_size))
        nats = nats[: len(segment) - context_length]
        if in_order:
            placed = np.empty_like(nats)
            placed[windows.order] = nats
            nats = placed
        yield nats


@functools.partial(jax.jit, static_argnames=("model", "batch_size"))
def _window_nats(model: LanguageModel, variables: Any, windows: GroupedWindows, batch_size: int) -> Array:
    """The nats of each window, in the order of `windows`; past the last one the values mean nothing."""
    offsets = jnp.arange(model.context_length)[None, :]

    def score_batch(batch: Array, nats: Array) -> Array:
        first_row = batch * batch_size
        begins = lax.dynamic_slice_in_dim(windows.contexts, first_row, batch_size)
        target_nats = _target_nats(model, variables, windows.ids[begins[:, None] + offsets])
        first_window = windows.bounds[batch]

        def score_windows(piece: Array, nats: Array) -> Array:
            # A piece may reach into the next batch's windows, which that batch then writes over.
            start = first_window + piece * batch_size
            rows = lax.dynamic_slice_in_dim(windows.rows, start, batch_size) - first_row
            targets = lax.dynamic_slice_in_dim(windows.targets, start, batch_size)
            piece_nats = target_nats(rows, targets).astype(jnp.float32)
            return lax.dynamic_update_slice_in_dim(nats, piece_nats, start, axis=0)

        num_pieces = -(-(windows.bounds[batch + 1] - first_window) // batch_size)
        return lax.fori_loop(0, num_pieces, score_windows, nats)

    nats = jnp.zeros(len(windows.rows), jnp.float32)
    return lax.fori_loop(0, windows.num_batches, score_batch, nats)


def _target_nats(model: LanguageModel, variables: Any, contexts: Array) -> Callable[[Array, Array], Array]:
    """For contexts [B, N]: a function of rows of them [W] and the targets [W] after those, to nats."""
    if (scorer := target_scorer(model)) is not None:
        log_probs = scorer.target_log_probs(variables, contexts)
        return lambda rows, targets: -log_probs(rows, targets)
    return functools.partial(nats_of_targets, *center_logits(compute_logits(model, variables, contexts)))


def _exp(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
