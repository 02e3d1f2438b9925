"""Score each token of a text: log-probability, rank and entropy."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import entr
from jax.sharding import SingleDeviceSharding
from numpy.typing import ArrayLike, NDArray

from jaxlm._types import Device, IntB, IntBN, NpFloatW, Variables
from jaxlm.devices.mesh import put
from jaxlm.devices.selection import resolve_device
from jaxlm.models.interface import LanguageModel, center_logits, compute_logits, num_params, target_log_probs
from jaxlm.models.jit import jit_model
from jaxlm.text.batching import check_stream
from jaxlm.utils.checks import check_at_least, check_not_traced


class Scores(NamedTuple):
    """Scores of the W tokens of a text that follow a whole context. Nats.

    >>> Scores(np.log([0.5, 0.25]), np.array([1, 2]), np.log([2, 3])).ranks.tolist()
    [1, 2]
    """

    log_probs: NpFloatW
    ranks: NDArray[np.int32]  # [W]; 1 for the likeliest token; of equally likely tokens, the lowest id is first
    entropies: NpFloatW  # of the distribution from which the token was predicted


def score(
    model: LanguageModel, variables: Variables, ids: ArrayLike, *, batch_size: int = 256, device: Device = "auto"
) -> Scores:
    """Return the log-probability and rank of each token, and the entropy of its prediction.

    Host function; not for use inside `jit`. `window_nats` computes the log-probabilities alone, and faster.

    Args:
        ids: integers [T], T > N, or a `TokenStream`; all but the first N = `context_length` are scored.
        batch_size: contexts per forward pass, at least 1; affects only speed and memory.
        device: "auto" chooses by the size of the model.

    Returns:
        arrays of W = T - N: float32 log-probabilities, int32 ranks in [1, V], float32 entropies in [0, log(V)].
        Element i belongs to `ids[i + N]`. If the probabilities of a `BackoffLM` do not sum to 1, the
        log-probabilities are those of its ARPA file, and the entropies are of the normalized distribution.

    Raises:
        ValueError: T <= N, or an id is outside [0, V).
        TypeError: the ids are not integers, the model is not hashable, or the call is traced.

    >>> import jaxlm
    >>> model = jaxlm.UnigramLM(3)
    >>> scores = score(model, jnp.array([1, 5, 0]), [0, 1, 2])  # probabilities 2/9, 6/9 and 1/9
    >>> print(np.exp(scores.log_probs).round(3), scores.ranks, scores.entropies.round(3))
    [0.222 0.667 0.111] [2 1 3] [0.849 0.849 0.849]
    """
    check_not_traced("score", "jaxlm.compute_logits(model, variables, contexts)", variables, ids)
    length = model.context_length
    stream = check_stream(ids, model.vocab_size, min_length=length + 1)
    check_at_least("batch_size", batch_size, 1)
    batch_size = min(batch_size, max(1 << (len(stream) - 1).bit_length(), 256))  # as in `evaluate`
    target_device = resolve_device(device, num_weights=num_params(variables))
    variables = put(variables, SingleDeviceSharding(target_device))
    parts = []
    for segment in stream.segments(batch_size, overlap=length):
        num_windows = len(segment) - length
        padded = np.pad(segment.astype(np.int32), (0, batch_size - num_windows))
        windows = np.lib.stride_tricks.sliding_window_view(padded, length + 1)
        arrays = jax.device_put((windows[:, :-1], windows[:, -1]), target_device)
        parts.append([column[:num_windows] for column in jax.device_get(_score_batch(model, variables, *arrays))])
    return Scores(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@jit_model
def _score_batch(model: LanguageModel, variables: Variables, contexts: IntBN, targets: IntB) -> tuple[Array, ...]:
    logits, log_sums = center_logits(compute_logits(model, variables, contexts))
    rows = jnp.arange(len(targets))
    found = logits[rows, targets][:, None]
    is_lower_id = jnp.arange(model.vocab_size)[None, :] < targets[:, None]
    is_before = (logits > found) | ((logits == found) & is_lower_id)
    ranks = 1 + is_before.sum(axis=1, dtype=jnp.int32)
    entropies = entr(jnp.exp(logits - log_sums[:, None])).sum(axis=1)
    log_probs = target_log_probs(model, variables, contexts)(rows, targets)
    return log_probs.astype(jnp.float32), ranks, jnp.abs(entropies).astype(jnp.float32)  # not -0.0
