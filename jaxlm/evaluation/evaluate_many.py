"""Evaluate R models of one shape at once."""

import jax
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from jaxlm._types import Variables
from jaxlm.evaluation.evaluate import Evaluation, score_windows
from jaxlm.evaluation.windows import WINDOWS_PER_CALL, GroupedWindows, group_windows
from jaxlm.models.interface import LanguageModel
from jaxlm.models.jit import jit_model
from jaxlm.text.batching import check_stream

_BATCH_SIZE = 256  # contexts per forward pass of each model


def evaluate_many(model: LanguageModel, variables: Variables, ids: ArrayLike) -> list[Evaluation]:
    """Return `evaluate(model, variables[r], ids)` for each of R models, up to rounding, by one vmapped program.

    Host function; not for use inside `jit`. The windows are grouped and copied to the devices once, not R times.

    Args:
        variables: the variables of the models, each array [R, ...], possibly split over devices.
        ids: as in `evaluate`.
    """
    stream = check_stream(ids, model.vocab_size, min_length=model.context_length + 1)
    total, num_windows = np.zeros(1), len(stream) - model.context_length
    for segment in stream.segments(WINDOWS_PER_CALL, overlap=model.context_length):
        grouped, order = group_windows(segment.astype(np.int32), model, _BATCH_SIZE)
        nats = jax.device_get(_score_many(model, variables, grouped))
        total = total + nats[:, : len(order)].sum(axis=1, dtype=np.float64)
    with np.errstate(over="ignore"):
        means = total / num_windows
        return [Evaluation(float(mean), float(np.exp(mean)), num_windows) for mean in means]


@jit_model
def _score_many(model: LanguageModel, variables: Variables, grouped: GroupedWindows) -> Array:
    return jax.vmap(lambda each: score_windows(model, each, grouped, _BATCH_SIZE))(variables)
