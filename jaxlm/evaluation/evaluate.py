"""Evaluate a model on a text: nats per token and perplexity."""

import functools
import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, SingleDeviceSharding
from numpy.typing import ArrayLike

from jaxlm._types import Device, FloatW, IntScalar, NpFloatW, Variables
from jaxlm.devices.mesh import check_placement, partition, put, shard_map, sharding_of, to_local
from jaxlm.devices.selection import resolve_device
from jaxlm.evaluation.windows import WINDOWS_PER_CALL, GroupedWindows, group_windows
from jaxlm.models.interface import (
    LanguageModel,
    SupportsTargetLogProbs,
    compute_logits,
    num_params,
    target_log_probs,
)
from jaxlm.models.jit import jit_model
from jaxlm.text.batching import check_stream
from jaxlm.utils.checks import check_at_least, check_not_traced

# The pure alternative, named in the errors of host functions.
PURE_NATS = "jaxlm.token_nats(jaxlm.compute_logits(model, variables, contexts), targets)"

# Contexts per step, at least, if only targets are looked up. With 256, n-grams take 1.6 times as long.
_TARGET_BATCH = 1024

# Rounding tolerance of the nats and of the sum of the probabilities.
_TOLERANCE = 1e-3

_compute_logits = jit_model(compute_logits)


class Evaluation(NamedTuple):
    """The cross-entropy of a text under a model, its exponential, and the number of predicted tokens.

    >>> from jaxlm import UniformLM
    >>> result = evaluate(UniformLM(vocab_size=8), {}, [3, 5, 0, 2])
    >>> round(result.nats_per_token / math.log(2), 3), round(result.perplexity, 3), result.num_tokens
    (3.0, 8.0, 4)
    """

    nats_per_token: float
    perplexity: float
    num_tokens: int


def evaluate(
    model: LanguageModel,
    variables: Variables,
    ids: ArrayLike,
    *,
    batch_size: int = 256,
    device: Device = "auto",
    mesh: Mesh | None = None,
    num_shards: int | None = None,
) -> Evaluation:
    """Score all windows of `ids`. Host function; not for use inside `jit`.

    The nats of a window are computed in float32, summed in float64, and divided once at the end. If the model has
    few possible contexts (a bigram, a small vocabulary), each context is scored once, not once per window.

    Args:
        ids: integers [T], T > N, or a `TokenStream`; all but the first N = `context_length` are predicted.
        batch_size: contexts per forward pass, at least 1; affects only speed and memory.
        device: "auto" chooses by the size of the model.
        mesh: devices that share the windows, instead of `device`. Of several processes, all make the same call.
        num_shards: number of parts of the text that the devices of the mesh share, a multiple of their number. The
            same parts give the same bits on any number of devices. None means one part for each device.

    Returns:
        the mean nats per token, its exponential, and T - N.

    Raises:
        ValueError: T <= N, or an id is outside [0, V).
        TypeError: the ids are not integers, the model is not hashable, or the call is traced.

    >>> from jaxlm import UniformLM
    >>> evaluate(UniformLM(vocab_size=1), {}, [0, 0, 0])
    Evaluation(nats_per_token=0.0, perplexity=1.0, num_tokens=3)
    """
    check_not_traced("evaluate", PURE_NATS, variables, ids)
    check_placement(device, mesh)
    target_device = (
        resolve_device(device, num_weights=num_params(variables)) if mesh is None else mesh.local_devices[0]
    )
    total, num_windows, lowest, highest = 0.0, 0, math.inf, -math.inf
    for nats in _score_segments(model, variables, ids, batch_size, target_device, mesh, num_shards):
        total, num_windows = total + float(nats.sum(dtype=np.float64)), num_windows + len(nats)
        lowest, highest = min(lowest, float(nats.min())), max(highest, float(nats.max()))
    _warn_if_probabilities(model, to_local(variables), ids, lowest, highest, target_device)
    nats_per_token = total / num_windows
    with np.errstate(over="ignore"):
        return Evaluation(nats_per_token, float(np.exp(nats_per_token)), num_windows)


def window_nats(
    model: LanguageModel, variables: Variables, ids: ArrayLike, *, batch_size: int = 256, device: Device = "auto"
) -> NpFloatW:
    """Return the nats of each of the W = T - N windows. Host function; not for use inside `jit`.

    Arguments and errors are those of `evaluate`.

    Returns:
        float32 [W]; element i belongs to the target `ids[i + N]`.

    >>> from jaxlm import UniformLM
    >>> print(window_nats(UniformLM(vocab_size=2), {}, [0, 1, 0]).round(3))
    [0.693 0.693 0.693]
    """
    check_not_traced("window_nats", PURE_NATS, variables, ids)
    target_device = resolve_device(device, num_weights=num_params(variables))
    return np.concatenate([*_score_segments(model, variables, ids, batch_size, target_device)])


def perplexity(
    model: LanguageModel, variables: Variables, ids: ArrayLike, *, batch_size: int = 256, device: Device = "auto"
) -> float:
    """Return `exp` of the mean nats over all windows of `ids`. Host function; not for use inside `jit`.

    A perplexity of k means: as hard to predict as a uniform choice among k tokens. Arguments and errors are those
    of `evaluate`.

    Returns:
        a float, at least 1: V for a uniform model, inf if a token has probability 0.

    >>> from jaxlm import UniformLM
    >>> round(perplexity(UniformLM(vocab_size=50), {}, [7, 0, 49]), 3)
    50.0
    """
    check_not_traced("perplexity", PURE_NATS, variables, ids)
    return evaluate(model, variables, ids, batch_size=batch_size, device=device).perplexity


