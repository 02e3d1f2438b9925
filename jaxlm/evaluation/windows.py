"""windows."""

from typing import Any, NamedTuple

import numpy as np

from jaxlm.models.interface import LanguageModel, num_contexts

# Windows scored by one call of the compiled loop: bounds memory, whatever the text's length.
WINDOWS_PER_CALL = 65_536


class GroupedWindows(NamedTuple):
    """The windows of a text, those of one context side by side, so that each context is scored once.

    Every array has one length for texts of all lengths, so that they share one compilation.
    """

    ids: Any  # the text
    contexts: Any  # where each distinct context begins in it
    rows: Any  # the context of each window, by its place among `contexts`
    targets: Any  # the token that follows
    bounds: Any  # of a batch of contexts, the first window; then that of the next
    num_batches: int
    order: Any  # which window of the text each of these is; for the host alone


def group_windows(segment: np.ndarray[Any, Any], model: LanguageModel, batch_size: int) -> GroupedWindows:
    context_length = model.context_length
    num_windows = len(segment) - context_length
    order = np.arange(num_windows, dtype=np.int32)
    is_first = np.ones(num_windows, bool)
    if num_contexts(model) <= WINDOWS_PER_CALL:
        keys = np.zeros(num_windows, np.int32)  # the context's number, in base V
        for position in range(context_length):
            keys = keys * model.vocab_size + segment[position : position + num_windows]
        keys = keys.astype(np.uint16)  # 16 bits: NumPy sorts them in linear time
        order = np.argsort(keys, kind="stable").astype(np.int32)
        is_first[1:] = np.diff(keys[order]) != 0
    firsts = np.flatnonzero(is_first)
    bounds = np.append(firsts[::batch_size], num_windows)
    max_batches = -(-WINDOWS_PER_CALL // batch_size)
    return GroupedWindows(
        ids=_padded(segment, WINDOWS_PER_CALL + context_length),
        contexts=_padded(order[is_first], max_batches * batch_size),
        rows=_padded(np.cumsum(is_first) - 1, WINDOWS_PER_CALL + batch_size),
        targets=_padded(segment[order + context_length], WINDOWS_PER_CALL + batch_size),
        bounds=_padded(bounds, max_batches + 1),
        num_batches=len(bounds) - 1,
        order=order,
    )


def _padded(values: np.ndarray[Any, Any], length: int) -> np.ndarray[Any, Any]:
    padded = np.zeros(length, np.int32)
    padded[: len(values)] = values
    return padded