def _score_segments(
    model: LanguageModel,
    variables: Variables,
    ids: ArrayLike,
    batch_size: int,
    device: jax.Device,
    mesh: Mesh | None = None,
    num_shards: int | None = None,
) -> Iterator[NpFloatW]:
    """Yield the nats of each segment's windows, in the order of the text."""
    context_length = model.context_length
    stream = check_stream(ids, model.vocab_size, min_length=context_length + 1)
    check_at_least("batch_size", batch_size, 1)
    num_windows = len(stream) - context_length
    if isinstance(model, SupportsTargetLogProbs):
        batch_size = max(batch_size, _TARGET_BATCH)
    # A batch much larger than the text would only waste memory.
    batch_size = min(batch_size, max(1 << (num_windows - 1).bit_length(), 256), WINDOWS_PER_CALL)
    num_devices = 1 if mesh is None else mesh.size
    num_shards = num_devices if num_shards is None else num_shards
    if num_shards < 1 or num_shards % num_devices or (mesh is None and num_shards > 1):
        raise ValueError(
            f"num_shards must be a multiple of the {num_devices} devices of the mesh, got {num_shards}"
        )
    segments = stream.segments(min(WINDOWS_PER_CALL, -(-num_windows // num_shards)), overlap=context_length)
    grouped_segments = (group_windows(segment.astype(np.int32), model, batch_size) for segment in segments)
    variables = put(variables, SingleDeviceSharding(device) if mesh is None else sharding_of(mesh))
    shard_nats: Any
    while shards := list(itertools.islice(grouped_segments, num_shards)):
        rows = [grouped for grouped, _ in shards]
        if mesh is None:
            shard_nats = [score_windows(model, variables, jax.device_put(rows[0], device), batch_size)]
        else:
            rows += [jax.tree.map(np.zeros_like, rows[0])] * (num_shards - len(rows))
            stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *rows)
            stacked = put(stacked, sharding_of(mesh, *mesh.axis_names))
            shard_nats = _score_shards(model, variables, stacked, batch_size, mesh)
        for grouped_nats, (_, order) in zip(jax.device_get(shard_nats), shards, strict=False):
            nats = np.empty(len(order), np.float32)  # in the order of the text, without the padding
            nats[order] = grouped_nats[: len(order)]
            yield nats


def _warn_if_probabilities(
    model: LanguageModel, variables: Variables, ids: Any, lowest: float, highest: float, device: jax.Device
) -> None:
    """Warn if `apply` returns probabilities, given the lowest and the highest nats of a token."""
    # Used as logits, probabilities give nats in [b - 1, b] with b = log(V - 1 + e).
    bound = math.log(model.vocab_size - 1 + math.e)
    is_possible = bound - 1 - _TOLERANCE <= lowest and highest <= bound + _TOLERANCE
    if not is_possible or isinstance(model, SupportsTargetLogProbs):
        return
    first_ids = np.asarray(ids[: model.context_length + 8], np.int32)
    contexts = np.lib.stride_tricks.sliding_window_view(first_ids, model.context_length)[:-1]
    logits = jax.device_get(_compute_logits(model, *jax.device_put((variables, contexts), device)))
    if (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1, atol=_TOLERANCE):
        warnings.warn(
            f"{type(model).__name__}.apply returns probabilities; return their logarithms, which are logits",
            stacklevel=1,  # so that Python shows it once per model class
        )


@functools.partial(jit_model, static_argnames=("batch_size", "mesh"))
def _score_shards(
    model: LanguageModel, variables: Variables, shards: GroupedWindows, batch_size: int, mesh: Mesh
) -> Array:
    """Return the nats of S shards [S, W], on every device of the mesh; `shards` has arrays [S, ...]."""
    (axis,) = mesh.axis_names

    def score_local(variables: Variables, shards: GroupedWindows) -> Array:
        nats = lax.map(lambda shard: score_windows(model, variables, shard, batch_size), shards)
        return lax.all_gather(nats, axis, tiled=True)

    specs = partition(), partition(axis)
    return shard_map(score_local, mesh, specs, partition())(variables, shards)


@functools.partial(jit_model, static_argnames="batch_size")
def score_windows(model: LanguageModel, variables: Variables, grouped: GroupedWindows, batch_size: int) -> FloatW:
    """Return the nats of each window, float32, followed by arbitrary values for the padding."""
    offsets = jnp.arange(model.context_length)[None, :]

    def score_batch(batch: IntScalar, nats: FloatW) -> FloatW:
        first_row = batch * batch_size
        begins = lax.dynamic_slice_in_dim(grouped.contexts, first_row, batch_size)
        log_probs = target_log_probs(model, variables, grouped.ids[begins[:, None] + offsets])
        first_window = grouped.bounds[batch]

        def score_piece(piece: IntScalar, nats: FloatW) -> FloatW:
            # A piece may extend into the next batch, which later overwrites those values.
            start = first_window + piece * batch_size
            rows = lax.dynamic_slice_in_dim(grouped.rows, start, batch_size) - first_row
            targets = lax.dynamic_slice_in_dim(grouped.targets, start, batch_size)
            piece_nats = -log_probs(rows, targets).astype(jnp.float32)
            return lax.dynamic_update_slice_in_dim(nats, piece_nats, start, axis=0)

        num_pieces = -(-(grouped.bounds[batch + 1] - first_window) // batch_size)
        return lax.fori_loop(0, num_pieces, score_piece, nats)

    nats = jnp.zeros(len(grouped.rows), jnp.float32)
    return lax.fori_loop(0, grouped.num_batches, score_batch, nats)
